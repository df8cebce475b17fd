//! Rows of an outbox table under load: sound ones in sequence, and poisoned ones between them.
//!
//! A sound row says in its payload which one of its aggregate it is. A poisoned row belongs to
//! the same aggregates and takes no number: what remains without it is a gapless sequence.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use factlib::{proto::OutboxEvent, testing::ConsumedRecord};
use prost::Message;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinHandle, time::sleep};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::support::{Bed, Report};

pub const TABLE: &str = "\
CREATE TABLE outbox_events (
    id text PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload bytea NOT NULL, metadata jsonb NOT NULL)";

/// The same, in partitions between which a row moves when it is marked as processed.
pub const PARTITIONED_TABLE: &str = "\
CREATE TABLE outbox_events (
    id text NOT NULL, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload bytea NOT NULL, metadata jsonb NOT NULL,
    processed boolean NOT NULL DEFAULT false, PRIMARY KEY (id, processed)
) PARTITION BY LIST (processed);
CREATE TABLE outbox_new PARTITION OF outbox_events FOR VALUES IN (false);
CREATE TABLE outbox_processed PARTITION OF outbox_events FOR VALUES IN (true)";

/// The time of the record is a minute ago, or further on: a topic can take it for too old, while
/// the end of a transaction is of this moment.
const INSERT: &str = "\
INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, metadata)
VALUES ($1, $2, $3, 'changed', $4, jsonb_build_object('factlib.timestamp_ms',
        ((extract(epoch FROM now()) - 60 + $5::float8) * 1000)::bigint::text))";

/// Aggregates of the load.
const AGGREGATES: usize = 40;
/// One row in so many is poisoned, of each kind.
const ONE_IN: u64 = 1_000;
/// Further ahead than a topic takes.
const AHEAD_S: f64 = 3.0 * 3_600.0;
/// The aggregate type of all sound rows.
pub const KIND: &str = "thing";

/// A row that can't become a record of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Poison {
    /// Its time is further ahead than a topic takes.
    Future,
    /// Its aggregate type makes no legal topic.
    IllegalTopic,
    /// Its aggregate type makes a topic that Kafka takes for another one that is there.
    CollidingTopic,
    /// It is larger than its topic takes.
    TooLarge,
    /// Its aggregate type makes the name of the dead-letter topic.
    ReservedTopic,
}

impl Poison {
    pub const ALL: [Poison; 5] = [
        Poison::Future,
        Poison::IllegalTopic,
        Poison::CollidingTopic,
        Poison::TooLarge,
        Poison::ReservedTopic,
    ];

    fn aggregate_type(self) -> &'static str {
        match self {
            Poison::Future | Poison::TooLarge => KIND,
            Poison::IllegalTopic => "no topic",
            Poison::CollidingTopic => "order_item",
            Poison::ReservedTopic => "dead-letter",
        }
    }
}

/// Rows that were committed.
#[derive(Debug, Default)]
pub struct Rows {
    /// How many sound rows each aggregate has.
    sound: BTreeMap<String, u64>,
    /// Aggregate and number of each sound row, by its id.
    by_id: HashMap<String, (String, u64)>,
    /// Ids of poisoned rows.
    poisoned: HashMap<String, Poison>,
}

impl Rows {
    pub fn sound(&self) -> usize {
        self.sound.values().sum::<u64>() as usize
    }

    pub fn poisoned(&self) -> &HashMap<String, Poison> {
        &self.poisoned
    }

    /// Holds the records of the sound rows' topic, each partition in its order, against what
    /// was committed.
    pub fn check(&self, records: &[ConsumedRecord]) -> Report {
        self.check_without(records, &[])
    }

    /// Like [`check`](Self::check), where sound rows may also be parked, once: these letters.
    pub fn check_without(&self, records: &[ConsumedRecord], letters: &[ConsumedRecord]) -> Report {
        // A letter whose event was too large has no value, but always the id.
        let ids = letters.iter().filter_map(|letter| letter.header("event_id"));
        let parked: HashSet<_> =
            ids.filter_map(|id| self.by_id.get(&*String::from_utf8_lossy(id)).cloned()).collect();
        let mut report = Report { emitted: self.sound(), ..Report::default() };
        let mut next: HashMap<String, u64> = HashMap::new();
        let mut missing = HashSet::new();
        for record in records {
            let (key, number) = (key(record), number(record));
            let known =
                number.filter(|number| self.sound.get(&key).is_some_and(|all| number < all));
            let Some(number) = known else {
                report.phantom += 1;
                report.examples.push(format!("phantom: {key:?} at {}", record.offset));
                continue;
            };
            let row = (key, number);
            if parked.contains(&row) {
                report.duplicates += 1;
                report.examples.push(format!("{row:?} is parked, and in the topic"));
                continue;
            }
            let due = next.entry(row.0.clone()).or_default();
            if number >= *due {
                missing.extend((*due..number).map(|number| (row.0.clone(), number)));
                *due = number + 1;
            } else if missing.remove(&row) {
                report.order_violations += 1;
                report.examples.push(format!("order: {row:?} came late"));
            } else {
                report.duplicates += 1;
            }
        }
        for (key, all) in &self.sound {
            let came = next.get(key).copied().unwrap_or_default();
            missing.extend((came..*all).map(|number| (key.clone(), number)));
        }
        missing.retain(|row| !parked.contains(row));
        report.lost = missing.len();
        report.examples.extend(missing.iter().map(|row| format!("lost: {row:?}")));
        report.delivered = report.emitted - report.lost;
        report
    }

    fn merge(&mut self, other: Rows) {
        for (key, count) in other.sound {
            *self.sound.entry(key).or_default() += count;
        }
        self.by_id.extend(other.by_id);
        self.poisoned.extend(other.poisoned);
    }
}

/// Writers of rows in the background.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Rows>>,
}

impl Writers {
    /// Starts `writers` of them, which insert `rate` rows a second together; `kinds` are the
    /// poisons among these.
    pub async fn start(
        bed: &Bed<'_>,
        seed: u64,
        writers: usize,
        rate: usize,
        kinds: &'static [Poison],
    ) -> Self {
        Writers::start_with(bed, seed, writers, rate, kinds, Arc::default()).await
    }

    /// Like [`start`](Self::start); while `ahead` is set, the time of one sound row in a hundred is
    /// further ahead than a topic takes.
    pub async fn start_with(
        bed: &Bed<'_>,
        seed: u64,
        writers: usize,
        rate: usize,
        kinds: &'static [Poison],
        ahead: Arc<AtomicBool>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for n in 0..writers {
            let writer = Writer {
                name: format!("w{n}"),
                random: StdRng::seed_from_u64(seed ^ (n as u64) << 32),
                pause: Duration::from_secs_f64(writers as f64 / rate as f64),
                kinds,
                ahead: Arc::clone(&ahead),
                stop: Arc::clone(&stop),
                rows: Rows::default(),
            };
            tasks.push(tokio::spawn(writer.run(bed.client().await)));
        }
        Writers { stop, tasks }
    }

    /// Ends them after the transaction that each is in.
    pub async fn stop(self) -> Rows {
        self.stop.store(true, Relaxed);
        let mut rows = Rows::default();
        for task in self.tasks {
            rows.merge(task.await.expect("a writer does not panic"));
        }
        rows
    }
}

struct Writer {
    name: String,
    random: StdRng,
    /// The time that one row has.
    pause: Duration,
    kinds: &'static [Poison],
    ahead: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    rows: Rows,
}

impl Writer {
    async fn run(mut self, mut client: Client) -> Rows {
        let mut due = Instant::now();
        while !self.stop.load(Relaxed) {
            let size = self.random.random_range(1..=10);
            self.transaction(&mut client, size).await;
            let now = Instant::now();
            due = (due + self.pause * size).max(now - Duration::from_secs(1));
            sleep(due.saturating_duration_since(now)).await;
        }
        self.rows
    }

    async fn transaction(&mut self, client: &mut Client, size: u32) {
        let transaction = client.transaction().await.expect("a transaction begins");
        for _ in 0..size {
            let aggregate = format!("{}-{}", self.name, self.random.random_range(0..AGGREGATES));
            for kind in self.kinds {
                if self.random.random_range(0..ONE_IN) == 0 {
                    self.poisoned(&transaction, *kind, &aggregate).await;
                }
            }
            let number = self.rows.sound.entry(aggregate.clone()).or_default();
            let (id, payload) = (Uuid::now_v7().to_string(), number.to_string().into_bytes());
            self.rows.by_id.insert(id.clone(), (aggregate.clone(), *number));
            *number += 1;
            let is_ahead = self.ahead.load(Relaxed) && self.random.random_range(0..100) == 0;
            let ahead_s = if is_ahead { AHEAD_S } else { 0.0 };
            insert(&transaction, &id, KIND, &aggregate, &payload, ahead_s).await;
        }
        transaction.commit().await.expect("a commit");
    }

    async fn poisoned(&mut self, transaction: &Transaction<'_>, kind: Poison, aggregate: &str) {
        let id = Uuid::now_v7().to_string();
        let mut payload = b"poisoned".to_vec();
        if kind == Poison::TooLarge {
            // Nothing that compression makes small.
            payload.resize(1_500_000, 0);
            self.random.fill(payload.as_mut_slice());
        }
        let ahead_s = if kind == Poison::Future { AHEAD_S } else { 0.0 };
        insert(transaction, &id, kind.aggregate_type(), aggregate, &payload, ahead_s).await;
        self.rows.poisoned.insert(id, kind);
    }
}

fn key(record: &ConsumedRecord) -> String {
    String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned()
}

/// The number in the payload of a sound row.
fn number(record: &ConsumedRecord) -> Option<u64> {
    let event = OutboxEvent::decode(record.value.clone()?).ok()?;
    std::str::from_utf8(&event.payload).ok()?.parse().ok()
}

async fn insert(
    transaction: &Transaction<'_>,
    id: &str,
    kind: &str,
    aggregate: &str,
    payload: &[u8],
    ahead_s: f64,
) {
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&id, &kind, &aggregate, &payload, &ahead_s];
    transaction.execute(INSERT, &row).await.expect("a row");
}
