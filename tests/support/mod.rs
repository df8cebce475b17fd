//! What the tests on real servers share: a place of one's own on the servers,
//! facts to emit, and the checker that holds what was read back against them.

#![allow(dead_code, unused_imports)] // Each test binary uses a part of it.

pub mod bed;
pub mod emitters;
pub mod history;
pub mod probe;
pub mod promtool;
pub mod records;
#[cfg(feature = "cli")]
pub mod relay;
pub mod repository;
pub mod rows;
pub mod source;
pub mod status;
#[cfg(feature = "cli")]
pub mod terminal;
pub mod workload;

pub use self::{
    bed::Bed,
    history::{History, Report},
    workload::Workload,
};
