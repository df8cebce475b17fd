//! Topics of a Kafka: creates, lists and reads them.
//!
//! Reading commits no offsets and joins no group, so it disturbs no other consumer.

mod create;
#[cfg(feature = "librdkafka")]
mod librdkafka;
#[cfg(not(feature = "librdkafka"))]
mod read;
mod record;

use std::{error::Error as StdError, time::Duration};

use factlib_kafka::{Client, Settings};

pub(crate) use self::create::await_broker;
#[cfg(feature = "librdkafka")]
pub use self::librdkafka::{each_record, wait_for_count};
#[cfg(not(feature = "librdkafka"))]
pub use self::read::{each_record, wait_for_count};
pub use self::{
    create::{create_topic, topic_names},
    record::ConsumedRecord,
};
use crate::{Error, ErrorKind, Result};

/// Time limit for one answer of a running server.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Interval of polling metadata: no event signals a change, and a request is cheap.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Reads the committed records of a topic from its start to its present end, in order within each
/// partition.
pub async fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<ConsumedRecord>> {
    let mut records = Vec::new();
    each_record(bootstrap, topic, |record| records.push(record)).await?;
    Ok(records)
}

/// Returns a client whose requests end within this time.
fn client(bootstrap: &str, limit: Duration) -> Client {
    let mut settings = Settings::new(bootstrap.split(',').map(str::to_owned).collect());
    settings.client_id = "factlib-testing".into();
    (settings.connect_timeout, settings.request_timeout) = (limit, limit);
    // The servers are local, and a test waits for one that starts.
    settings.backoff = PROBE_INTERVAL;
    Client::new(settings)
}

fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, what)
}

fn late(what: String, limit: Duration) -> Error {
    unavailable(format!("{what} after {limit:?}"))
}

fn unreadable(topic: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    unavailable(format!("cannot read topic {topic}")).caused_by(cause)
}
