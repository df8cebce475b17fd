//! Several instances of the binary that share the pipelines of many databases, under load.

mod change;
mod deliveries;
mod instance;
mod tenants;

use std::{collections::BTreeSet, time::Duration};

use factlib::testing::{PostgresServer, shared_postgres};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

pub use self::change::{Change, now_ms};
use self::{change::Share, deliveries::Deliveries, instance::Instance, tenants::Tenants};
use crate::{
    Ctx, Launch, Outcome,
    cluster::Patience,
    support::{Bed, History, Report, emitters::Emitters, history::Checker},
};

/// The most by which the numbers of pipelines of two instances may differ.
const IMBALANCE: f64 = 0.2;
/// While pipelines are not shared, how often is said which do not run.
const SAID_EVERY: Duration = Duration::from_secs(20);
/// After a change, until all of it is seen.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A server with room for the tenants of the full form; the short one shares that of the process.
pub struct Server(Option<PostgresServer>);

impl Server {
    pub async fn start(ctx: &Ctx) -> Self {
        let own = PostgresServer::builder()
            .setting("max_connections", "1500")
            .setting("max_wal_senders", "250")
            .setting("max_replication_slots", "250");
        match ctx.pick(None, Some(own)) {
            Some(own) => Server(Some(own.start().await.expect("PostgreSQL starts"))),
            None => Server(None),
        }
    }

    pub async fn get(&self) -> &PostgresServer {
        match &self.0 {
            Some(own) => own,
            None => shared_postgres().await.expect("PostgreSQL starts"),
        }
    }
}

/// The instances, the tenants whose facts they deliver, and the load on these.
pub struct Fleet<'a> {
    tenants: Tenants<'a>,
    launch: Launch,
    session: Duration,
    instances: Vec<Instance>,
    started: usize,
    load: Vec<Emitters>,
    changes: Vec<Change>,
}

impl<'a> Fleet<'a> {
    /// Starts so many instances, which share the pipelines of so many databases.
    pub async fn start(ctx: &Ctx, bed: Bed<'a>, tenants: usize, instances: usize) -> Self {
        // The brokers take no shorter one.
        let session = Duration::from_secs(6);
        let launch = ctx.launch(&bed).without("postgres.slot");
        let tenants = Tenants::create(bed, &launch, tenants).await;
        let launch = launch
            .set("postgres.url", tenants.bed.postgres.url())
            .set("fleet.databases", tenants.pattern())
            .set("fleet.group", &tenants.bed.name)
            .set("fleet.session_timeout", format!("{}s", session.as_secs()))
            .set("pipeline.startup_timeout", "120s")
            // The others need some seconds for each ten pipelines of this machine.
            .set("fleet.handover_timeout", "40s")
            // Each saved position is WAL that all slots read.
            .set("checkpoint.idle_interval", ctx.pick("500ms", "5s"))
            // So that each record says when it arrived.
            .set("kafka.topics.config.message.timestamp.type", "LogAppendTime");
        let (fleet, load, changes) = (Vec::new(), Vec::new(), Vec::new());
        let mut fleet =
            Fleet { tenants, launch, session, instances: fleet, started: 0, load, changes };
        for _ in 0..instances {
            fleet.start_instance();
        }
        fleet.balanced().await;
        fleet
    }

    fn start_instance(&mut self) {
        self.started += 1;
        let name = format!("relay-{}", self.started);
        self.instances.push(Instance::start(&self.launch, name));
    }

    /// Emits so many facts a second in each database from now on.
    pub async fn load(&mut self, ctx: &Ctx, rate: f64) {
        let all = 0..self.tenants.names.len();
        self.load = join_all(all.map(|tenant| self.tenants.load(ctx, tenant, rate))).await;
    }

    /// SIGKILL to one of them: the others take over when its session has timed out.
    pub async fn kill_one(&mut self) {
        let before = self.shares().await;
        let instance = self.instances.remove(0);
        let had = before.of(&instance.name);
        let at = now_ms();
        instance.relay.kill().await;
        let positions = self.tenants.positions_of(&had).await;
        self.changed(Change::unexpected("killed", at, positions), &before).await;
    }

    /// One more.
    pub async fn add_one(&mut self) {
        let before = self.shares().await;
        let at = now_ms();
        self.start_instance();
        self.changed(Change::in_order("added", at), &before).await;
    }

    /// SIGTERM to one of them.
    pub async fn stop_one(&mut self) {
        let before = self.shares().await;
        let instance = self.instances.remove(0);
        let at = now_ms();
        let ended = tokio::spawn(instance.relay.stop());
        self.changed(Change::in_order("stopped", at), &before).await;
        ended.await.expect("it ends in order");
    }

    /// One stands still until the others have what it had, and goes on.
    pub async fn freeze_one(&mut self) {
        let before = self.shares().await;
        let frozen = self.instances.remove(0);
        let at = now_ms();
        frozen.relay.pause();
        let positions = self.tenants.positions_of(&before.of(&frozen.name)).await;
        self.changed(Change::unexpected("frozen", at, positions), &before).await;
        let before = self.shares().await;
        let at = now_ms();
        frozen.relay.resume();
        self.instances.push(frozen);
        self.changed(Change::in_order("awake", at), &before).await;
        // It may have sent what it had read before.
        let [.., of_frozen, awake] = &mut self.changes[..] else { unreachable!("both are there") };
        of_frozen.sent_until(awake.until_ms);
    }

    /// A tenant comes and goes; returns how long after its creation its slot was read.
    pub async fn tenant_comes_and_goes(&mut self, ctx: &Ctx) -> (Duration, History) {
        let before = self.shares().await;
        let at = now_ms();
        let tenant = self.tenants.create_one().await;
        self.tenants.is_read(tenant).await;
        let read_after = Duration::from_millis((now_ms() - at).unsigned_abs());
        let load = self.tenants.load(ctx, tenant, 50.0).await;
        load.emitted(50).await;
        let history = load.stop().await;
        self.tenants.settled().await;
        self.tenants.drop_one(tenant).await;
        self.changed(Change::in_order("tenant dropped", at), &before).await;
        (read_after, history)
    }

    /// Waits until the pipelines are shared again, and notes who has which.
    async fn changed(&mut self, mut change: Change, before: &Share) {
        let after = self.balanced().await;
        change.balanced_ms = now_ms();
        sleep(AFTERMATH).await;
        change.until_ms = now_ms();
        change.moved = before.moved(&after, &self.tenants.names);
        println!("{change:?}");
        self.changes.push(change);
    }

    /// Who runs what now.
    async fn shares(&self) -> Share {
        let mut share = Share::default();
        for instance in &self.instances {
            share.add(&instance.name, instance.runs().await);
        }
        share
    }

    /// The pipelines that do not run, with the reasons.
    async fn waiting(&self) -> Vec<String> {
        let mut all = Vec::new();
        for instance in &self.instances {
            all.extend(instance.waiting().await);
        }
        all
    }

    /// Waits until each tenant has one instance, and none has many more than another.
    async fn balanced(&self) -> Share {
        let all: BTreeSet<_> = self.tenants.present().collect();
        let mean = all.len() as f64 / self.instances.len() as f64;
        let most = (mean * IMBALANCE).max(1.0) as usize;
        let patience = Patience::new();
        let mut said = Instant::now();
        loop {
            let share = self.shares().await;
            if share.is_all(&all) && share.spread() <= most {
                return share;
            }
            for instance in &self.instances {
                assert!(instance.relay.is_running(), "it ended:\n{}", instance.relay.output());
            }
            if said.elapsed() > SAID_EVERY {
                said = Instant::now();
                println!("not yet shared: {}\n{}", share.sizes(), self.waiting().await.join("\n"));
            }
            patience.pause(&format!("the pipelines are shared: {}", share.sizes())).await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets everything arrive, stops all in order, and holds it against the history.
    pub async fn finish(self, others: History) -> (Outcome, Verdicts) {
        let mut history = others;
        let histories = join_all(self.load.into_iter().map(Emitters::stop)).await;
        histories.into_iter().for_each(|other| history.merge(other));
        self.tenants.settled().await;
        join_all(self.instances.into_iter().map(|instance| instance.relay.stop())).await;
        let bed = &self.tenants.bed;
        let mut checker =
            Checker::new(&history, bed.config.topic_prefix(), bed.config.kafka.topics.partitions);
        checker.confirmed(self.tenants.confirmed().await);
        let mut deliveries = Deliveries::default();
        bed.each_record(|record| {
            checker.record(&record);
            deliveries.record(&record);
        })
        .await;
        self.tenants.drop_slots().await;
        let report: Report = checker.report();
        let most = self.changes.iter().map(|change| change.repeatable(&deliveries)).sum();
        let why = "acknowledged or in flight beyond the confirmed position of an instance that was \
                   killed or frozen";
        let mut outcome = Outcome::duplicates(report, most, why);
        for change in &self.changes {
            outcome = outcome.note(change.note(&deliveries, self.session));
        }
        let verdicts = Verdicts { changes: self.changes, deliveries, session: self.session };
        (outcome, verdicts)
    }
}

/// How long the pipelines stood still at each change.
pub struct Verdicts {
    changes: Vec<Change>,
    deliveries: Deliveries,
    session: Duration,
}

impl Verdicts {
    /// The longest that a pipeline took to go on after the session of its instance had timed out.
    pub fn takeover(&self) -> Duration {
        let lost = self.changes.iter().filter(|change| change.is_unexpected());
        let times = lost.map(|change| change.takeover(&self.deliveries, self.session));
        times.max().unwrap_or_default()
    }

    /// The longest that a change held up a fact of a pipeline that did not move.
    pub fn longest_of_others(&self) -> Duration {
        let times = self.changes.iter().filter_map(|change| change.others(&self.deliveries).pop());
        times.max().unwrap_or_default()
    }

    /// The longest that an orderly move held up a fact.
    pub fn longest_move(&self) -> Duration {
        let in_order = self.changes.iter().filter(|change| !change.is_unexpected());
        let times = in_order.filter_map(|change| change.stalls(&self.deliveries).pop());
        times.max().unwrap_or_default()
    }
}
