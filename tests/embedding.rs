//! A relay inside an application: how it starts there, alone and as one of several replicas,
//! and what it says when it can't.

#![allow(dead_code)] // The example's main function.

#[path = "../examples/embedded.rs"]
mod embedded;
#[path = "embedding/replicas.rs"]
mod replicas;
#[path = "embedding/start.rs"]
mod start;
mod support;
#[cfg(feature = "tracing")]
#[path = "embedding/tracing.rs"]
mod tracing;
