//! Finds the receipts of one event.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use factlib_kafka::client::Isolation;
use slog::Logger;
use tokio::time::sleep;

use super::{receipt::Receipt, table::ReceiptTable, wire::Wanted};
use crate::{
    Error, ErrorKind, Result,
    config::{Config, ReceiptStore},
    kafka::reader::TopicReader,
};

/// Time by which a receipt may seem to be older than its event: clocks differ.
const CLOCKS_DIFFER_MS: i64 = 600_000;
/// Time behind a receipt for which the topic is searched for more of the same event, such as those
/// of its other topics, and of a record that was sent again after a crash.
const MORE_FOR_MS: i64 = 60_000;
/// Pause between two looks for a receipt that is awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Finds receipts in the store that the configuration names.
pub struct ReceiptReader {
    store: Store,
    /// The store, for people.
    name: String,
}

enum Store {
    Topic { config: Arc<Config>, topic: String, log: Logger },
    Table(Box<ReceiptTable>),
}

impl ReceiptReader {
    /// Opens the store; none if no receipts are kept.
    ///
    /// # Errors
    /// The connection string is not valid.
    pub fn open(config: &Config, log: &Logger) -> Result<Option<Self>> {
        let (name, store) = match config.receipts.store {
            ReceiptStore::Off => return Ok(None),
            ReceiptStore::Topic => {
                let (config, topic) = (Arc::new(config.clone()), config.receipt_topic());
                (format!("topic {topic}"), Store::Topic { config, topic, log: log.clone() })
            }
            ReceiptStore::Table => {
                let settings = &config.postgres;
                let (info, timeout) = (settings.connect_info()?, settings.connect_timeout);
                let slot = settings.slot.clone();
                let table = ReceiptTable::new(slot, false, info, timeout, log.clone());
                (format!("table {}", super::TABLE), Store::Table(Box::new(table)))
            }
        };
        Ok(Some(ReceiptReader { store, name }))
    }

    /// Names the store: `topic …` or `table …`.
    pub fn describe(&self) -> &str {
        &self.name
    }

    /// Finds the receipts of an event, in the order in which they were written. A topic is searched
    /// from `since_ms` on (Unix milliseconds), or from the time in an id that is a UUID with a
    /// time, or else from its start; and until a minute behind the first receipt.
    ///
    /// # Errors
    /// The server can't be reached or refuses the user.
    pub async fn find(&self, event_id: &str, since_ms: Option<i64>) -> Result<Vec<Receipt>> {
        match &self.store {
            Store::Table(table) => table.find(event_id).await,
            Store::Topic { .. } => {
                let mut search = self.search(event_id, since_ms).await?;
                match &mut search {
                    Some(search) => search.go_on().await,
                    None => Ok(Vec::new()),
                }
            }
        }
    }

    /// Waits until an event has a receipt, for example in a test of the service that emitted it.
    /// Returns the receipts that there are then.
    ///
    /// # Errors
    /// There is none within `limit`, or the server can't be reached or refuses the user.
    pub async fn wait(&self, event_id: &str, limit: Duration) -> Result<Vec<Receipt>> {
        let began = Instant::now();
        let mut search = None;
        loop {
            let found = match &self.store {
                Store::Table(table) => table.find(event_id).await?,
                Store::Topic { .. } => {
                    if search.is_none() {
                        search = self.search(event_id, None).await?;
                    }
                    match &mut search {
                        Some(search) => search.go_on().await?,
                        // The relay creates the topic when it starts.
                        None => Vec::new(),
                    }
                }
            };
            if !found.is_empty() {
                return Ok(found);
            }
            if began.elapsed() >= limit {
                let what =
                    format!("event {event_id} has no receipt in {} after {limit:?}", self.name);
                let remedy = "factlib status says how far the relay is, and factlib trace what \
                              became of the event";
                return Err(Error::new(ErrorKind::DrainTimeout, what).remedy(remedy));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Begins a search of the topic; none if there is no topic.
    async fn search(&self, event_id: &str, since_ms: Option<i64>) -> Result<Option<Search>> {
        let Store::Topic { config, topic, log } = &self.store else { return Ok(None) };
        let (settings, committed) = (config.kafka.settings(), Isolation::ReadCommitted);
        let reader = TopicReader::open(&settings, topic, committed, log.clone()).await?;
        let Some(reader) = reader else { return Ok(None) };
        let since_ms = since_ms.or_else(|| Wanted::new(event_id).since_ms());
        let mut next = BTreeMap::new();
        for partition in reader.partitions().to_vec() {
            let offsets = reader.offsets(partition).await?;
            let begin = match since_ms {
                None => Some(offsets.start),
                Some(since_ms) => reader.offset_at(partition, since_ms - CLOCKS_DIFFER_MS).await?,
            };
            next.insert(partition, begin.unwrap_or(offsets.end));
        }
        Ok(Some(Search { event_id: event_id.to_owned(), reader, next }))
    }
}

/// A search of the topic.
struct Search {
    event_id: String,
    reader: TopicReader,
    /// Next offset by partition.
    next: BTreeMap<i32, i64>,
}

impl Search {
    /// Searches what was written since the last time.
    async fn go_on(&mut self) -> Result<Vec<Receipt>> {
        let Search { event_id, reader, next } = self;
        let (wanted, mut found) = (Wanted::new(event_id), Vec::new());
        for (partition, next) in next {
            let end = reader.offsets(*partition).await?.end;
            if *next >= end {
                continue;
            }
            reader.seek(*partition, *next);
            *next = end;
            while let Some(record) = reader.next(end).await? {
                if let Some(value) = &record.value {
                    wanted.find(value, &mut found)?;
                }
                let first: Option<&Receipt> = found.first();
                if first.is_some_and(|first| record.timestamp_ms > first.at_ms + MORE_FOR_MS) {
                    break;
                }
            }
        }
        found.sort_by_key(|receipt| receipt.at_ms);
        Ok(found)
    }
}
