//! Several pipelines in one process, on real servers.

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod databases;
mod folder;
mod library;
mod sharing;
