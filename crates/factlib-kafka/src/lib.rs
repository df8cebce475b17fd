//! A Kafka producer for relays: records go out in order, many batches at a time, and each is
//! acknowledged or refused by itself.
//!
//! Built from the inside out. There so far:
//!
//! | module | idea |
//! | --- | --- |
//! | [`partition`] | the batches of one partition on their way to its leader, without sockets and clock |
//! | [`record_batch`] | records as the bytes that a broker takes |
//! | [`compression`] | the codecs of these |

#![deny(unsafe_code)]

mod answers;
pub mod compression;
mod connection;
mod driver;
mod error;
pub mod partition;
pub mod partitioner;
mod producer;
pub mod record_batch;
pub mod sasl;
mod settings;
mod topic;

pub use self::{
    compression::Compression,
    connection::Stream,
    error::{Code, Error, Result},
    producer::{Observer, Producer, Unobserved},
    settings::{Connecting, Connector, Plaintext, Settings},
    topic::{NoPartition, Receipt, Refusal, Sending, Topic},
};
