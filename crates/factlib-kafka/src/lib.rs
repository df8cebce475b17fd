//! A Kafka producer for relays: records go out in order, many batches at a time, and each is
//! acknowledged or refused by itself.
//!
//! [`Producer`] sends records, [`TransactionalProducer`] sends them in transactions, and
//! [`Client`] reads and changes everything else: topics, their settings, offsets and records.
//! [`Membership`] shares out work among the members of a consumer group.
//!
//! | module | idea |
//! | --- | --- |
//! | [`partition`] | a state machine for the batches of one partition, without sockets or a clock |
//! | [`record_batch`] | encodes records as Kafka's record batches |
//! | [`compression`] | compresses and decompresses record batches |
//! | `driver` | the task that tracks brokers, leaders and transactions, and sends the batches |
//! | `topic` | queues records for the driver |
//! | `receipt` | tells the owners of records what became of each |
//! | `answers` | translates a broker's error codes into the result of a batch |
//! | `broker_pool` | requests that any broker can answer |
//! | `coordinator_key` | asks which broker coordinates a group or a transactional id |
//! | `connection` | one connection to one broker, pipelined |
//! | `connection_pool` | the connections that clients take turns to use |
//! | [`sasl`], [`tls`] | logins, and encryption by rustls (feature `tls`) |
//! | [`group`] | membership of a consumer group that shares out work |
//! | [`client`] | administers topics, describes groups, and reads offsets and records without one |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod answers;
mod broker_pool;
pub mod client;
pub mod compression;
mod connection;
mod connection_pool;
mod connector;
mod coordinator_key;
mod driver;
mod error;
pub mod group;
pub mod partition;
pub mod partitioner;
mod producer;
mod race;
mod read_batch;
mod receipt;
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
    connection_pool::ConnectionPool,
    connector::{Connecting, Connector, Plaintext, Stream},
    driver::DrainHold,
    error::{Code, CodeName, Error, Result},
    group::{Assign, GroupEvent, GroupMember, GroupSettings, Membership},
    producer::{AnsweredRequest, Observer, Producer, SentRequest, Unobserved},
    receipt::{Appended, Receipt, Refusal},
    settings::{AddedPartitions, Settings},
    topic::{PushError, Sending, Topic},
    transaction::{Sealed, TransactionError, Transactional, TransactionalProducer},
};
