//! factlib relays facts that were committed in PostgreSQL to Kafka.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod emit;
mod error;
mod event;
pub mod kafka;
mod lsn;
pub mod postgres;
pub mod proto;
#[cfg(feature = "test-util")]
pub mod testing;

pub use self::{
    error::{Error, ErrorKind, Result},
    event::Event,
    lsn::{Lsn, ParseLsnError},
};
