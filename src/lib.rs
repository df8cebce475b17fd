//! factlib relays facts that were committed in PostgreSQL to Kafka.

#![deny(unsafe_code)]

mod actors;
pub mod checkpoint;
pub mod config;
pub mod emit;
mod error;
mod event;
mod faults;
mod kafka;
mod lsn;
mod messages;
mod pipeline;
pub mod postgres;
pub mod proto;
mod startup;
mod status;
#[cfg(feature = "test-util")]
pub mod testing;

#[cfg(feature = "test-util")]
pub use self::faults::{FaultSite, Faults};
pub use self::{
    error::{Error, ErrorKind, Result},
    event::{Event, TransactionInfo},
    lsn::{Lsn, ParseLsnError},
    messages::{AckToken, BatchId, TopicBatch},
    pipeline::{Pipeline, PipelineBuilder, PipelineHandle},
    startup::{SetupReport, setup, setup_sql},
    status::{PipelineState, PipelineStatus, TopicStatus},
};
