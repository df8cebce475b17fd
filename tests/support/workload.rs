//! Facts to emit: seeded, so that a run can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

use factlib::{
    emit::{Emitter, Fact},
    proto::OutboxEvent,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use super::History;

/// What is emitted; the defaults are a small mixed load.
#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    /// Named in every fact, so that runs can't be taken for one another.
    pub run: String,
    pub prefix: String,
    pub facts: usize,
    pub aggregate_types: Vec<String>,
    /// Sets the aggregates of one workload apart from another's.
    pub aggregate_prefix: &'static str,
    /// Aggregates, over all types.
    pub aggregates: usize,
    /// Facts in a transaction.
    pub transaction: std::ops::RangeInclusive<usize>,
    /// Every so many-th transaction is rolled back; 0 for none.
    pub rollback_every: usize,
    /// Bytes of padding in the payload.
    pub padding: usize,
    /// Write to a table of the application's own in each transaction.
    pub other_writes: bool,
    /// Which of several emitters this is; each has aggregates of its own.
    pub emitter: usize,
}

impl Workload {
    pub fn new(prefix: &str, facts: usize) -> Self {
        Workload {
            seed: 1,
            run: uuid::Uuid::now_v7().simple().to_string(),
            prefix: prefix.to_owned(),
            facts,
            aggregate_types: ["user", "order", "invoice"].map(Into::into).into(),
            aggregate_prefix: "",
            aggregates: 50,
            transaction: 1..=10,
            rollback_every: 10,
            padding: 100,
            other_writes: false,
            emitter: 0,
        }
    }

    /// The table that `other_writes` writes to.
    pub async fn create_table(client: &Client) {
        let table = "CREATE TABLE IF NOT EXISTS app (id bigserial PRIMARY KEY, note text)";
        client.batch_execute(table).await.expect("the table is created");
    }

    /// Emits until `facts` are committed, and tells what it did.
    pub async fn emit(&self, client: &mut Client) -> History {
        self.emit_by(&Emitter::new(self.prefix.clone()).any_size(), client).await
    }

    /// The same by an emitter of one's own.
    pub async fn emit_by(&self, emitter: &Emitter, client: &mut Client) -> History {
        let mut facts = Facts::new(self);
        let mut history = History::default();
        let mut transactions = 0;
        while history.len() < self.facts {
            let count = facts.transaction_size().min(self.facts - history.len());
            transactions += 1;
            let rolled_back = self.rollback_every > 0 && transactions % self.rollback_every == 0;
            let batch = facts.next(count);
            if rolled_back {
                facts.undo();
            }
            let transaction = client.transaction().await.expect("a transaction begins");
            if self.other_writes {
                let write = "INSERT INTO app (note) SELECT 'not a fact' FROM generate_series(1, 3)";
                transaction.execute(write, &[]).await.expect("another table is written");
            }
            // One by one and in batches: both ways are the client's.
            if transactions % 2 == 0 {
                emitter.emit_all(&transaction, &batch).await.expect("facts are emitted");
            } else {
                for fact in &batch {
                    emitter.emit(&transaction, fact).await.expect("a fact is emitted");
                }
            }
            if rolled_back {
                transaction.rollback().await.expect("a rollback");
                events(&batch).for_each(|event| history.rolled_back(&event));
            } else {
                transaction.commit().await.expect("a commit");
                events(&batch).for_each(|event| history.committed(&event));
            }
        }
        history
    }
}

pub fn events(facts: &[Fact]) -> impl Iterator<Item = OutboxEvent> {
    facts.iter().map(|fact| fact.to_event().expect("a valid fact"))
}

/// A seeded source of facts.
pub struct Facts<'a> {
    workload: &'a Workload,
    random: StdRng,
    /// The next sequence of each aggregate; it goes into the payload.
    sequences: Vec<u64>,
    /// As they were before the last transaction.
    before: Vec<u64>,
}

impl<'a> Facts<'a> {
    pub fn new(workload: &'a Workload) -> Self {
        // Neighbouring seeds give unrelated sequences.
        let random = StdRng::seed_from_u64(workload.seed ^ (workload.emitter as u64) << 32);
        let sequences = vec![0; workload.aggregates];
        Facts { workload, random, before: sequences.clone(), sequences }
    }

    pub fn transaction_size(&mut self) -> usize {
        self.random.random_range(self.workload.transaction.clone())
    }

    /// The facts of the next transaction.
    pub fn next(&mut self, count: usize) -> Vec<Fact> {
        self.before.clone_from(&self.sequences);
        (0..count).map(|_| self.one()).collect()
    }

    /// The last transaction was rolled back: its facts take no sequence.
    pub fn undo(&mut self) {
        self.sequences.clone_from(&self.before);
    }

    fn one(&mut self) -> Fact {
        let Workload { run, aggregate_types, aggregates, padding, emitter, .. } = self.workload;
        let prefix = self.workload.aggregate_prefix;
        let aggregate = self.random.random_range(0..*aggregates);
        let kind = &aggregate_types[aggregate % aggregate_types.len()];
        let sequence = self.sequences[aggregate];
        self.sequences[aggregate] += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let payload = format!(
            r#"{{"run":"{run}","aggregate":{aggregate},"sequence":{sequence},"at_ns":{},"padding":"{}"}}"#,
            now.as_nanos(),
            "x".repeat(*padding),
        );
        let fact = Fact::new(
            kind,
            format!("{prefix}{kind}-{emitter}-{aggregate}"),
            format!("{kind}.changed"),
        )
        .payload(payload)
        .metadata("run", run.as_str());
        match sequence % 3 {
            0 => fact,
            1 => fact.trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"),
            _ => fact
                .trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
                .trace_metadata("tenant", "7"),
        }
    }
}
