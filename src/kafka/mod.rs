//! The Kafka client, on librdkafka: sends batches of records, asks brokers about topics, and
//! reports through an observer.

pub(crate) mod admin;
mod broker_client;
pub(crate) mod client;
mod client_status;
pub(crate) mod clients;
mod complaints;
mod disconnects;
pub(crate) mod errors;
pub(crate) mod first_records;
mod headers;
pub(crate) mod in_flight;
mod librdkafka_errors;
pub(crate) mod limits;
#[cfg(feature = "oauth")]
mod oauth;
mod observer;
pub(crate) mod outgoing;
pub(crate) mod pending_batch;
pub(crate) mod pipelined;
#[cfg(feature = "client-kafka")]
pub(crate) mod plain;
mod polled;
pub(crate) mod producer;
mod queue_budget;
pub(crate) mod reader;
pub(crate) mod reports;
pub(crate) mod resend;
pub(crate) mod secret;
mod settings;
mod statistics;
mod verdict;

pub use self::{
    client_status::{BrokerStatus, KafkaStatus},
    settings::Compression,
};
pub(crate) use self::{
    headers::owned_headers,
    observer::{KafkaObserver, unobserved},
    secret::Secret,
    settings::{
        KafkaSettings, LoginSettings, NewTopics, PasswordMechanism, TlsSettings, TokenEndpoint,
        is_secret,
    },
};
