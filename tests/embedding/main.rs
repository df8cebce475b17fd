//! A relay inside an application: how it starts there, alone and as one of several replicas,
//! the application's handlers, and the examples.

#![allow(dead_code)] // The examples' main functions.

#[path = "../support/mod.rs"]
mod support;

mod examples;
#[cfg(feature = "faults")]
mod handlers;
mod replicas;
mod start;
#[cfg(feature = "tracing")]
mod tracing;
