//! Supervisor: builds every actor, watches it, builds it again, drains it.
//!
//! # Life
//! One for the pipeline's life, and as long as it. A *generation* is one life of
//! the chain reader, decoder, router and of the lanes below it; it starts at the
//! saved position. The checkpointer, the byte window and the Kafka client outlive it.
//!
//! # Failure
//! A failed lane is opened again, alone. A failure in the chain ends the
//! generation, and the next one starts after a pause that grows while nothing
//! gets delivered. What can't get better by itself ends the pipeline with its error.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture,
};
use actix_rt::ArbiterHandle;
use backon::{BackoffBuilder, ExponentialBuilder};
use slog::{Logger, error, info, o, warn};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    checkpointer::{BeginGeneration, Checkpointer, Flush},
    decoder::{Decoder, EventDecoder},
    deliveries::Deliveries,
    lane::{LaneContext, Lanes},
    router::{DeadLetters, Router, TopicNames},
    wal_reader::{ReadFrom, WalReader},
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    checkpoint::CheckpointStore,
    config::{Config, RefusalPolicy},
    faults::{FaultSite, Faults},
    messages::{
        ActorExited, ActorKind, ByteWindow, ChainFailed, Drain, ExitGuard, Finish, LaneFailed,
        LaneLost, LaneOpened, OpenLane, Shutdown, Stop, Streaming,
    },
    outbox::OutboxReader,
    startup::{Start, Startup},
    status::{PipelineState, Status},
};

/// A save that is under way when a generation ends is waited for so long, because
/// what it saves need not be sent again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

const UNFINISHED: &str = "nothing is lost: what was in flight is sent again at the next start";

/// How a pipeline ended; none while it lives.
pub(crate) type Outcome = Option<Result<()>>;

/// What a pipeline is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub config: Arc<Config>,
    pub startup: Arc<Startup>,
    pub store: Arc<dyn CheckpointStore>,
    pub lanes: Arc<dyn Lanes>,
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
    generation: u64,
    chain: Option<Chain>,
    draining: bool,
    /// Generations in a row that delivered nothing.
    failures: u32,
    /// When the pipeline was first asked to start; none once it ran.
    starting_since: Option<Instant>,
    running: watch::Sender<bool>,
    outcome: watch::Sender<Outcome>,
}

/// The actors of the present generation.
struct Chain {
    reader: Addr<WalReader>,
    decoder: Addr<Decoder>,
    router: Addr<Router>,
    launched: Instant,
    from: Lsn,
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
            Supervisor {
                plan,
                reader_arbiter,
                checkpointer,
                generation: 0,
                chain: None,
                draining: false,
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
            return self.end(Ok(()), ctx);
        }
        self.generation += 1;
        let first = self.starting_since.is_some();
        let limit = self.attempt_limit();
        let (plan, checkpointer) = (self.plan.clone(), self.checkpointer.clone());
        let preparing = async move {
            settle(&checkpointer).await;
            if first {
                plan.lanes.check(limit).await?;
            }
            plan.startup.prepare(&*plan.store, limit, &plan.log).await
        };
        ctx.spawn(preparing.into_actor(self).map(move |result, this, ctx| match result {
            _ if this.draining => this.end(Ok(()), ctx),
            Ok(start) => this.launch_chain(start, ctx),
            Err(error) => {
                if error.kind() != ErrorKind::KafkaUnavailable {
                    this.plan.status.replication_failed();
                }
                this.retry(error, ctx);
            }
        }));
    }

    fn launch_chain(&mut self, start: Start, ctx: &mut Context<Self>) {
        let (plan, generation) = (&self.plan, self.generation);
        let config = &plan.config;
        let address = ctx.address();
        let from = start.from.lsn;
        let log = |actor: ActorKind| {
            plan.log.new(o!("actor" => actor.to_string(), "generation" => generation))
        };
        let exit = |actor| ExitGuard { actor, generation, to: address.clone().recipient() };

        let router = Router {
            topics: TopicNames::new(config.topic_prefix(), config.kafka.topics.max),
            dead_letters: DeadLetters {
                policy: config.dead_letter.policy,
                topic: config.dead_letter_topic().into(),
            },
            deliveries: Deliveries::new(config.dead_letter.policy == RefusalPolicy::Block),
            lanes: address.clone().recipient(),
            done: self.checkpointer.clone().recipient(),
            failed: address.clone().recipient(),
            status: Arc::clone(&plan.status),
            faults: plan.faults.clone(),
            log: log(ActorKind::Router),
            exit: exit(ActorKind::Router),
        }
        .start();
        let decoder = Decoder {
            decoder: match config.outbox_tables() {
                tables if tables.is_empty() => {
                    EventDecoder::new(&config.postgres.message_prefix, from)
                }
                tables => {
                    let tables = OutboxReader::new(tables, log(ActorKind::Decoder));
                    EventDecoder::of_tables(tables, from)
                }
            },
            router: router.clone().recipient(),
            done: self.checkpointer.clone().recipient(),
            failed: address.clone().recipient(),
            faults: plan.faults.clone(),
            log: log(ActorKind::Decoder),
            exit: exit(ActorKind::Decoder),
        }
        .start();
        let reader = WalReader::new(
            ReadFrom {
                info: plan.startup.info.clone(),
                connect_timeout: config.postgres.connect_timeout,
                slot: config.postgres.slot.clone(),
                publication: config.postgres.publication.clone(),
                start: from,
                system_id: start.from.system_id,
                status_interval: start.status_interval,
                batch_bytes: config.batch_bytes(),
            },
            plan.window.clone(),
            decoder.clone().recipient(),
            self.checkpointer.clone().recipient(),
            (address.clone().recipient(), address.clone().recipient()),
            Arc::clone(&plan.status),
            plan.faults.clone(),
            log(ActorKind::WalReader),
            exit(ActorKind::WalReader),
        );
        let reader = WalReader::start_in_arbiter(&self.reader_arbiter, move |_| reader);

        let confirm = reader.clone().recipient();
        self.checkpointer.do_send(BeginGeneration { generation, from: start.from, confirm });
        plan.status.set_generation(generation);
        self.chain = Some(Chain { reader, decoder, router, launched: Instant::now(), from });
    }

    /// The chain is broken: stop what is left of it.
    fn chain_failed(&mut self, actor: ActorKind, error: Error, ctx: &mut Context<Self>) {
        let Some(chain) = self.chain.take() else { return };
        error!(self.plan.log, "generation failed"; "generation" => self.generation,
            "failed" => %actor, "error" => %error);
        chain.stop();
        self.plan.status.actor_failed(actor.name());
        if actor == ActorKind::WalReader {
            self.plan.status.replication_failed();
        }
        let delivered = self.plan.status.snapshot().saved_lsn > chain.from;
        if delivered || chain.launched.elapsed() > self.plan.config.pipeline.restart_backoff_max {
            self.failures = 0;
        }
        self.retry(error, ctx);
    }

    /// Starts again after a pause, unless that can't help.
    fn retry(&mut self, error: Error, ctx: &mut Context<Self>) {
        let limit = self.plan.config.pipeline.startup_timeout;
        // A slot in use is no fault: this instance stands by for the other one.
        let too_late = error.kind() != ErrorKind::SlotInUse
            && self
                .starting_since
                .is_some_and(|since| !limit.is_zero() && since.elapsed() >= limit);
        if !error.is_transient() || too_late || self.draining {
            return self.end(if self.draining { Ok(()) } else { Err(error) }, ctx);
        }
        let pause = self.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        warn!(self.plan.log, "starting again after a pause";
            "pause_ms" => pause.as_millis() as u64, "failures" => self.failures, "error" => %error);
        let text = error.to_string();
        self.plan.status.set_state(match error.kind() {
            ErrorKind::SlotInUse => PipelineState::StandingBy { error: text },
            _ => PipelineState::Retrying { error: text },
        });
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
        let OpenLane { generation, lane, topic, epoch, .. } = request;
        let to = ctx.address().recipient();
        let context = LaneContext {
            log: self.plan.log.new(o!("actor" => "topic_producer", "topic" => topic.to_string())),
            topic,
            exit: ExitGuard { actor: ActorKind::Lane { lane, epoch }, generation, to },
        };
        let lanes = Arc::clone(&self.plan.lanes);
        let opening = async move { lanes.open(context).await };
        ctx.spawn(opening.into_actor(self).map(move |result, this, _| {
            let Some(chain) = this.chain.as_ref().filter(|_| this.generation == generation) else {
                return;
            };
            match result {
                Ok(recipient) => chain.router.do_send(LaneOpened { lane, epoch, recipient }),
                Err(error) => chain.router.do_send(LaneFailed { lane, epoch, error }),
            }
        }));
    }

    fn end(&mut self, result: Result<()>, ctx: &mut Context<Self>) {
        if let Some(chain) = self.chain.take() {
            chain.stop();
        }
        // Before whoever waits for the outcome asks.
        self.plan.status.set_state(PipelineState::Stopped);
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
        self.plan.status.set_state(PipelineState::Stopped);
    }
}

impl Chain {
    fn stop(&self) {
        self.reader.do_send(Stop);
        self.decoder.do_send(Stop);
        self.router.do_send(Stop);
    }
}

fn spawn_checkpointer(plan: &Plan, ctx: &mut Context<Supervisor>) -> Addr<Checkpointer> {
    let actor = ActorKind::Checkpointer;
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

/// Lets the checkpointer save what is safe, within reason.
async fn settle(checkpointer: &Addr<Checkpointer>) {
    let (reply, saved) = oneshot::channel();
    checkpointer.do_send(Flush { batches: None, reply });
    // Too late only means that more is sent again.
    let _ = timeout(SETTLE_TIMEOUT, saved).await;
}

/// Stops reading, waits for what is in flight, confirms the last position.
async fn drain(
    reader: Addr<WalReader>,
    checkpointer: Addr<Checkpointer>,
    limit: Duration,
    log: &Logger,
) -> Result<()> {
    let (reply, saved) = oneshot::channel();
    let finishing = async {
        let batches = reader.send(Drain).await.unwrap_or(0);
        checkpointer.do_send(Flush { batches: Some(batches), reply });
        saved.await.ok()
    };
    let lsn = match timeout(limit, finishing).await {
        Ok(Some(lsn)) => lsn,
        Ok(None) => {
            let what = "the checkpointer ended while the last position was to be saved";
            return Err(Error::new(ErrorKind::ActorFailed, what).remedy(UNFINISHED));
        }
        Err(_) => {
            settle(&checkpointer).await;
            let what =
                format!("events were still in flight {limit:?} after the stop was asked for");
            let remedy = format!("{UNFINISHED}; pipeline.drain_timeout sets the limit");
            return Err(Error::new(ErrorKind::DrainTimeout, what).remedy(remedy));
        }
    };
    match timeout(SETTLE_TIMEOUT, reader.send(Finish(lsn))).await {
        Ok(Ok(Ok(()))) => info!(log, "drained"; "lsn" => %lsn),
        // Saved is what counts; the server learns the position at the next start.
        _ => warn!(log, "the last position is saved, but was not confirmed"; "lsn" => %lsn),
    }
    Ok(())
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
        if failed.generation == self.generation && !self.draining {
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
        } else if generation != self.generation {
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
        info!(self.plan.log, "relay running"; "generation" => self.generation, "from" => %chain.from);
        self.plan.status.set_state(if self.draining {
            PipelineState::Draining
        } else {
            PipelineState::Running
        });
        self.starting_since = None;
        self.running.send_replace(true);
    }
}

impl Handler<OpenLane> for Supervisor {
    type Result = ();

    fn handle(&mut self, request: OpenLane, ctx: &mut Self::Context) {
        if request.generation != self.generation {
            return;
        }
        match &request.error {
            Some(error) if !error.is_transient() => self.end(Err(error.clone()), ctx),
            None => self.open_lane(request, ctx),
            Some(_) => {
                let pause = self.pause(request.failures);
                ctx.run_later(pause, move |this, ctx| {
                    if request.generation == this.generation {
                        this.open_lane(request, ctx);
                    }
                });
            }
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
        let (reader, checkpointer) = (chain.reader.clone(), self.checkpointer.clone());
        let (limit, log) = (self.plan.config.pipeline.drain_timeout, self.plan.log.clone());
        let draining = async move { drain(reader, checkpointer, limit, &log).await };
        ctx.spawn(draining.into_actor(self).map(|result, this, ctx| this.end(result, ctx)));
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(Ok(()), ctx);
    }
}
