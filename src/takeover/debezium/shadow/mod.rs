//! Reads the rows that Debezium reads while it runs, and compares the records that factlib makes of
//! them with those in Debezium's topics.
//!
//! It reads through a temporary slot of its own and sends nothing, so Debezium is not disturbed.
//!
//! | file | idea |
//! | --- | --- |
//! | `difference` | pure: differences between two records |
//! | `topics` | reads what Debezium has sent since the start |

mod difference;
mod topics;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use slog::Logger;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::difference::{Difference, DifferenceKind, KnownDifference};
use self::{
    difference::{SentRecord, differences},
    topics::Topics,
};
use crate::{
    Event, Result, config::Config, record::Record, replay::RowRecords, routing::Decision,
    tail::Tail,
};

/// Header with the event's id.
const ID_HEADER: &str = "id";
/// Pause between two looks at the topics.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The extent of a comparison.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShadowOptions {
    /// Time for which rows are read.
    pub duration: Duration,
    /// Number of rows after which the comparison begins, if that is earlier. A row is held in
    /// memory until then.
    pub rows: u64,
    /// Time after that in which Debezium has to send the last of them.
    pub patience: Duration,
}

impl Default for ShadowOptions {
    fn default() -> Self {
        ShadowOptions {
            duration: Duration::from_secs(60),
            rows: 10_000,
            patience: Duration::from_secs(30),
        }
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShadowReport {
    /// Rows that were read.
    pub rows: u64,
    /// Records that factlib makes of them.
    pub records: u64,
    /// Records that are equal in every byte.
    pub equal: u64,
    /// All differences.
    pub differences: Vec<Difference>,
}

impl ShadowReport {
    /// True if there is no difference, or only known ones.
    pub fn is_clean(&self) -> bool {
        self.differences.iter().all(|difference| difference.known.is_some())
    }

    /// Differences by their kind and by the known difference that they are.
    pub fn grouped(&self) -> BTreeMap<(DifferenceKind, Option<KnownDifference>), Vec<&Difference>> {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for difference in &self.differences {
            groups.entry((difference.kind, difference.known)).or_default().push(difference);
        }
        groups
    }
}

/// A comparison that has begun.
pub struct Shadow {
    tail: Tail,
    records: RowRecords,
    topics: Topics,
    log: Logger,
}

/// A record that factlib makes.
struct Expected {
    event_id: String,
    topic: String,
    record: Record,
    is_found: bool,
}

impl Shadow {
    /// Begins to read rows: those that commit from now on are compared.
    ///
    /// # Errors
    /// A server can't be reached or refuses the user, or a table or route is not as configured.
    pub async fn open(config: &Config, log: &Logger) -> Result<Self> {
        // In this order: what Debezium sends of a row that is read lies behind these offsets.
        let topics = Topics::open(config, log).await?;
        let records = RowRecords::new(config)?;
        let tail = Tail::open(config, log).await?;
        Ok(Shadow { tail, records, topics, log: log.clone() })
    }

    /// Reads rows, waits until Debezium has sent them, and compares.
    ///
    /// # Errors
    /// A connection was lost.
    pub async fn run(self, options: &ShadowOptions) -> Result<ShadowReport> {
        let Shadow { mut tail, records, mut topics, log } = self;
        let mut report = ShadowReport::default();
        let mut expected = Vec::new();
        let deadline = Instant::now() + options.duration;
        while report.rows < options.rows {
            let Ok(event) = timeout_at(deadline, tail.next()).await else { break };
            report.rows += 1;
            expect(&records, event?, &mut expected, &mut report).await?;
        }
        drop(tail);
        slog::debug!(log, "the rows were read"; "rows" => report.rows);
        report.records = expected.len() as u64;
        let mut matching = Matching::new(expected);
        let deadline = Instant::now() + options.patience;
        loop {
            for topic in matching.topics() {
                for sent in topics.read(&topic).await? {
                    let partitions = topics.partitions(&topic);
                    matching.see(&topic, partitions, sent);
                }
            }
            if matching.is_complete() || Instant::now() >= deadline {
                break;
            }
            sleep(LOOK_INTERVAL).await;
        }
        if !matching.is_complete() {
            for topic in topics.others(&matching.topics()).await? {
                for sent in topics.read(&topic).await? {
                    matching.see_elsewhere(&topic, &sent);
                }
            }
        }
        matching.finish(&mut report);
        Ok(report)
    }
}

/// Makes the records of an event.
async fn expect(
    records: &RowRecords,
    event: Event,
    expected: &mut Vec<Expected>,
    report: &mut ShadowReport,
) -> Result<()> {
    let refused = |why: String| Difference {
        kind: DifferenceKind::Refused,
        known: None,
        event_id: event.id().to_owned(),
        topic: String::new(),
        detail: why,
    };
    if let Some(refusal) = event.refusal() {
        report.differences.push(refused(refusal.error.to_string()));
        return Ok(());
    }
    match records.decide(&event) {
        Decision::Records(outgoing) => {
            for (topic, outgoing) in outgoing {
                let record = records.record(&topic, &outgoing).await?;
                let event_id = event.id().to_owned();
                expected.push(Expected { event_id, topic, record, is_found: false });
            }
        }
        Decision::Filtered => {}
        Decision::Refused(error) | Decision::Stop(error) => {
            report.differences.push(refused(error.to_string()));
        }
    }
    Ok(())
}

/// Expected records, and what was found in the topics.
struct Matching {
    expected: Vec<Expected>,
    /// Indexes by topic and by the header with the id.
    by_id: HashMap<(String, Bytes), usize>,
    equal: u64,
    differences: Vec<Difference>,
    /// Offsets of the first and the last match of each partition.
    matched: HashMap<(String, i32), (i64, i64)>,
    /// Records of events that no row has.
    strangers: Vec<(String, i32, i64, String)>,
}

impl Matching {
    fn new(expected: Vec<Expected>) -> Self {
        let indexes = expected.iter().enumerate();
        let by_id = indexes.map(|(index, of)| ((of.topic.clone(), our_id(&of.record)), index));
        Matching {
            by_id: by_id.collect(),
            expected,
            equal: 0,
            differences: Vec::new(),
            matched: HashMap::new(),
            strangers: Vec::new(),
        }
    }

    fn topics(&self) -> Vec<String> {
        let mut topics: Vec<_> = self.expected.iter().map(|of| of.topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    fn is_complete(&self) -> bool {
        self.expected.iter().all(|expected| expected.is_found)
    }

    /// Compares a record of a topic with the one that is expected there.
    fn see(&mut self, topic: &str, partitions: i32, theirs: SentRecord) {
        let partition = theirs.partition;
        let id = their_id(&theirs.headers);
        let found = self.by_id.get(&(topic.to_owned(), id.clone()));
        let Some(expected) = found.and_then(|index| self.expected.get_mut(*index)) else {
            let id = String::from_utf8_lossy(&id).into_owned();
            self.strangers.push((topic.to_owned(), partition, theirs.offset, id));
            return;
        };
        let offset = theirs.offset;
        let matched = self.matched.entry((topic.to_owned(), partition)).or_insert((offset, offset));
        matched.1 = matched.1.max(offset);
        let event_id = expected.event_id.clone();
        let difference = |(kind, known, detail)| Difference {
            kind,
            known,
            event_id: event_id.clone(),
            topic: topic.to_owned(),
            detail,
        };
        if std::mem::replace(&mut expected.is_found, true) {
            let known = Some(KnownDifference::RepeatedByDebezium);
            let detail = format!("again at {partition}:{offset}");
            self.differences.push(difference((DifferenceKind::Repeated, known, detail)));
            return;
        }
        let ours = &expected.record;
        let chosen = ours
            .partition
            .unwrap_or_else(|| factlib_kafka::partitioner::of_key(&ours.key, partitions));
        let found = differences(ours, chosen, &theirs);
        self.equal += u64::from(found.is_empty());
        self.differences.extend(found.into_iter().map(difference));
    }

    /// Looks for what is missing in a topic that factlib would not send it to.
    fn see_elsewhere(&mut self, topic: &str, sent: &SentRecord) {
        let id = their_id(&sent.headers);
        let missing = self.expected.iter_mut().filter(|expected| !expected.is_found);
        for expected in missing.filter(|expected| our_id(&expected.record) == id) {
            expected.is_found = true;
            self.differences.push(Difference {
                kind: DifferenceKind::Topic,
                known: None,
                event_id: expected.event_id.clone(),
                topic: expected.topic.clone(),
                detail: format!("Debezium sent it to {topic}"),
            });
        }
    }

    fn finish(self, report: &mut ShadowReport) {
        report.equal = self.equal;
        report.differences.extend(self.differences);
        for missing in self.expected.into_iter().filter(|expected| !expected.is_found) {
            report.differences.push(Difference {
                kind: DifferenceKind::Missing,
                known: None,
                event_id: missing.event_id,
                topic: missing.topic,
                detail: "Debezium has not sent it".into(),
            });
        }
        for (topic, partition, offset, event_id) in self.strangers {
            // Others are of rows that were committed before or after those that were read.
            let place = (topic, partition);
            let matched = self.matched.get(&place);
            if matched.is_some_and(|(first, last)| (first..last).contains(&&offset)) {
                let detail = format!("no row has it; it is at {partition}:{offset}");
                let (kind, topic) = (DifferenceKind::Unexpected, place.0);
                report.differences.push(Difference { kind, known: None, event_id, topic, detail });
            }
        }
    }
}

fn our_id(record: &Record) -> Bytes {
    let header = record.headers.iter().find(|(name, _)| &**name == ID_HEADER);
    header.and_then(|(_, value)| value.clone()).unwrap_or_default()
}

fn their_id(headers: &[(String, Option<Bytes>)]) -> Bytes {
    let header = headers.iter().find(|(name, _)| name == ID_HEADER);
    header.and_then(|(_, value)| value.clone()).unwrap_or_default()
}
