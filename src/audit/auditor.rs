//! Reads the table, the dead letters and the topics, and has them compared.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use factlib_kafka::{
    client::{FetchedRecord, Isolation},
    partitioner,
};
use slog::Logger;

use super::{
    comparison::{Comparison, Seen, Wanted},
    digest::Digest,
    fault::{Fault, FaultKind},
};
use crate::{
    Event, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, LetterFilter, kept_text},
    kafka::reader::TopicReader,
    record::{DEBEZIUM_ID_HEADER, EVENT_ID_HEADER, event_id},
    replay::{self, Archive, REPLAY_HEADER, RowRecords, Selection},
    routing::Decision,
};

/// Headers of records that were sent again on purpose.
const RESENT: [&str; 2] = [REPLAY_HEADER, "redriven_from"];
/// Rows or records between two reports of progress.
const PROGRESS: u64 = 1_000;

/// What to audit.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AuditOptions {
    /// The table of facts: the archive, or an outbox table.
    pub table: String,
    /// Its rows.
    pub selection: Selection,
    /// Topics to read besides those that the rows go to.
    pub topics: Vec<String>,
    /// Header with the event's id, if it is neither `event_id` nor `id`.
    pub id_header: Option<String>,
    /// Kinds of faults to pass over.
    pub ignored: Vec<FaultKind>,
}

/// What was read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Records that the rows become.
    pub expected: u64,
    /// Rows that become no record: a route drops them, or no topic takes them.
    pub without_record: u64,
    /// Rows that are not valid events.
    pub invalid: u64,
    /// Expected records that are dead letters or held events instead.
    pub parked: u64,
    /// Records of each topic.
    pub topics: BTreeMap<String, u64>,
    /// Records without an event's id.
    pub without_id: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<FaultKind, u64>,
}

/// Progress of an audit, and its findings as they are made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Audit {
    /// Rows read, of so many.
    Rows(u64, u64),
    /// Records of a topic read.
    Records(String, u64),
    /// A row that is not a valid event.
    Invalid(String, crate::Error),
    /// A fault.
    Fault(Fault),
}

impl Audit {
    /// Reads everything, and tells what it finds.
    ///
    /// # Errors
    /// A server can't be reached or refuses the user; the table or a route is not as configured.
    pub async fn run(
        config: &Config,
        options: &AuditOptions,
        log: &Logger,
        tell: &mut dyn FnMut(Audit),
    ) -> Result<Totals> {
        let mut auditor = Auditor {
            config,
            options,
            log,
            tell,
            rows: RowRecords::new(config)?,
            comparison: Comparison::default(),
            readers: Vec::new(),
            totals: Totals::default(),
        };
        auditor.read_rows().await?;
        let parked = auditor.parked().await?;
        auditor.read_topics().await?;
        auditor.finish(&parked).await
    }
}

struct Auditor<'a> {
    config: &'a Config,
    options: &'a AuditOptions,
    log: &'a Logger,
    tell: &'a mut dyn FnMut(Audit),
    rows: RowRecords,
    comparison: Comparison,
    /// Of each topic of the comparison; none if it does not exist.
    readers: Vec<Option<TopicReader>>,
    totals: Totals,
}

impl Auditor<'_> {
    async fn read_rows(&mut self) -> Result<()> {
        let AuditOptions { table, selection, .. } = self.options;
        let mut archive = Archive::open(self.config, table, selection, self.log).await?;
        let all = archive.count();
        while let Some(row) = archive.next().await? {
            match &row.event {
                Ok(event) => self.expect(event).await?,
                Err(error) => {
                    self.totals.invalid += 1;
                    (self.tell)(Audit::Invalid(row.id, error.clone()));
                }
            }
            self.totals.rows += 1;
            if self.totals.rows.is_multiple_of(PROGRESS) {
                (self.tell)(Audit::Rows(self.totals.rows, all));
            }
        }
        self.totals.expected = self.comparison.records();
        Ok(())
    }

    async fn expect(&mut self, event: &Event) -> Result<()> {
        let Decision::Records(records) = self.rows.decide(event) else {
            self.totals.without_record += 1;
            return Ok(());
        };
        for (topic, outgoing) in records {
            let record = self.rows.record(&topic, &outgoing).await?;
            let partitions = self.partitions(&topic).await?;
            let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
            self.comparison.expect(
                self.totals.rows,
                &Wanted {
                    event_id: event.id(),
                    topic: &topic,
                    partition: record
                        .partition
                        .unwrap_or_else(|| partitioner::of_key(&record.key, partitions)),
                    digest: Digest::of(&record.key, record.value.as_deref(), headers),
                    aggregate: (event.aggregate_type(), event.aggregate_id()),
                },
            );
        }
        Ok(())
    }

    /// Opens a topic, unless it is open, and returns its number of partitions; 1 if there is no such
    /// topic.
    async fn partitions(&mut self, topic: &str) -> Result<i32> {
        let at = self.comparison.topic(topic);
        if at == self.readers.len() {
            let settings = self.config.kafka.settings();
            let committed = Isolation::ReadCommitted;
            let reader = TopicReader::open(&settings, topic, committed, self.log.clone()).await?;
            self.readers.push(reader);
        }
        let reader = self.readers.get(at).and_then(Option::as_ref);
        Ok(reader.map_or(1, |reader| reader.partitions().len().max(1) as i32))
    }

    /// Returns the ids of events that are dead letters, or held.
    async fn parked(&self) -> Result<HashSet<String>> {
        let mut parked = HashSet::new();
        if let Some(mut topic) = DeadLetterTopic::open(self.config, self.log).await? {
            let mut letters = topic.letters(LetterFilter::default());
            while let Some(letter) = letters.next().await? {
                parked.insert(letter.event_id().to_owned());
            }
        }
        parked.extend(HeldLines::new(self.config, self.log)?.event_ids().await?);
        Ok(parked)
    }

    async fn read_topics(&mut self) -> Result<()> {
        for topic in &self.options.topics {
            self.partitions(topic).await?;
        }
        for (at, reader) in std::mem::take(&mut self.readers).into_iter().enumerate() {
            let name = self.comparison.topics().get(at).cloned().unwrap_or_default();
            let mut read = 0;
            if let Some(mut reader) = reader {
                for partition in reader.partitions().to_vec() {
                    self.comparison.begin_partition();
                    let offsets = reader.offsets(partition).await?;
                    reader.seek(partition, offsets.start);
                    while let Some(record) = reader.next(offsets.end).await? {
                        self.see(at, partition, &record);
                        read += 1;
                        if read % PROGRESS == 0 {
                            (self.tell)(Audit::Records(name.clone(), read));
                        }
                    }
                }
            }
            self.totals.topics.insert(name, read);
        }
        Ok(())
    }

    fn see(&mut self, topic: usize, partition: i32, record: &FetchedRecord) {
        let Some(event_id) = id_of(record, self.options.id_header.as_deref()) else {
            self.totals.without_id += 1;
            return;
        };
        let is_known = self.comparison.knows(&event_id);
        if !is_known && !covers(&self.options.selection, record.timestamp_ms) {
            return;
        }
        let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        let key = record.key.as_deref().unwrap_or_default();
        let seen = Seen {
            event_id: &event_id,
            partition,
            offset: record.offset,
            digest: Digest::of(key, record.value.as_deref(), headers),
            is_resent: record.headers.iter().any(|(name, _)| RESENT.contains(&&**name)),
        };
        for fault in self.comparison.see(topic, &seen) {
            self.report(fault);
        }
    }

    async fn finish(mut self, parked: &HashSet<String>) -> Result<Totals> {
        let comparison = std::mem::take(&mut self.comparison);
        let strangers: Vec<&str> = comparison.strangers().collect();
        let rows =
            replay::ids_among(self.config, &self.options.table, &strangers, self.log).await?;
        let (faults, of_dead_letters) =
            comparison.finish(|id| is_among(parked, id), |id| rows.contains(id));
        self.totals.parked = of_dead_letters;
        faults.into_iter().for_each(|fault| self.report(fault));
        Ok(self.totals)
    }

    fn report(&mut self, fault: Fault) {
        if !self.options.ignored.contains(&fault.kind) {
            *self.totals.faults.entry(fault.kind).or_default() += 1;
            (self.tell)(Audit::Fault(fault));
        }
    }
}

/// Returns true if these ids have this one, or its beginning: a letter may have no more of it.
fn is_among(parked: &HashSet<String>, id: &str) -> bool {
    parked.contains(id) || parked.contains(&kept_text(id))
}

/// Returns the id of a record's event, from this header or the usual ones.
pub(super) fn id_of<'a>(
    record: &'a FetchedRecord,
    id_header: Option<&str>,
) -> Option<Cow<'a, str>> {
    match id_header {
        Some(name) => event_id(&record.headers, [name]),
        None => event_id(&record.headers, [EVENT_ID_HEADER, DEBEZIUM_ID_HEADER]),
    }
}

/// Returns true if every event of this time has a row in the selection.
fn covers(selection: &Selection, timestamp_ms: i64) -> bool {
    let Selection { since, until, id, aggregate_type, aggregate_id, event_type, after, limit } =
        selection;
    let ms = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let has_all = id.is_none()
        && aggregate_type.is_none()
        && aggregate_id.is_none()
        && event_type.is_none()
        && after.is_none()
        && limit.is_none();
    has_all
        && since.is_none_or(|since| timestamp_ms >= ms(since))
        && until.is_none_or(|until| timestamp_ms < ms(until))
}
