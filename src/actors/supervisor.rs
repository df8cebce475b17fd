//! Supervisor: builds every actor, watches it, builds it again, drains it.
//!
//! # Life
//! One for the pipeline's life, and as long as it. A *generation* is one life of
//! the reader; it starts at the saved position. The chain decoder, router and the
//! lanes below it live as long as they don't fail: what a reader had read before its
//! connection was lost is delivered meanwhile, and not read into the chain again. The
//! checkpointer, the byte window and the Kafka client outlive the chain.
//!
//! # Failure
//! A failed lane is opened again, alone. A failure in the chain ends all of it, one of
//! the reader's connection the reader; the next generation starts after a pause that
//! grows while nothing gets delivered. Where the server came back with another history,
//! all of the chain is new. What can't get better by itself ends the pipeline with its error.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture,
};
use actix_rt::ArbiterHandle;
use backon::{BackoffBuilder, ExponentialBuilder};
use slog::{Logger, error, info, o, warn};
use tokio::sync::watch;

use super::{
    checkpointer::Checkpointer,
    chosen_topics::ChosenTopics,
    coordinator::Coordinator,
    decoder::Decoder,
    deliveries::Deliveries,
    draining::{Extent, SETTLE_TIMEOUT, UNFINISHED, drain, extent, settle},
    event_decoder::EventDecoder,
    gate::Limits,
    lane::{LaneContext, Lanes},
    router::{DeadLetters, Router},
    row_sweeper::RowSweeper,
    transaction::Transaction,
    wal_reader::{ReadFrom, WalReader},
    wal_watch::WalWatch,
};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{Checkpoint, CheckpointStore},
    config::{Config, RefusalPolicy},
    faults::{FaultSite, Faults},
    handlers::HandlerTopics,
    kafka::{positions::Positions, transactions::Transactions},
    messages::{
        ActorExited, ActorKind, BeginGeneration, ByteWindow, ChainFailed, ExitGuard, Hold,
        LaneFailed, LaneLost, LaneOpened, OpenLane, PauseTopic, Shutdown, Stop, Streaming,
    },
    outbox::{OldRows, OutboxReader},
    postgres::Reconnecting,
    routing::Routing,
    startup::{InKafka, Start, Startup},
    status::{ActorState, BlockedBy, PipelineState, Status},
};

/// How often a standby looks whether the slot is free, at least: what a takeover waits for.
const STANDBY_PAUSE: Duration = Duration::from_secs(2);

/// How a pipeline ended; none while it lives.
pub(crate) type Outcome = Option<Result<()>>;

/// What a pipeline is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub config: Arc<Config>,
    pub startup: Arc<Startup>,
    pub store: Arc<dyn CheckpointStore>,
    pub lanes: Arc<dyn Lanes>,
    pub handlers: HandlerTopics,
    /// Where false, only handlers and dead letters have lanes.
    pub kafka: bool,
    /// Where positions may be in Kafka.
    pub positions: Option<Arc<Positions>>,
    /// With exactly-once.
    pub transactions: Option<Arc<Transactions>>,
    pub window: ByteWindow,
    pub status: Arc<Status>,
    pub faults: Faults,
    pub log: Logger,
}

/// The root of the pipeline's actors.
pub(crate) struct Supervisor {
    plan: Plan,
    /// Where the reader runs: reading must not wait for what is done with what was read.
    reader_arbiter: ArbiterHandle,
    checkpointer: Addr<Checkpointer>,
    wal_watch: Addr<WalWatch>,
    /// None without `retention.after`.
    row_sweeper: Option<Addr<RowSweeper>>,
    generation: u64,
    /// The one that was read last.
    cluster: Option<u64>,
    chain: Option<Chain>,
    draining: bool,
    /// Topics that are held back.
    paused: HashSet<Arc<str>>,
    /// Generations in a row that delivered nothing.
    failures: u32,
    /// When the pipeline was first asked to start; none once it ran.
    starting_since: Option<Instant>,
    running: watch::Sender<bool>,
    outcome: watch::Sender<Outcome>,
}

/// The actors of the present generation.
struct Chain {
    /// None from the loss of its connection to the next generation.
    reader: Option<Addr<WalReader>>,
    decoder: Addr<Decoder>,
    router: Addr<Router>,
    /// With exactly-once.
    coordinator: Option<Addr<Coordinator>>,
    /// The generation that it began with.
    first: u64,
    /// Of the present reader, or of the last one.
    launched: Instant,
    from: Checkpoint,
}

impl Supervisor {
    /// Starts it on the present arbiter. `running` turns true with the first
    /// generation; `outcome` is set once, at the end.
    pub fn launch(
        plan: Plan,
        reader_arbiter: ArbiterHandle,
        running: watch::Sender<bool>,
        outcome: watch::Sender<Outcome>,
    ) -> Addr<Self> {
        Supervisor::create(|ctx| {
            let checkpointer = spawn_checkpointer(&plan, ctx);
            let wal_watch = spawn_wal_watch(&plan);
            let row_sweeper = spawn_row_sweeper(&plan);
            Supervisor {
                plan,
                reader_arbiter,
                checkpointer,
                wal_watch,
                row_sweeper,
                generation: 0,
                cluster: None,
                chain: None,
                draining: false,
                paused: HashSet::new(),
                failures: 0,
                starting_since: Some(Instant::now()),
                running,
                outcome,
            }
        })
    }

    /// Connects, checks the positions, and launches the next generation.
    fn start_generation(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return self.end_if_empty(ctx);
        }
        self.generation += 1;
        let first = self.starting_since.is_some();
        let limit = self.attempt_limit();
        let (plan, checkpointer) = (self.plan.clone(), self.checkpointer.clone());
        let cluster = self.cluster;
        let decoder = self.chain.as_ref().map(|chain| chain.decoder.clone());
        let from = self.chain.as_ref().map(|chain| chain.from.clone());
        let preparing = async move {
            let extent = match decoder {
                Some(decoder) => extent(&decoder, &checkpointer).await,
                None => {
                    settle(&checkpointer).await;
                    None
                }
            };
            if first {
                plan.lanes.check(limit).await?;
            }
            let start = plan.startup.prepare(&*plan.store, cluster, limit, &plan.log).await?;
            // What has gone through the chain says more than what is in Kafka.
            let goes_on = |extent: &Extent| from.is_some_and(|from| extent.is_of(&from, &start));
            match extent.filter(goes_on) {
                Some(extent) => Ok((start, Some(extent))),
                None => Ok((plan.with_kafka(start, first, limit).await?, None)),
            }
        };
        ctx.spawn(preparing.into_actor(self).map(move |result, this, ctx| match result {
            _ if this.draining => this.end_if_empty(ctx),
            Ok((start, extent)) => this.begin(start, extent, ctx),
            Err(error) => {
                let error: Error = error;
                if error.kind() != ErrorKind::KafkaUnavailable {
                    this.plan.status.replication_failed();
                }
                this.retry(error, ctx);
            }
        }));
    }

    /// Begins the next generation: a reader and, where none lives or can go on, the chain.
    fn begin(&mut self, start: Start, extent: Option<Extent>, ctx: &mut Context<Self>) {
        let (old, generation) = (self.chain.take(), self.generation);
        let (mut chain, first_batch) = match (old, extent) {
            (Some(old), Some(extent)) => (old, extent.batches),
            (old, _) => {
                if let Some(old) = old {
                    warn!(
                        self.plan.log,
                        "what is in flight is read again: the server has another history"
                    );
                    old.stop();
                }
                match self.launch_chain(&start, ctx) {
                    Ok(chain) => (chain, 0),
                    Err(error) => return self.end(Err(error), ctx),
                }
            }
        };
        let continues = chain.first < generation;
        let reader = self.launch_reader(&start, first_batch, chain.decoder.clone(), ctx);
        let (from, confirm) = (start.from.clone(), reader.clone().recipient());
        self.checkpointer.do_send(BeginGeneration { generation, from, continues, confirm });
        self.plan.status.set_generation(generation, continues);
        chain.reader = Some(reader);
        chain.launched = Instant::now();
        self.cluster = Some(start.from.system_id);
        chain.from = start.from;
        self.chain = Some(chain);
    }

    /// # Errors
    /// Routes that can't be used; they were checked before anything was started.
    fn launch_chain(&self, start: &Start, ctx: &mut Context<Self>) -> Result<Chain> {
        let (plan, generation) = (&self.plan, self.generation);
        let config = &plan.config;
        let address = ctx.address();
        let log = |actor| self.log(actor);
        let exit = |actor| ExitGuard { actor, generation, to: address.clone().recipient() };

        let coordinator = plan.transactions.as_ref().map(|transactions| {
            Coordinator {
                transactions: Arc::clone(transactions),
                from: start.from.clone(),
                done: self.checkpointer.clone().recipient(),
                failed: address.clone().recipient(),
                exit: exit(ActorKind::Coordinator),
            }
            .start()
        });
        let transaction = coordinator.clone().map(|coordinator| {
            let limits = Limits::from(&config.delivery);
            Transaction::new(limits, start.from.lsn, self.paused.clone(), coordinator)
        });
        let router = Router {
            handlers: plan.handlers.clone(),
            topics_of_handlers: match plan.kafka {
                true => ChosenTopics::of_kafka(config.kafka.topics.max),
                false => ChosenTopics::none(),
            },
            routing: Routing::new(config).map_err(|mistake| mistake.error(None))?,
            dead_letters: DeadLetters {
                policy: config.dead_letter.policy,
                topic: config.dead_letter_topic().into(),
            },
            deliveries: Deliveries::new(
                config.dead_letter.policy == RefusalPolicy::Block,
                match transaction {
                    Some(_) => HashSet::new(),
                    None => self.paused.clone(),
                },
            ),
            transaction,
            lanes: address.clone().recipient(),
            done: self.checkpointer.clone().recipient(),
            failed: address.clone().recipient(),
            status: Arc::clone(&plan.status),
            faults: plan.faults.clone(),
            log: log(ActorKind::Router),
            exit: exit(ActorKind::Router),
        }
        .start();
        let mut events = match config.outbox_tables() {
            tables if tables.is_empty() => {
                EventDecoder::new(&config.postgres.message_prefix, start.from.lsn)
            }
            tables => {
                let tables = OutboxReader::new(tables, log(ActorKind::Decoder));
                EventDecoder::of_tables(tables, start.from.lsn)
            }
        };
        if let Some(partial) = start.partial {
            events.resume(partial);
        }
        let decoder = Decoder {
            decoder: events,
            batches: 0,
            router: router.clone().recipient(),
            done: self.checkpointer.clone().recipient(),
            failed: address.clone().recipient(),
            faults: plan.faults.clone(),
            log: log(ActorKind::Decoder),
            exit: exit(ActorKind::Decoder),
        }
        .start();
        for actor in [ActorKind::Decoder, ActorKind::Router] {
            plan.status.actor_is(actor.name(), ActorState::Running);
        }
        let (launched, from) = (Instant::now(), start.from.clone());
        Ok(Chain { reader: None, decoder, router, coordinator, first: generation, launched, from })
    }

    fn launch_reader(
        &self,
        start: &Start,
        first_batch: u64,
        decoder: Addr<Decoder>,
        ctx: &mut Context<Self>,
    ) -> Addr<WalReader> {
        let (plan, generation) = (&self.plan, self.generation);
        let (config, address, actor) = (&plan.config, ctx.address(), ActorKind::WalReader);
        let reader = WalReader::new(
            ReadFrom {
                info: plan.startup.info.clone(),
                connect_timeout: config.postgres.connect_timeout,
                slot: config.postgres.slot.clone(),
                publication: config.postgres.publication.clone(),
                start: start.from.lsn,
                first_batch,
                system_id: start.from.system_id,
                status_interval: start.status_interval,
                batch_bytes: config.batch_bytes(),
            },
            plan.window.clone(),
            decoder.recipient(),
            self.checkpointer.clone().recipient(),
            (address.clone().recipient(), address.clone().recipient()),
            Arc::clone(&plan.status),
            plan.faults.clone(),
            self.log(actor),
            ExitGuard { actor, generation, to: address.recipient() },
        );
        WalReader::start_in_arbiter(&self.reader_arbiter, move |_| reader)
    }

    fn log(&self, actor: ActorKind) -> Logger {
        self.plan.log.new(o!("actor" => actor.to_string(), "generation" => self.generation))
    }

    /// The chain is broken, or only the reader's connection: stop what can't go on.
    fn chain_failed(&mut self, actor: ActorKind, error: Error, ctx: &mut Context<Self>) {
        let Some(mut chain) = self.chain.take() else { return };
        error!(self.plan.log, "generation failed"; "generation" => self.generation,
            "failed" => %actor, "error" => %error);
        self.plan.status.actor_failed(actor.name(), &error);
        let delivered = self.plan.status.snapshot().saved_lsn > chain.from.lsn;
        if delivered || chain.launched.elapsed() > self.plan.config.pipeline.restart_backoff_max {
            self.failures = 0;
        }
        let starts_already = chain.reader.is_none();
        let connection_lost =
            actor == ActorKind::WalReader && error.kind() != ErrorKind::ActorFailed;
        if actor == ActorKind::WalReader {
            self.plan.status.replication_failed();
        }
        if connection_lost && error.is_transient() {
            // What was read is delivered while the next reader connects.
            chain.reader = None;
            self.chain = Some(chain);
            self.checkpointer.do_send(Hold);
        } else {
            chain.stop();
            for actor in [ActorKind::WalReader, ActorKind::Decoder, ActorKind::Router] {
                self.plan.status.actor_is(actor.name(), ActorState::Starting);
            }
        }
        if !starts_already || !error.is_transient() {
            self.retry(error, ctx);
        }
    }

    /// Whether an actor of this generation belongs to the present chain.
    fn is_present(&self, actor: ActorKind, generation: u64) -> bool {
        self.chain.as_ref().is_some_and(|chain| match actor {
            ActorKind::WalReader => generation == self.generation && chain.reader.is_some(),
            // Its failures carry the generation in which it began what failed.
            _ => generation >= chain.first,
        })
    }

    /// Starts again after a pause, unless that can't help.
    fn retry(&mut self, error: Error, ctx: &mut Context<Self>) {
        let limit = self.plan.config.pipeline.startup_timeout;
        // A slot in use is no fault: this instance stands by for the other one.
        let too_late = error.kind() != ErrorKind::SlotInUse
            && self
                .starting_since
                .is_some_and(|since| !limit.is_zero() && since.elapsed() >= limit);
        if !error.is_transient() || too_late {
            return self.give_up(error, ctx);
        }
        let text = error.to_string();
        let blocked_by = match error.kind() {
            ErrorKind::SlotInUse => Some(BlockedBy::Slot),
            ErrorKind::PostgresUnavailable => Some(BlockedBy::Postgres),
            ErrorKind::KafkaUnavailable => Some(BlockedBy::Kafka),
            ErrorKind::CheckpointUnavailable => Some(BlockedBy::Store),
            _ => None,
        };
        self.plan.status.actor_waits(ActorKind::WalReader.name(), blocked_by);
        let (state, longest) = match error.kind() {
            ErrorKind::SlotInUse => (PipelineState::StandingBy { error: text }, STANDBY_PAUSE),
            _ => (PipelineState::Retrying { error: text }, Duration::MAX),
        };
        let pause = self.pause(self.failures).min(longest);
        self.failures = self.failures.saturating_add(1);
        // A standby that goes on standing by is no news.
        if error.kind() != ErrorKind::SlotInUse || self.plan.status.snapshot().state != state {
            warn!(self.plan.log, "starting again after a pause"; "error" => %error,
                "pause_ms" => pause.as_millis() as u64, "failures" => self.failures);
        }
        self.plan.status.set_state(state);
        ctx.run_later(pause, |this, ctx| this.start_generation(ctx));
    }

    /// How long one attempt to connect may take; a first one not longer than all of them.
    fn attempt_limit(&self) -> Duration {
        let limit = self.plan.config.postgres.connect_timeout;
        let startup = self.plan.config.pipeline.startup_timeout;
        if self.starting_since.is_some() && !startup.is_zero() { limit.min(startup) } else { limit }
    }

    /// The pause before try `failures + 1`: doubled each time, with jitter.
    fn pause(&self, failures: u32) -> Duration {
        let settings = &self.plan.config.pipeline;
        ExponentialBuilder::default()
            .with_min_delay(settings.restart_backoff)
            .with_max_delay(settings.restart_backoff_max)
            .without_max_times()
            .with_jitter()
            .build()
            // 2^20 first pauses are beyond any longest pause.
            .nth(failures.min(20) as usize)
            .unwrap_or(settings.restart_backoff_max)
    }

    fn open_lane(&mut self, request: OpenLane, ctx: &mut Context<Self>) {
        let OpenLane { generation, lane, topic, epoch, failures, .. } = request;
        let to = ctx.address().recipient();
        let context = LaneContext {
            log: self.plan.log.new(o!("actor" => "topic_producer", "topic" => topic.to_string())),
            topic,
            failures,
            exit: ExitGuard { actor: ActorKind::Lane { lane, epoch }, generation, to },
        };
        let lanes = Arc::clone(&self.plan.lanes);
        let opening = async move { lanes.open(context).await };
        ctx.spawn(opening.into_actor(self).map(move |result, this, _| {
            let Some(chain) = this.chain.as_ref().filter(|chain| generation >= chain.first) else {
                return;
            };
            match result {
                Ok(recipient) => chain.router.do_send(LaneOpened { lane, epoch, recipient }),
                Err(error) => chain.router.do_send(LaneFailed { lane, epoch, error }),
            }
        }));
    }

    /// Ends with an error, after what the last reader had read, within reason.
    fn give_up(&mut self, error: Error, ctx: &mut Context<Self>) {
        let Some(chain) = &self.chain else { return self.end(Err(error), ctx) };
        let (decoder, checkpointer) = (chain.decoder.clone(), self.checkpointer.clone());
        let log = self.plan.log.clone();
        let finishing = async move {
            // Too late only means that more is sent again.
            let _ = drain(None, decoder, checkpointer, SETTLE_TIMEOUT, &log).await;
        };
        ctx.spawn(finishing.into_actor(self).map(|(), this, ctx| this.end(Err(error), ctx)));
    }

    /// Ends, unless draining does so once what is in flight has been delivered.
    fn end_if_empty(&mut self, ctx: &mut Context<Self>) {
        if self.chain.is_none() {
            self.end(Ok(()), ctx);
        }
    }

    fn end(&mut self, result: Result<()>, ctx: &mut Context<Self>) {
        if let Some(chain) = self.chain.take() {
            chain.stop();
        }
        self.wal_watch.do_send(Stop);
        if let Some(sweeper) = &self.row_sweeper {
            sweeper.do_send(Stop);
        }
        // Before whoever waits for the outcome asks.
        self.plan.status.stopped();
        // What was under way may end after the end; the first word counts.
        self.outcome.send_if_modified(|outcome| {
            let open = outcome.is_none();
            if open {
                *outcome = Some(result);
            }
            open
        });
        ctx.stop();
    }
}

/// However it ends, also by a panic: nobody may take its last state for the present one.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.plan.status.stopped();
    }
}

impl Chain {
    fn stop(&self) {
        if let Some(reader) = &self.reader {
            reader.do_send(Stop);
        }
        self.decoder.do_send(Stop);
        self.router.do_send(Stop);
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(Stop);
        }
    }
}

impl Plan {
    /// The start, or a later one where the position in Kafka is further. With exactly-once,
    /// nobody but this instance writes for the slot any more when this returns.
    async fn with_kafka(&self, start: Start, first: bool, limit: Duration) -> Result<Start> {
        // Without transactions, none comes there after the first start.
        let asked = self.positions.as_ref().filter(|_| first || self.transactions.is_some());
        let Some(positions) = asked else { return Ok(start) };
        let kafka = InKafka { positions, transactions: self.transactions.as_deref() };
        self.startup.with_kafka(start, kafka, &*self.store, limit, &self.log).await
    }
}

fn spawn_checkpointer(plan: &Plan, ctx: &mut Context<Supervisor>) -> Addr<Checkpointer> {
    let actor = ActorKind::Checkpointer;
    plan.status.actor_is(actor.name(), ActorState::Running);
    let exit = ExitGuard { actor, generation: 0, to: ctx.address().recipient() };
    Checkpointer::new(
        Arc::clone(&plan.store),
        plan.config.checkpoint.clone(),
        ctx.address().recipient(),
        Arc::clone(&plan.status),
        plan.faults.clone(),
        plan.log.new(o!("actor" => actor.to_string())),
        exit,
    )
    .start()
}

fn spawn_wal_watch(plan: &Plan) -> Addr<WalWatch> {
    let settings = &plan.config.postgres;
    plan.status.actor_is("wal_watch", ActorState::Running);
    let log = plan.log.new(o!("actor" => "wal_watch"));
    let info = plan.startup.info.clone();
    let server = Reconnecting::new(info, settings.connect_timeout, log.clone());
    let (slot, status) = (settings.slot.clone(), Arc::clone(&plan.status));
    WalWatch::new(settings.retained_wal_warning, slot, server, status, log).start()
}

fn spawn_row_sweeper(plan: &Plan) -> Option<Addr<RowSweeper>> {
    let (config, retention) = (&plan.config, &plan.config.retention);
    let log = plan.log.new(o!("actor" => "row_sweeper"));
    let rows = OldRows::new(
        plan.startup.info.clone(),
        config.postgres.connect_timeout,
        config.postgres.slot.clone(),
        retention.after?,
        retention,
        config.retention_tables(),
        log.clone(),
    );
    plan.status.actor_is("row_sweeper", ActorState::Running);
    Some(RowSweeper::new(rows, retention.interval, Arc::clone(&plan.status), log).start())
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_generation(ctx);
    }
}

impl Handler<ChainFailed> for Supervisor {
    type Result = ();

    fn handle(&mut self, failed: ChainFailed, ctx: &mut Self::Context) {
        if self.is_present(failed.actor, failed.generation) && !self.draining {
            self.chain_failed(failed.actor, failed.error, ctx);
        }
    }
}

impl Handler<ActorExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, exited: ActorExited, ctx: &mut Self::Context) {
        let ActorExited { actor, generation, panicked } = exited;
        if actor == ActorKind::Checkpointer {
            self.checkpointer = spawn_checkpointer(&self.plan, ctx);
        } else if !self.is_present(actor, generation) {
            return;
        }
        let Some(chain) = &self.chain else { return };
        if let ActorKind::Lane { lane, epoch } = actor {
            chain.router.do_send(LaneLost { lane, epoch });
        } else if !self.draining || panicked && actor != ActorKind::WalReader {
            let how = if panicked { "panicked" } else { "ended" };
            let what = format!("actor {actor} {how}");
            let error = Error::new(ErrorKind::ActorFailed, what);
            if self.draining {
                // What it had in flight can't finish any more.
                return self.end(Err(error.remedy(UNFINISHED)), ctx);
            }
            self.chain_failed(actor, error, ctx);
        }
    }
}

impl Handler<Streaming> for Supervisor {
    type Result = ();

    fn handle(&mut self, streaming: Streaming, _: &mut Self::Context) {
        let Some(chain) = self.chain.as_ref().filter(|_| streaming.generation == self.generation)
        else {
            return;
        };
        info!(self.plan.log, "relay running"; "generation" => self.generation, "from" => %chain.from.lsn);
        self.plan.status.set_state(if self.draining {
            PipelineState::Draining
        } else {
            PipelineState::Running
        });
        self.plan.status.actor_is(ActorKind::WalReader.name(), ActorState::Running);
        self.starting_since = None;
        self.running.send_replace(true);
    }
}

impl Handler<OpenLane> for Supervisor {
    type Result = ();

    fn handle(&mut self, request: OpenLane, ctx: &mut Self::Context) {
        if !self.is_present(ActorKind::Router, request.generation) {
            return;
        }
        match &request.error {
            Some(error) if !error.is_transient() => self.end(Err(error.clone()), ctx),
            None => self.open_lane(request, ctx),
            Some(_) => {
                let pause = self.pause(request.failures);
                ctx.run_later(pause, move |this, ctx| {
                    if this.is_present(ActorKind::Router, request.generation) {
                        this.open_lane(request, ctx);
                    }
                });
            }
        }
    }
}

impl Handler<PauseTopic> for Supervisor {
    type Result = ();

    fn handle(&mut self, pause: PauseTopic, _: &mut Self::Context) {
        let PauseTopic { topic, paused } = &pause;
        let changed = match paused {
            true => self.paused.insert(Arc::clone(topic)),
            false => self.paused.remove(topic),
        };
        if !changed {
            return;
        }
        info!(self.plan.log, "topic paused or resumed"; "topic" => %topic, "paused" => paused);
        self.plan.status.pause(topic, *paused);
        if let Some(chain) = &self.chain {
            chain.router.do_send(pause);
        }
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let Some(chain) = &self.chain else { return self.end(Ok(()), ctx) };
        self.plan.status.set_state(PipelineState::Draining);
        self.plan.faults.reach(FaultSite::Draining);
        let (reader, decoder) = (chain.reader.clone(), chain.decoder.clone());
        let (checkpointer, log) = (self.checkpointer.clone(), self.plan.log.clone());
        let limit = self.plan.config.pipeline.drain_timeout;
        let draining = async move { drain(reader, decoder, checkpointer, limit, &log).await };
        ctx.spawn(draining.into_actor(self).map(|result, this, ctx| this.end(result, ctx)));
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(Ok(()), ctx);
    }
}
