//! A Kafka producer for relays: records go out in order, many batches at a time, and each is
//! acknowledged or refused by itself.
//!
//! [`Producer`] sends, [`TransactionalProducer`] sends in transactions, and [`Client`] asks: for
//! topics, their settings, offsets, and records.
//!
//! | module | idea |
//! | --- | --- |
//! | [`partition`] | the batches of one partition on their way to its leader, without sockets and clock |
//! | [`record_batch`] | records as the bytes that a broker takes |
//! | [`compression`] | the codecs of these |
//! | `driver` | the task that knows brokers, leaders and transactions, and sends |
//! | `topic` | records that wait for the driver, and who hears of their end |
//! | `answers` | a broker's error codes as answers to a batch |
//! | `connection` | one connection to one broker, pipelined |
//! | [`sasl`], [`tls`] | logins, and encryption by OpenSSL (feature `tls`) |
//! | [`client`] | questions, joining no group |

#![deny(unsafe_code)]

mod answers;
mod anyone;
pub mod client;
pub mod compression;
mod connection;
mod connector;
mod driver;
mod error;
pub mod partition;
pub mod partitioner;
mod producer;
mod race;
mod read_batch;
pub mod record_batch;
pub mod sasl;
mod settings;
#[cfg(feature = "tls")]
pub mod tls;
mod topic;
mod transaction;

pub use self::{
    client::Client,
    compression::Compression,
    connector::{Connecting, Connector, Plaintext, Stream},
    error::{Code, Error, Result},
    producer::{AnsweredRequest, Observer, Producer, SentRequest, Unobserved},
    settings::Settings,
    topic::{PushError, Receipt, Refusal, Sending, Topic},
    transaction::{Sealed, TransactionError, Transactional, TransactionalProducer},
};
