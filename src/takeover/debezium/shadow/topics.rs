//! Reads what was sent to topics since a moment.

use std::collections::HashMap;

use factlib_kafka::client::{FetchedRecord, Isolation};
use slog::Logger;

use super::difference::SentRecord;
use crate::{
    Result,
    config::Config,
    kafka::{
        KafkaSettings,
        reader::{TopicReader, topic_names},
    },
};

/// The topics of a cluster, and how far each was read.
pub(super) struct Topics {
    settings: KafkaSettings,
    /// Topics that existed at the start.
    known: Vec<String>,
    open: HashMap<String, OpenTopic>,
    log: Logger,
}

struct OpenTopic {
    reader: TopicReader,
    /// The next offset of each partition.
    next: HashMap<i32, i64>,
}

impl Topics {
    /// Notes the present end of every topic.
    pub async fn open(config: &Config, log: &Logger) -> Result<Self> {
        let settings = config.kafka.settings();
        let known = names(&settings).await?;
        let open = HashMap::new();
        let mut topics = Topics { settings, known, open, log: log.clone() };
        for name in topics.known.clone() {
            topics.open_topic(&name, true).await?;
        }
        Ok(topics)
    }

    /// Opens a topic at its end or at its beginning; does nothing if it does not exist.
    async fn open_topic(&mut self, name: &str, at_end: bool) -> Result<()> {
        let committed = Isolation::ReadCommitted;
        let found = TopicReader::open(&self.settings, name, committed, self.log.clone()).await?;
        let Some(reader) = found else { return Ok(()) };
        let mut next = HashMap::new();
        for partition in reader.partitions() {
            let offsets = reader.offsets(*partition).await?;
            next.insert(*partition, if at_end { offsets.end } else { offsets.start });
        }
        self.open.insert(name.to_owned(), OpenTopic { reader, next });
        Ok(())
    }

    /// Returns the records of a topic that were not returned before.
    pub async fn read(&mut self, name: &str) -> Result<Vec<SentRecord>> {
        if !self.open.contains_key(name) {
            self.open_topic(name, false).await?;
        }
        let mut records = Vec::new();
        let Some(OpenTopic { reader, next }) = self.open.get_mut(name) else { return Ok(records) };
        for (partition, next) in next {
            let end = reader.offsets(*partition).await?.end;
            if end <= *next {
                continue;
            }
            reader.seek(*partition, *next);
            while let Some(record) = reader.next(end).await? {
                records.push(sent(*partition, record));
            }
            *next = end;
        }
        records.sort_by_key(|sent| (sent.partition, sent.offset));
        Ok(records)
    }

    /// The number of a topic's partitions; 1 if it does not exist.
    pub fn partitions(&self, name: &str) -> i32 {
        let count = self.open.get(name).map_or(1, |open| open.reader.partitions().len());
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// Names of all topics but these.
    pub async fn others(&self, read: &[String]) -> Result<Vec<String>> {
        let mut names = names(&self.settings).await?;
        names.retain(|name| !read.contains(name));
        Ok(names)
    }
}

/// Names of the topics that are not Kafka's own.
async fn names(settings: &KafkaSettings) -> Result<Vec<String>> {
    let mut names = topic_names(settings).await?;
    names.retain(|name| !name.starts_with("__"));
    Ok(names)
}

fn sent(partition: i32, record: FetchedRecord) -> SentRecord {
    let FetchedRecord { offset, timestamp_ms, key, value, headers, .. } = record;
    SentRecord { partition, offset, timestamp_ms, key, value, headers }
}
