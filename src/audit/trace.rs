//! Finds out what became of one event: by its receipts if they are kept, or else by its row, its
//! route, its records and its dead letters.

use factlib_kafka::{client::Isolation, partitioner};
use serde::Serialize;
use slog::Logger;

use super::auditor::id_of;
use crate::{
    Event, Lsn, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, Ledger, LetterFilter},
    kafka::reader::TopicReader,
    postgres::{Reconnecting, retention::Retention},
    receipts::{Fate, Receipt, ReceiptReader},
    replay::{Archive, RowRecords, Selection},
    routing::Decision,
};

/// Age by which a record may be older than its row: clocks differ.
const CLOCKS_DIFFER_MS: i64 = 3_600_000;

/// Where to look for an event.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TraceOptions {
    /// The event's id.
    pub event_id: String,
    /// Table of facts with the event's row: the archive, or an outbox table. None if there is none.
    pub table: Option<String>,
    /// Topics to search besides those that the row goes to, all of their partitions.
    pub topics: Vec<String>,
    /// Header with the event's id, if it is neither `event_id` nor `id`.
    pub id_header: Option<String>,
}

/// What became of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trace {
    /// The store of receipts that was searched; none if the configuration keeps none.
    pub receipt_store: Option<String>,
    /// Its receipts, in the order of writing. If there are any, only the dead letters of a parked
    /// event are looked for besides.
    pub receipts: Vec<Receipt>,
    /// How far the relay is, if nothing became of the event so far.
    pub relay: Option<RelayPosition>,
    /// The time of its row, as PostgreSQL writes it; none if no row has this id.
    pub created_at: Option<String>,
    /// What its route says; none without a row.
    pub routing: Option<RoutedTo>,
    /// Its records, in the order of their topics.
    pub records: Vec<FoundRecord>,
    /// Its dead letters, in the order of parking.
    pub letters: Vec<FoundLetter>,
}

/// How far a relay has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RelayPosition {
    /// Its slot.
    pub slot: String,
    /// The position that it has confirmed.
    pub confirmed: Lsn,
    /// The end of the server's WAL.
    pub wal_end: Lsn,
}

/// What the routes say about an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RoutedTo {
    /// It goes to these topics.
    Topics(Vec<String>),
    /// A route drops it.
    Dropped,
    /// It is refused, for this reason.
    Refused(String),
}

/// A record of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FoundRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's time, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// A dead letter of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FoundLetter {
    /// `partition:offset` in the dead-letter topic, or `held:id` in `factlib.held_events`.
    pub position: String,
    /// The error for which it was parked.
    pub error: String,
    /// The time of parking, Unix milliseconds.
    pub parked_ms: i64,
    /// True if it was sent again.
    pub is_redriven: bool,
}

impl Trace {
    /// Looks for the event, first for its receipts. Without any, topics of its routes are searched
    /// from the row's time on; if it is not there, from their start.
    ///
    /// # Errors
    /// A server can't be reached or refuses the user; the table or a route is not as configured.
    pub async fn find(config: &Config, options: &TraceOptions, log: &Logger) -> Result<Trace> {
        let mut trace = Trace::default();
        if let Some(reader) = ReceiptReader::open(config, log)? {
            trace.receipt_store = Some(reader.describe().to_owned());
            trace.receipts = reader.find(&options.event_id, None).await?;
            if !trace.receipts.is_empty() {
                if trace.is_parked() {
                    trace.letters = letters(config, &options.event_id, log).await?;
                }
                return Ok(trace);
            }
        }
        trace.scan(config, options, log).await?;
        if trace.records.is_empty() && trace.letters.is_empty() && !trace.is_done() {
            trace.relay = relay_position(config, log).await?;
        }
        Ok(trace)
    }

    /// True if it was delivered to a topic, or a route drops it.
    pub fn is_done(&self) -> bool {
        let ended = |fate: &Fate| matches!(fate, Fate::Delivered(_) | Fate::Filtered { .. });
        self.receipts.iter().any(|receipt| ended(&receipt.fate))
            || !self.records.is_empty()
            || self.routing == Some(RoutedTo::Dropped)
    }

    fn is_parked(&self) -> bool {
        self.receipts.iter().any(|receipt| matches!(receipt.fate, Fate::Parked { .. }))
    }

    /// Looks for its row, its records and its dead letters.
    async fn scan(&mut self, config: &Config, options: &TraceOptions, log: &Logger) -> Result<()> {
        if let Some((created_at, event)) = row(config, options, log).await? {
            self.created_at = Some(created_at);
            let event = event?;
            let rows = RowRecords::new(config)?;
            let since_ms = event.created_at_ns() / 1_000_000 - CLOCKS_DIFFER_MS;
            self.routing = Some(match rows.decide(&event) {
                Decision::Records(records) => {
                    let mut topics = Vec::new();
                    for (topic, outgoing) in records {
                        let record = rows.record(&topic, &outgoing).await?;
                        let search = Search {
                            topic: &topic,
                            place: record
                                .partition
                                .map_or(Place::Key(&record.key), Place::Partition),
                            since_ms: Some(since_ms),
                        };
                        self.records.extend(search.run(config, options, log).await?);
                        topics.push(topic);
                    }
                    RoutedTo::Topics(topics)
                }
                Decision::Filtered => RoutedTo::Dropped,
                Decision::Refused(error) | Decision::Stop(error) => {
                    RoutedTo::Refused(error.to_string())
                }
            });
        }
        for topic in &options.topics {
            let search = Search { topic, place: Place::Anywhere, since_ms: None };
            self.records.extend(search.run(config, options, log).await?);
        }
        self.letters = letters(config, &options.event_id, log).await?;
        Ok(())
    }
}

/// The positions of the slot; none if there is no slot.
async fn relay_position(config: &Config, log: &Logger) -> Result<Option<RelayPosition>> {
    let (settings, slot) = (&config.postgres, config.postgres.slot.clone());
    let server = Reconnecting::new(settings.connect_info()?, settings.connect_timeout, log.clone());
    let found = Retention::read(&server, &slot).await?;
    Ok(found.map(|Retention { confirmed, wal_end, .. }| RelayPosition { slot, confirmed, wal_end }))
}

async fn row(
    config: &Config,
    options: &TraceOptions,
    log: &Logger,
) -> Result<Option<(String, Result<Event>)>> {
    let Some(table) = &options.table else { return Ok(None) };
    let selection = Selection { id: Some(options.event_id.clone()), ..Selection::default() };
    let mut archive = Archive::open(config, table, &selection, log).await?;
    Ok(archive.next().await?.map(|row| (row.created_at, row.event)))
}

/// The partition of a record.
enum Place<'a> {
    Key(&'a [u8]),
    Partition(i32),
    Anywhere,
}

/// A look for an event in one topic.
struct Search<'a> {
    topic: &'a str,
    place: Place<'a>,
    since_ms: Option<i64>,
}

impl Search<'_> {
    async fn run(
        &self,
        config: &Config,
        options: &TraceOptions,
        log: &Logger,
    ) -> Result<Vec<FoundRecord>> {
        let settings = config.kafka.settings();
        let committed = Isolation::ReadCommitted;
        let reader = TopicReader::open(&settings, self.topic, committed, log.clone()).await?;
        let Some(mut reader) = reader else { return Ok(Vec::new()) };
        let all = reader.partitions().to_vec();
        let expected = match self.place {
            Place::Key(key) => vec![partitioner::of_key(key, all.len().max(1) as i32)],
            Place::Partition(partition) => vec![partition],
            Place::Anywhere => all.clone(),
        };
        let mut found = Vec::new();
        for partition in expected {
            found.extend(self.of_partition(&mut reader, partition, self.since_ms, options).await?);
        }
        // Clocks may be wrong, and partitions may have been added since.
        if found.is_empty() && self.since_ms.is_some() {
            for partition in all {
                found.extend(self.of_partition(&mut reader, partition, None, options).await?);
            }
        }
        Ok(found)
    }

    async fn of_partition(
        &self,
        reader: &mut TopicReader,
        partition: i32,
        since_ms: Option<i64>,
        options: &TraceOptions,
    ) -> Result<Vec<FoundRecord>> {
        let offsets = reader.offsets(partition).await?;
        let begin = match since_ms {
            None => Some(offsets.start),
            Some(since_ms) => reader.offset_at(partition, since_ms).await?,
        };
        let mut found = Vec::new();
        let Some(begin) = begin else { return Ok(found) };
        reader.seek(partition, begin);
        while let Some(record) = reader.next(offsets.end).await? {
            if id_of(&record, options.id_header.as_deref()).as_deref() == Some(&*options.event_id) {
                found.push(FoundRecord {
                    topic: self.topic.to_owned(),
                    partition,
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                });
            }
        }
        Ok(found)
    }
}

async fn letters(config: &Config, event_id: &str, log: &Logger) -> Result<Vec<FoundLetter>> {
    let held = HeldLines::new(config, log)?.of_event(event_id).await?;
    let held = held.into_iter().map(|letter| FoundLetter {
        position: letter.position.to_string(),
        error: letter.error().unwrap_or("unknown").to_owned(),
        parked_ms: letter.parked_ms(),
        is_redriven: false,
    });
    let mut found: Vec<_> = held.collect();
    let Some(mut topic) = DeadLetterTopic::open(config, log).await? else { return Ok(found) };
    let ledger = Ledger::open(config, log).await?;
    let mut letters = topic.letters(LetterFilter::default());
    while let Some(letter) = letters.next().await? {
        if letter.event_id() == event_id {
            found.push(FoundLetter {
                position: letter.position.to_string(),
                error: letter.error().unwrap_or("unknown").to_owned(),
                parked_ms: letter.parked_ms(),
                is_redriven: ledger.redriven_at(&letter).is_some(),
            });
        }
    }
    Ok(found)
}
