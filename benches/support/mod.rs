//! Shared by the benchmarks: servers, topics that are counted, the CPU and memory of a process,
//! quantiles.

#![allow(dead_code)] // Each benchmark uses a part of it.

pub mod process;
pub mod quantiles;
pub mod servers;
pub mod topics;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
