//! Load in the background that lives through outages and knows what it did.
//!
//! Every transaction writes a row of its own into the table `witness`. When the
//! answer to a commit is lost, that row says, after reconnecting, whether the
//! transaction was committed.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use factlib::{
    Lsn,
    emit::{Emitter, Fact},
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_postgres::{Client, Config, NoTls, Transaction};
use uuid::Uuid;

use super::{
    Bed, History, Workload,
    bed::LIMIT,
    rows::{in_table, try_insert},
    source::reads_tables,
    workload::{Facts, events},
};

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS witness (transaction uuid PRIMARY KEY, facts uuid[])";
/// Waits for a former writer of the row, and then inserts it where that one was rolled back.
const WITNESS: &str = "\
INSERT INTO witness VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING pg_current_wal_insert_lsn()::text";

const NO_FACTS: Option<Vec<Uuid>> = None;

const RETRY: Duration = Duration::from_millis(50);

/// Several emitters at work, each with aggregates of its own.
pub struct Emitters {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<History>>,
}

impl Emitters {
    /// Starts `emitters` of them, which emit `rate` facts a second together until
    /// they are stopped, or each has emitted `workload.facts`.
    pub async fn start(bed: &Bed<'_>, workload: &Workload, emitters: usize, rate: usize) -> Self {
        Emitters::start_on(bed.sessions(), workload, emitters, rate as f64).await
    }

    /// The same by other sessions, such as those that find the primary among several hosts.
    pub async fn start_on(
        sessions: Config,
        workload: &Workload,
        emitters: usize,
        rate: f64,
    ) -> Self {
        let client = session(&sessions).await;
        client.batch_execute(TABLE).await.expect("the table of witnesses");
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..emitters).map(|n| {
            let emitter = Background {
                sessions: sessions.clone(),
                workload: Workload { emitter: workload.emitter + n, ..workload.clone() },
                pause: Duration::from_secs_f64(emitters as f64 / rate),
                stop: Arc::clone(&stop),
                count: Arc::clone(&count),
                history: History::default(),
            };
            tokio::spawn(emitter.run())
        });
        let tasks = tasks.collect();
        Emitters { stop, count, tasks }
    }

    /// Facts that were committed so far.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Waits until so many facts were committed.
    pub async fn emitted(&self, facts: usize) {
        let waiting = async {
            while self.count() < facts {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the emitters get on");
    }

    /// Ends them after the transaction that each is in.
    pub async fn stop(self) -> History {
        self.stop.store(true, Relaxed);
        self.finished().await
    }

    /// Waits until each has emitted all of its facts.
    pub async fn finished(self) -> History {
        let mut history = History::default();
        for task in self.tasks {
            history.merge(task.await.expect("an emitter does not panic"));
        }
        history
    }
}

struct Background {
    /// How to connect; the server may be away.
    sessions: Config,
    workload: Workload,
    /// The time that one fact has.
    pause: Duration,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    history: History,
}

/// How a transaction ended.
enum End {
    Committed,
    RolledBack,
    /// The commit was sent, and the answer did not come.
    Unknown,
}

impl Background {
    async fn run(mut self) -> History {
        let workload = self.workload.clone();
        let (mut facts, mut transactions) = (Facts::new(&workload), 0);
        let mut client = None;
        let mut due = Instant::now();
        while !self.stop.load(Relaxed) && self.history.len() < workload.facts {
            let count = facts.transaction_size().min(workload.facts - self.history.len());
            let batch = facts.next(count);
            transactions += 1;
            let commit = workload.rollback_every == 0 || transactions % workload.rollback_every > 0;
            let committed = self.transaction(&mut client, &batch, commit).await;
            let sent = events(&batch).map(|event| match reads_tables() {
                true => in_table(event),
                false => event,
            });
            if committed {
                sent.for_each(|event| self.history.committed(&event));
                self.count.fetch_add(count, Relaxed);
            } else {
                sent.for_each(|event| self.history.rolled_back(&event));
                facts.undo();
            }
            // After an outage it goes on at its rate; it does not catch up.
            let now = Instant::now();
            due = (due + self.pause * count as u32).max(now - Duration::from_secs(1));
            sleep(due.saturating_duration_since(now)).await;
        }
        // The position of the last ones.
        let mut client = self.connected(client).await;
        let _ = self.position(&mut client).await;
        self.history
    }

    /// Runs one transaction to its end, whatever that takes; true if it was committed.
    async fn transaction(
        &mut self,
        slot: &mut Option<Client>,
        batch: &[Fact],
        commit: bool,
    ) -> bool {
        let witness = Uuid::now_v7();
        let mut client = self.connected(slot.take()).await;
        let end = self.attempt(&mut client, witness, batch, commit).await;
        let committed = match end {
            End::Committed => true,
            End::RolledBack => false,
            End::Unknown => loop {
                client = self.connected(None).await;
                // Where the row can be inserted, the transaction was not committed.
                if let Ok(inserted) = client.query(WITNESS, &[&witness, &NO_FACTS]).await {
                    break inserted.is_empty();
                }
            },
        };
        *slot = Some(client);
        committed
    }

    async fn attempt(
        &mut self,
        client: &mut Client,
        witness: Uuid,
        batch: &[Fact],
        commit: bool,
    ) -> End {
        let Ok(transaction) = client.transaction().await else { return End::RolledBack };
        let ids: Vec<Uuid> = events(batch).map(|event| event.id.parse().expect("a UUID")).collect();
        let Ok(rows) = transaction.query(WITNESS, &[&witness, &ids]).await else {
            return End::RolledBack;
        };
        self.history.committed_before(rows[0].get::<_, &str>(0).parse().expect("a position"));
        if self.emit(&transaction, batch).await.is_err() {
            return End::RolledBack;
        }
        match commit {
            false => {
                let _ = transaction.rollback().await;
                End::RolledBack
            }
            true if transaction.commit().await.is_ok() => End::Committed,
            true => End::Unknown,
        }
    }

    async fn emit(
        &self,
        transaction: &Transaction<'_>,
        batch: &[Fact],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if reads_tables() {
            for event in events(batch).map(in_table) {
                try_insert(transaction, &event).await?;
            }
            return Ok(());
        }
        let emitter = Emitter::new(self.workload.prefix.clone()).any_size();
        Ok(emitter.emit_all(transaction, batch).await.map(drop)?)
    }

    async fn position(&mut self, client: &mut Client) -> Result<(), tokio_postgres::Error> {
        let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        let lsn: Lsn = row.get::<_, &str>(0).parse().expect("a position");
        self.history.committed_before(lsn);
        Ok(())
    }

    /// The session, or a new one, however long that takes.
    async fn connected(&self, client: Option<Client>) -> Client {
        if let Some(client) = client.filter(|client| !client.is_closed()) {
            return client;
        }
        session(&self.sessions).await
    }
}

/// A new session, however long that takes.
async fn session(sessions: &Config) -> Client {
    loop {
        if let Ok((client, connection)) = sessions.connect(NoTls).await {
            // How it ends is told to the client's next query.
            tokio::spawn(async move { connection.await.ok() });
            return client;
        }
        sleep(RETRY).await;
    }
}

/// The facts of the transactions that a server has: those that were committed there, and not lost in
/// a failover since.
pub async fn surviving(client: &Client) -> HashSet<Uuid> {
    let query = "SELECT unnest(facts) FROM witness";
    let rows = client.query(query, &[]).await.expect("the witnesses");
    rows.iter().map(|row| row.get(0)).collect()
}
