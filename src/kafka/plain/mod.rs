//! The alternative client, built on the crate `kafka`, for `kafka.client = "kafka"`.
//!
//! It speaks the first version of each request, which Kafka took until 3.9. So its records are
//! *plain*: a key and a value, without headers and without a time; and it knows no producer
//! ids, so a request that is repeated can be written twice.
//!
//! | file | idea |
//! | --- | --- |
//! | `connection` | a connection of the crate, and the conversion of its errors |
//! | `delivery` | sends a part until all of it is acknowledged, on a thread of its own |
//! | `record` | pure: makes a plain record of an event, or says why that is impossible |
//! | `versions` | checks that the brokers accept these requests |
//! | `work` | pure: the unsent records of a batch, by partition and in order |

mod connection;
mod delivery;
mod record;
mod versions;
mod work;

pub(crate) use self::{
    connection::Connection,
    delivery::{Delivery, Thread},
    versions::{are_back, check},
};
use crate::{Error, ErrorKind, Result};

/// Asks what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| {
        let what = "a question to Kafka came to no end";
        Err(Error::new(ErrorKind::KafkaUnavailable, what).caused_by(error))
    })
}
