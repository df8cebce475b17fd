//! Reads a connector's offset from the topic of offsets of Kafka Connect or Debezium Server.

use factlib_kafka::client::Isolation;
use slog::Logger;

use super::{ConnectorName, ConnectorOffset};
use crate::{Result, config::Config, kafka::reader::TopicReader};

/// Reads the offset from the topic; none if it has none of this connector, or does not exist.
///
/// The topic is compacted, and the newest record of a key counts. Any partition may have it: Java's
/// partitioner chose one.
///
/// # Errors
/// The brokers can't be reached, or refuse the user.
pub async fn read_topic(
    config: &Config,
    topic: &str,
    name: &ConnectorName,
    log: &Logger,
) -> Result<Option<ConnectorOffset>> {
    // A worker with exactly.once.source.support writes offsets in transactions.
    let committed = Isolation::ReadCommitted;
    let reader = TopicReader::open(&config.kafka.settings(), topic, committed, log.clone()).await?;
    let Some(mut reader) = reader else { return Ok(None) };
    let mut newest = None;
    for partition in reader.partitions().to_vec() {
        let offsets = reader.offsets(partition).await?;
        reader.seek(partition, offsets.start);
        while let Some(record) = reader.next(offsets.end).await? {
            if record.key.as_deref().is_some_and(|key| name.is_key(key)) {
                newest = Some(record.value);
            }
        }
    }
    newest.flatten().map(|value| ConnectorOffset::parse(&value)).transpose()
}
