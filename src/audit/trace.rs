//! Finds out what became of one event: its row, its route, its records, its dead letter.

use factlib_kafka::{client::Isolation, partitioner};
use serde::Serialize;
use slog::Logger;

use super::auditor::event_id;
use crate::{
    Event, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, Ledger, LetterFilter},
    kafka::reader::TopicReader,
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
    /// The time of its row, as PostgreSQL writes it; none if no row has this id.
    pub created_at: Option<String>,
    /// What its route says; none without a row.
    pub routing: Option<RoutedTo>,
    /// Its records, in the order of their topics.
    pub records: Vec<FoundRecord>,
    /// Its dead letters, in the order of parking.
    pub letters: Vec<FoundLetter>,
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
    /// `partition:offset` in the dead-letter topic.
    pub position: String,
    /// The error for which it was parked.
    pub error: String,
    /// The time of parking, Unix milliseconds.
    pub parked_ms: i64,
    /// True if it was sent again.
    pub is_redriven: bool,
}

impl Trace {
    /// Looks for the event. Topics of its routes are searched from the row's time on; if it is not
    /// there, from their start.
    ///
    /// # Errors
    /// A server can't be reached or refuses the user; the table or a route is not as configured.
    pub async fn find(config: &Config, options: &TraceOptions, log: &Logger) -> Result<Trace> {
        let mut trace = Trace::default();
        if let Some((created_at, event)) = row(config, options, log).await? {
            trace.created_at = Some(created_at);
            let event = event?;
            let rows = RowRecords::new(config)?;
            let since_ms = event.created_at_ns() / 1_000_000 - CLOCKS_DIFFER_MS;
            trace.routing = Some(match rows.decide(&event) {
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
                        trace.records.extend(search.run(config, options, log).await?);
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
            trace.records.extend(search.run(config, options, log).await?);
        }
        trace.letters = letters(config, &options.event_id, log).await?;
        Ok(trace)
    }
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
            if event_id(&record, options.id_header.as_deref()) == Some(&*options.event_id) {
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
    let Some(mut topic) = DeadLetterTopic::open(config, log).await? else { return Ok(Vec::new()) };
    let ledger = Ledger::open(config, log).await?;
    let mut letters = topic.letters(LetterFilter::default());
    let mut found = Vec::new();
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
