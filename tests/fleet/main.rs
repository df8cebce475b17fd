//! Several pipelines in one process, on real servers.

#[path = "../support/mod.rs"]
mod support;

mod folder;
