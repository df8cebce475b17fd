//! Finds out what became of one event: by its receipts if they are kept, or else by its row, its
//! route, its records and its dead letters.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use factlib_kafka::{client::Isolation, partitioner};
use serde::Serialize;
use slog::Logger;

use super::auditor::id_of;
use crate::{
    Event, Lsn, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, Ledger, Letter, LetterFilter, LetterPosition},
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
    /// Its receipts, in the order of writing. If there are any, its row and its records are not
    /// looked for.
    pub receipts: Vec<Receipt>,
    /// How far the relay is, if nothing became of the event so far.
    pub relay: Option<RelayPosition>,
    /// The time of its row, as PostgreSQL writes it; none if no row has this id.
    pub created_at: Option<String>,
    /// What its route says; none without a row.
    pub routing: Option<RoutedTo>,
    /// Its records, in the order of their topics.
    pub records: Vec<FoundRecord>,
    /// What waits for a redrive, and what was redriven: held first, then dead letters in the order
    /// of parking.
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

/// A dead letter of the event, or the event as it is or was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FoundLetter {
    /// `partition:offset` in the dead-letter topic, or `held:id` in `factlib.held_events`.
    pub position: String,
    /// The topic that it should have gone to; none if unknown. If it was held and redriven, the
    /// topic that it went to.
    pub topic: Option<String>,
    /// The error for which it was parked, or that it waits behind another one; empty if it was held
    /// and redriven.
    pub error: String,
    /// The time of parking, Unix milliseconds.
    pub parked_ms: i64,
    /// True if it was sent again.
    pub is_redriven: bool,
    /// The time at which it was sent again, Unix milliseconds.
    pub redriven_ms: Option<i64>,
}

impl FoundLetter {
    fn new(letter: &Letter, redriven_ms: Option<i64>) -> Self {
        FoundLetter {
            position: letter.position.to_string(),
            topic: letter.source_topic().map(str::to_owned),
            error: letter.error().unwrap_or("unknown").to_owned(),
            parked_ms: letter.parked_ms(),
            is_redriven: redriven_ms.is_some(),
            redriven_ms,
        }
    }

    /// True if it is or was in `factlib.held_events`, and not in the dead-letter topic.
    pub fn is_held(&self) -> bool {
        self.position.parse().is_ok_and(|position: LetterPosition| position.is_held())
    }
}

impl Trace {
    /// Looks for the event, first for its receipts. Without any, topics of its routes are searched
    /// from the row's time on; if it is not there, from their start. Receipts say nothing of held
    /// and redriven events, so these are looked for in any case.
    ///
    /// # Errors
    /// A server can't be reached or refuses the user; the table or a route is not as configured.
    pub async fn find(config: &Config, options: &TraceOptions, log: &Logger) -> Result<Trace> {
        let mut trace = Trace::default();
        if let Some(reader) = ReceiptReader::open(config, log)? {
            trace.receipt_store = Some(reader.describe().to_owned());
            trace.receipts = reader.find(&options.event_id, None).await?;
        }
        if trace.receipts.is_empty() {
            trace.scan(config, options, log).await?;
        }
        trace.letters = letters(config, &options.event_id, log).await?;
        if trace.receipts.is_empty() && trace.letters.is_empty() && !trace.is_done() {
            trace.relay = relay_position(config, log).await?;
        }
        Ok(trace)
    }

    /// True if it was delivered, also by a redrive, or a route drops it; and it is not parked or
    /// held for a topic that it was not delivered to.
    pub fn is_done(&self) -> bool {
        let filtered = |receipt: &Receipt| matches!(receipt.fate, Fate::Filtered { .. });
        let has = self.reached();
        // What was refused for an unknown topic had no other topic either.
        let lacks = |topic: Option<&str>| match topic {
            Some(topic) => !has.contains(topic),
            None => has.is_empty(),
        };
        let is_parked = self.receipts.iter().any(|receipt| match &receipt.fate {
            Fate::Parked { intended_topic, .. } => lacks(intended_topic.as_deref()),
            _ => false,
        });
        let mut waiting = self.letters.iter().filter(|letter| !letter.is_redriven);
        let is_dropped =
            self.receipts.iter().any(filtered) || self.routing == Some(RoutedTo::Dropped);
        (is_dropped || !has.is_empty())
            && !is_parked
            && !waiting.any(|letter| lacks(letter.topic.as_deref()))
    }

    /// The topics that it was delivered to, or redriven to; empty text for an unknown one.
    fn reached(&self) -> HashSet<&str> {
        let receipts = self.receipts.iter().filter_map(|receipt| match &receipt.fate {
            Fate::Delivered(record) => Some(&*record.topic),
            _ => None,
        });
        let records = self.records.iter().map(|record| &*record.topic);
        let redriven = self.letters.iter().filter(|letter| letter.is_redriven);
        let redriven = redriven.map(|letter| letter.topic.as_deref().unwrap_or_default());
        receipts.chain(records).chain(redriven).collect()
    }

    /// Looks for its row and its records.
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
        Ok(())
    }
}

/// The positions of the slot; none if there is no slot.
async fn relay_position(config: &Config, log: &Logger) -> Result<Option<RelayPosition>> {
    let (settings, slot) = (&config.postgres, config.postgres.slot.clone());
    let server = Reconnecting::new(settings.connect_info()?, settings.connect_timeout, log.clone());
    let found = Retention::read(&server, &slot, u64::MAX).await?;
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

/// What waits for a redrive or was redriven: in the table of held events, and in the topic.
async fn letters(config: &Config, event_id: &str, log: &Logger) -> Result<Vec<FoundLetter>> {
    let lines = HeldLines::new(config, log)?;
    let held = lines.of_event(event_id).await?;
    let mut found: Vec<_> = held.iter().map(|letter| FoundLetter::new(letter, None)).collect();
    let redriven = lines.redriven_of(event_id).await?.into_iter().map(|redriven| FoundLetter {
        position: redriven.position.to_string(),
        topic: Some(redriven.to),
        error: String::new(),
        parked_ms: redriven.held_ms,
        is_redriven: true,
        redriven_ms: Some(unix_ms(redriven.at)),
    });
    found.extend(redriven);
    let Some(mut topic) = DeadLetterTopic::open(config, log).await? else { return Ok(found) };
    let ledger = Ledger::open(config, log).await?;
    let mut letters = topic.letters(LetterFilter::default());
    while let Some(letter) = letters.next().await? {
        if letter.is_of(event_id) {
            found.push(FoundLetter::new(&letter, ledger.redriven_at(&letter).map(unix_ms)));
        }
    }
    Ok(found)
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipts::RecordPlace;

    fn receipt(fate: Fate) -> Receipt {
        Receipt {
            event_id: "e".into(),
            slot: "s".into(),
            lsn: Lsn::ZERO,
            at_ms: 0,
            aggregate_type: None,
            aggregate_id: None,
            fate,
        }
    }

    fn delivered(topic: &str) -> Receipt {
        receipt(Fate::Delivered(RecordPlace { topic: topic.into(), partition: 0, offset: None }))
    }

    fn parked(intended_topic: Option<&str>) -> Receipt {
        let intended_topic = intended_topic.map(str::to_owned);
        receipt(Fate::Parked { record: None, error: "no".into(), intended_topic })
    }

    fn letter(topic: Option<&str>, redriven_ms: Option<i64>) -> FoundLetter {
        FoundLetter {
            position: "held:1".into(),
            topic: topic.map(str::to_owned),
            error: String::new(),
            parked_ms: 0,
            is_redriven: redriven_ms.is_some(),
            redriven_ms,
        }
    }

    #[test]
    fn it_is_done_where_no_topic_lacks_it() {
        let (a, b) = (Some("a"), Some("b"));
        for (receipts, letters, is_done) in [
            (vec![], vec![], false),
            (vec![delivered("a")], vec![], true),
            (vec![receipt(Fate::Filtered { route: None })], vec![], true),
            (vec![delivered("a"), parked(b)], vec![], false),
            (vec![delivered("a"), parked(b)], vec![letter(b, None)], false),
            (vec![delivered("a"), parked(b)], vec![letter(b, Some(1))], true),
            (vec![delivered("a"), parked(a)], vec![letter(a, None)], true),
            (vec![parked(None)], vec![letter(None, None)], false),
            (vec![parked(None)], vec![letter(None, Some(1))], true),
            (vec![delivered("b")], vec![letter(a, None)], false),
            (vec![delivered("b")], vec![letter(a, Some(1))], true),
            (vec![], vec![letter(a, None), letter(b, Some(1))], false),
            (vec![], vec![letter(a, Some(1)), letter(b, Some(1))], true),
        ] {
            let trace = Trace { receipts, letters, ..Trace::default() };
            assert_eq!(trace.is_done(), is_done, "{trace:?}");
        }
    }
}
