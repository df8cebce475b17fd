//! The pipelined client: `factlib-kafka`, for `kafka.client = "pipelined"`.
//!
//! It sends batches of many partitions in a request and several requests at a time, and keeps
//! order by itself (see the crate). librdkafka is still asked about topics: whether they are
//! there, what they take, and to create them.
//!
//! | file | role |
//! | --- | --- |
//! | `client` | the producer of a pipeline, and the thread that it runs on |
//! | `delivery` | a batch of records in flight: collects the answers, and answers once |
//! | `errors` | the crate's errors as factlib's |
//! | `reports` | what the client reports: log, status, and topics that can't be had |
//! | `settings` | `[kafka]` as the crate's settings |
//! | `topic` | one topic to send to |

mod client;
mod delivery;
mod errors;
mod reports;
mod settings;
mod topic;

pub(crate) use self::{client::PipelinedClient, topic::PipelinedTopic};
