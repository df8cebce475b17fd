//! The pipelined client: `factlib-kafka`, for `kafka.client = "pipelined"`.
//!
//! It sends batches of many partitions in a request and several requests at a time, and keeps
//! order by itself (see the crate).
//!
//! | file | role |
//! | --- | --- |
//! | `client` | the producer of a pipeline |
//! | `client_thread` | the thread that a client runs on |
//! | `connections` | the connections that the pipelines of a fleet share |
//! | `delivery` | a batch of records in flight: collects the answers, and answers once |
//! | `reports` | what the client reports: log, status, and topics that can't be had |
//! | `single` | single records, each waited for |
//! | `settings` | `[kafka]` as the crate's settings |
//! | `topic` | one topic to send to |
//! | `transactional` | one session of transactions |

mod client;
mod client_thread;
mod connections;
mod delivery;
mod reports;
mod settings;
mod single;
mod topic;
mod transactional;

pub(crate) use self::{
    client::PipelinedClient,
    client_thread::ClientThread,
    connections::SharedConnections,
    delivery::AfterRefusal,
    settings::client_settings,
    single::{SentRecord, SingleTopic},
    topic::PipelinedTopic,
    transactional::{SessionFailure, TransactionalClient},
};
use super::errors;
