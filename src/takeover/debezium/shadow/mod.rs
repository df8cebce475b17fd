//! Reads the rows that Debezium reads while it runs, and compares the records that factlib makes of
//! them with those in Debezium's topics.
//!
//! It reads through a temporary slot of its own and sends nothing, so Debezium is not disturbed.
//!
//! | file | idea |
//! | --- | --- |
//! | `difference` | pure: differences between two records |
//! | `matching` | pure: finds the record of each event among those that Debezium sent |
//! | `topics` | reads what Debezium has sent since the start |

mod difference;
mod matching;
mod topics;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use slog::Logger;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::difference::{Difference, DifferenceKind, KnownDifference};
use self::{
    matching::{Expected, Matching},
    topics::Topics,
};
use crate::{Event, Result, config::Config, replay::RowRecords, routing::Decision, tail::Tail};

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
