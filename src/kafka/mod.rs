//! The relay's half of Kafka: sends batches of records, asks brokers about topics, and reports
//! through an observer.

pub(crate) mod admin;
mod broker_client;
mod client_status;
mod complaints;
pub(crate) mod errors;
pub(crate) mod groups;
pub(crate) mod in_flight;
#[cfg(feature = "oauth")]
mod oauth;
mod observer;
pub(crate) mod pipelined;
#[cfg(feature = "client-kafka")]
pub(crate) mod plain;
pub(crate) mod reader;
pub(crate) mod resend;
pub(crate) mod secret;
pub(crate) mod send_window;
mod settings;

pub use self::{
    client_status::{BrokerStatus, KafkaStatus},
    settings::Compression,
};
pub(crate) use self::{
    observer::{KafkaObserver, unobserved},
    secret::Secret,
    settings::{
        KafkaSettings, LoginSettings, NewTopics, PasswordMechanism, TlsSettings, TokenEndpoint,
        is_secret,
    },
};
