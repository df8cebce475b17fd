//! What a scenario is given: its seed, its length, a place on the servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::testing::{KafkaServer, PostgresServer};
use rand::{RngExt, SeedableRng, distr::uniform::SampleRange, rngs::StdRng};

use crate::{
    Launch,
    support::{Bed, Workload, emitters::Emitters, rows::EVENTS, source::reads_tables},
};

/// What a scenario is given.
pub struct Ctx {
    name: &'static str,
    seed: u64,
    /// None for the short form.
    full: Option<Duration>,
    random: StdRng,
    peak_kb: Arc<AtomicU64>,
}

impl Ctx {
    /// `full` is how long the load of the full form lasts; the short form has none.
    pub fn new(name: &'static str, seed: u64, full: Option<Duration>) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Ctx { name, seed, full, random, peak_kb: Arc::default() }
    }

    /// One value for the short form, one for the full one.
    pub fn pick<T>(&self, short: T, full: T) -> T {
        if self.full.is_some() { full } else { short }
    }

    /// How long something that takes `short` in the short form takes.
    pub fn time(&self, short: Duration) -> Duration {
        self.full.unwrap_or(short)
    }

    /// Milliseconds from the seed.
    pub fn random_ms(&mut self, range: impl SampleRange<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// A number from the seed.
    pub fn random(&mut self, range: impl SampleRange<u64>) -> u64 {
        self.random.random_range(range)
    }

    /// The largest resident size of any relay so far.
    pub fn peak_mb(&self) -> u64 {
        self.peak_kb.load(Relaxed) / 1024
    }

    /// On the servers of this process, for scenarios that do not stop these.
    pub async fn shared(&self) -> Bed<'static> {
        with_source(Bed::shared(self.name).await).await
    }

    pub async fn on<'a>(&self, postgres: &'a PostgresServer, kafka: &'a KafkaServer) -> Bed<'a> {
        with_source(Bed::on(postgres, kafka, self.name).await).await
    }

    /// How the binary is started for this bed.
    ///
    /// The small window keeps what is in flight, and so what a crash repeats, small.
    pub fn launch(&self, bed: &Bed<'_>) -> Launch {
        Launch::new(bed, Arc::clone(&self.peak_kb))
            .set("pipeline.window", "1MiB")
            .set("pipeline.batch", "64KiB")
            .set("pipeline.restart_backoff_max", "1s")
    }

    /// A mixed load of this seed, of which phases take what they need.
    pub fn workload(&self, bed: &Bed<'_>) -> Workload {
        Workload { seed: self.seed, ..Workload::new(&bed.name, usize::MAX) }
    }

    /// Two emitters in the background, which emit `rate` facts a second together.
    pub async fn load(&self, bed: &Bed<'_>, rate: usize) -> Emitters {
        Emitters::start(bed, &self.workload(bed), EMITTERS, rate).await
    }
}

/// Creates the outbox table, if the relay is to read one.
async fn with_source(bed: Bed<'_>) -> Bed<'_> {
    if reads_tables() {
        bed.client().await.batch_execute(EVENTS).await.expect("the table");
    }
    bed
}

/// Emitters of a background load.
pub const EMITTERS: usize = 2;
