//! Finds which events topics have, by the ids in the headers of their records.
//!
//! A topic is read from the earliest time at which a record of a wanted event can have been written:
//! the time of the commit or of the row, less the tolerated difference of the clocks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use factlib_kafka::client::Isolation;
use slog::Logger;
use tokio::time::{Instant, sleep};

use super::{EventId, HandoverOptions, HandoverProgress, HandoverReport, PROGRESS};
use crate::{Error, ErrorKind, Event, Result, config::Config, kafka::reader::TopicReader};

/// Pause after which topics are looked at again: requests of a relay that was just killed may still
/// wait in a broker.
const SETTLE_PAUSE: Duration = Duration::from_millis(300);
/// Looks at the topics in which more of the events come, before another relay is taken to be at work.
const SETTLE_LOOKS: u32 = 10;
/// Longest time for a transaction to end, the default `transaction.timeout.ms` of Kafka's producers.
const UNDECIDED_LIMIT: Duration = Duration::from_secs(60);
/// Pause between checks whether a transaction in a topic has ended.
const UNDECIDED_PAUSE: Duration = Duration::from_millis(200);

/// Ids of events, by topic.
#[derive(Debug, Default)]
pub(super) struct EventIds {
    by_topic: BTreeMap<String, HashSet<EventId>>,
    count: usize,
}

impl EventIds {
    pub fn insert(&mut self, topic: &str, id: EventId) {
        if !self.by_topic.contains_key(topic) {
            self.by_topic.insert(topic.to_owned(), HashSet::new());
        }
        if self.by_topic.get_mut(topic).is_some_and(|ids| ids.insert(id)) {
            self.count += 1;
        }
    }

    /// Removes an id; returns false if it was not there.
    pub fn remove(&mut self, topic: &str, id: &EventId) -> bool {
        let removed = self.by_topic.get_mut(topic).is_some_and(|ids| ids.remove(id));
        self.count -= usize::from(removed);
        removed
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Events to look for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    ids: EventIds,
    events: usize,
    /// The earliest time that a record of theirs can have by its own clock, Unix milliseconds.
    since_ms: Option<i64>,
}

impl Wanted {
    /// Adds the records of an event in these topics.
    pub fn add<'t>(&mut self, event: &Event, topics: impl Iterator<Item = &'t str>) {
        self.events += 1;
        let committed =
            event.transaction().map(|transaction| transaction.commit_time_ns / 1_000_000);
        let times = [committed, event.record_time_ms()];
        self.since_ms = times.into_iter().chain([self.since_ms]).flatten().min();
        for topic in topics {
            self.ids.insert(topic, EventId::of_event(event));
        }
    }

    pub fn len(&self) -> usize {
        self.events
    }
}

/// The events that topics have.
pub(super) struct DeliveredEvents<'a> {
    config: &'a Config,
    options: &'a HandoverOptions,
    log: &'a Logger,
    found: EventIds,
    by_topic: BTreeMap<String, u64>,
    read: u64,
    /// A record without an id, as `topic partition:offset`.
    without_id: Option<String>,
    with_id: u64,
}

impl<'a> DeliveredEvents<'a> {
    pub fn new(config: &'a Config, options: &'a HandoverOptions, log: &'a Logger) -> Self {
        DeliveredEvents {
            config,
            options,
            log,
            found: EventIds::default(),
            by_topic: BTreeMap::new(),
            read: 0,
            without_id: None,
            with_id: 0,
        }
    }

    /// Looks for these events in their topics.
    ///
    /// # Errors
    /// The brokers can't be reached or refuse the user; another relay sends the events right now.
    pub async fn look_up(
        &mut self,
        mut wanted: Wanted,
        tell: &mut dyn FnMut(HandoverProgress),
    ) -> Result<()> {
        let Some(since_ms) = wanted.since_ms else { return Ok(()) };
        let since_ms = since_ms - self.options.clocks_differ.as_millis() as i64;
        // The offset up to which each partition is read.
        let mut read_to = HashMap::new();
        for look in 0..=SETTLE_LOOKS {
            let mut more = false;
            let topics: Vec<String> = wanted.ids.by_topic.keys().cloned().collect();
            for topic in topics {
                more |= self.look_in(&topic, since_ms, &mut wanted.ids, &mut read_to, tell).await?;
            }
            if look > 0 && !more {
                return Ok(());
            }
            sleep(SETTLE_PAUSE).await;
        }
        let what = "events that wait in the slot go on coming into the topics";
        Err(Error::new(ErrorKind::SlotInUse, what)
            .remedy("does another relay send them, from another slot? stop it first"))
    }

    /// Reads what is new in a topic; returns true if some of the wanted were there.
    async fn look_in(
        &mut self,
        topic: &str,
        since_ms: i64,
        wanted: &mut EventIds,
        read_to: &mut HashMap<(String, i32), i64>,
        tell: &mut dyn FnMut(HandoverProgress),
    ) -> Result<bool> {
        let settings = self.config.kafka.settings();
        let open = |isolation| TopicReader::open(&settings, topic, isolation, self.log.clone());
        let Some(mut reader) = open(Isolation::ReadCommitted).await? else { return Ok(false) };
        let Some(written) = open(Isolation::ReadUncommitted).await? else { return Ok(false) };
        let mut more = false;
        for partition in reader.partitions().to_vec() {
            let end = written.offsets(partition).await?.end;
            self.wait_until_decided(&reader, topic, partition, end).await?;
            let place = (topic.to_owned(), partition);
            let begin = match read_to.get(&place) {
                Some(begin) => Some(*begin),
                None => reader.offset_at(partition, since_ms).await?,
            };
            read_to.insert(place, end);
            let Some(begin) = begin.filter(|begin| *begin < end) else { continue };
            reader.seek(partition, begin);
            while let Some(record) = reader.next(end).await? {
                self.read += 1;
                if self.read.is_multiple_of(PROGRESS) {
                    tell(HandoverProgress::Records(self.read));
                }
                let Some(id) =
                    EventId::of_headers(&record.headers, self.options.id_header.as_deref())
                else {
                    let place = || format!("{topic} {partition}:{}", record.offset);
                    self.without_id.get_or_insert_with(place);
                    continue;
                };
                self.with_id += 1;
                if wanted.remove(topic, &id) {
                    more = true;
                    *self.by_topic.entry(topic.to_owned()).or_default() += 1;
                    self.found.insert(topic, id);
                }
            }
        }
        Ok(more)
    }

    /// Waits until every transaction before `end` has been committed or aborted: records behind an open
    /// one can't be read.
    async fn wait_until_decided(
        &self,
        reader: &TopicReader,
        topic: &str,
        partition: i32,
        end: i64,
    ) -> Result<()> {
        let began = Instant::now();
        while reader.offsets(partition).await?.end < end {
            if began.elapsed() > UNDECIDED_LIMIT {
                let what = format!("a transaction stays open in topic {topic}");
                return Err(Error::new(ErrorKind::KafkaUnavailable, what)
                    .remedy("Kafka ends it after the transaction.timeout.ms of its producer"));
            }
            sleep(UNDECIDED_PAUSE).await;
        }
        Ok(())
    }

    /// Returns the events that were found, and reports their number.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no record has an id.
    pub fn finish(self, report: &mut HandoverReport) -> Result<EventIds> {
        if self.with_id == 0
            && let Some(place) = self.without_id
        {
            let header = self.options.id_header.as_deref().unwrap_or("id");
            let what = format!(
                "no record that was read has an event's id in the header {header}, as the one at \
                 {place}: it can't be told which events the topics have"
            );
            return Err(
                Error::new(ErrorKind::Config, what).remedy("name the header with --id-header")
            );
        }
        report.delivered = self.found.count as u64;
        report.topics = self.by_topic;
        Ok(self.found)
    }
}
