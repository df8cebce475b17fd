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

mod chain;
mod draining;
mod ending;
mod lanes;
mod resources;
mod restarts;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Instant,
};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture};
use factlib_postgres::WaitsFor;
use slog::{error, info, warn};
use tokio::sync::watch;

pub(crate) use self::resources::{PipelineResources, Threads};
use self::{
    chain::{Chain, Launch},
    draining::{ChainProgress, UNFINISHED, chain_progress, close, settle},
    lanes::Pause,
    restarts::Restarts,
};
use super::{
    checkpointer::Checkpointer,
    outbox_tables::{PublicationWatch, RowSweeper},
    wal_reader::WalWatch,
};
use crate::{
    Error, ErrorKind, Result,
    messages::{
        ActorExited, ActorKind, BeginGeneration, ChainFailed, CheckPublication, HoldSaves,
        LaneLost, Streaming,
    },
    startup::{SentUpTo, Standby, Start},
    status::{ActorState, BlockedBy, PipelineState},
};

/// The end of a pipeline; none while it runs.
pub(crate) type PipelineOutcome = Option<Result<()>>;

/// The chain of the next generation.
enum NextChain {
    /// The present one goes on from here.
    Continues(ChainProgress),
    /// A new one; these aggregates are held.
    New { held: Vec<u64> },
}

impl NextChain {
    fn held(self) -> Vec<u64> {
        match self {
            NextChain::Continues(_) => Vec::new(),
            NextChain::New { held } => held,
        }
    }
}

/// The root of the pipeline's actors.
pub(crate) struct Supervisor {
    resources: PipelineResources,
    threads: Threads,
    checkpointer: Addr<Checkpointer>,
    wal_watch: Addr<WalWatch>,
    publication_watch: Addr<PublicationWatch>,
    /// None without `retention.after`.
    row_sweeper: Option<Addr<RowSweeper>>,
    generation: u64,
    /// The one that was read last.
    cluster: Option<u64>,
    chain: Option<Chain>,
    draining: bool,
    /// Topics that are held back.
    paused: HashSet<Arc<str>>,
    restarts: Restarts,
    /// Lanes and generations that wait before they are tried again, by number.
    pauses: BTreeMap<u64, Pause>,
    last_pause: u64,
    /// Brokers are asked whether they are back.
    awaits_brokers: bool,
    running: watch::Sender<bool>,
    outcome: watch::Sender<PipelineOutcome>,
}

impl Supervisor {
    /// Starts it on the present arbiter. `running` turns true with the first
    /// generation; `outcome` is set once, at the end.
    pub fn launch(
        resources: PipelineResources,
        threads: Threads,
        running: watch::Sender<bool>,
        outcome: watch::Sender<PipelineOutcome>,
    ) -> Addr<Self> {
        let (read, written) = resources.watch_sessions();
        Supervisor::create(|ctx| Supervisor {
            checkpointer: resources.checkpointer(ctx.address(), &threads.saving),
            wal_watch: resources.wal_watch(read, &threads.saving),
            publication_watch: resources.publication_watch(written, &threads.saving),
            row_sweeper: resources.row_sweeper(&threads.saving),
            restarts: Restarts::new(Arc::clone(&resources.config)),
            paused: resources.paused.clone(),
            resources,
            threads,
            generation: 0,
            cluster: None,
            chain: None,
            draining: false,
            pauses: BTreeMap::new(),
            last_pause: 0,
            awaits_brokers: false,
            running,
            outcome,
        })
    }

    /// Connects, checks the positions, and launches the next generation.
    fn start_generation(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return self.end_if_empty(ctx);
        }
        self.generation += 1;
        let (first, limit) = (self.restarts.is_first(), self.restarts.attempt_limit());
        let (resources, checkpointer) = (self.resources.clone(), self.checkpointer.clone());
        let cluster = self.cluster;
        // Taken: its end is no failure.
        let gate = self.chain.as_mut().and_then(|chain| chain.gate.take());
        let chain = self.chain.as_ref().map(|chain| (chain.decoder.clone(), chain.from.clone()));
        let preparing = async move {
            close(gate).await;
            let progress = match &chain {
                Some((decoder, _)) => chain_progress(decoder, &checkpointer).await,
                None => {
                    settle(&checkpointer).await;
                    None
                }
            };
            if first {
                resources.lanes.check(limit).await?;
                resources.prepare_topics().await?;
            }
            let tell = |waits_for: &WaitsFor| resources.waits(waits_for);
            let on_standby = |error: &Error| {
                resources.stands_by(error);
                resources.is_ready.send_replace(true);
            };
            let standby = Standby { may_take: &resources.may_take_slot, on_standby: &on_standby };
            // What a living chain has in flight was counted above.
            let standby = chain.is_none().then_some(standby);
            let (store, log) = (&*resources.store, &resources.log);
            let start =
                resources.startup.prepare(store, cluster, limit, &tell, standby, log).await?;
            if let (Some((_, from)), Some(progress)) = (&chain, &progress)
                && let Some(last_event) = progress.last_event
            {
                let sent = SentUpTo { from, last_event };
                resources.startup.refuse_phantoms(sent, &start, store, limit, log).await?;
            }
            // What has gone through the chain says more than what is in Kafka.
            let goes_on = |progress: &ChainProgress| {
                chain.is_some_and(|(_, from)| progress.is_of(&from, &start))
            };
            if let Some(progress) = progress.filter(goes_on) {
                return Ok((start, NextChain::Continues(progress)));
            }
            let start = resources.with_kafka(start, first, limit).await?;
            if let Some(watch) = &resources.partition_watch {
                watch.read().await;
            }
            // Last: nobody else holds events of this slot any more.
            let held = match &resources.held {
                Some(held) => held.load().await?,
                None => Vec::new(),
            };
            Ok((start, NextChain::New { held }))
        };
        ctx.spawn(preparing.into_actor(self).map(move |result, this, ctx| {
            let state = this.resources.status.snapshot().state;
            if matches!(state, PipelineState::StandingBy { .. }) {
                this.restarts.stood_by();
            }
            match result {
                _ if this.draining => this.end_if_empty(ctx),
                Ok((start, next)) => this.begin(start, next, ctx),
                Err(error) => this.start_failed(error, ctx),
            }
        }));
    }

    fn start_failed(&mut self, error: Error, ctx: &mut Context<Self>) {
        use ErrorKind::{KafkaUnavailable, SlotInUse, TopicUnavailable};
        // To stand by is no failure, and Kafka's are counted elsewhere.
        if !matches!(error.kind(), KafkaUnavailable | TopicUnavailable | SlotInUse) {
            self.resources.status.replication_failed();
        }
        if error.kind() == SlotInUse
            && let Some(chain) = self.chain.take()
        {
            // The other instance sends from now on what was in flight here.
            self.stop_chain(&chain);
        }
        self.retry(error, ctx);
    }

    /// Begins the next generation: a reader and, where none lives or can go on, the chain.
    fn begin(&mut self, start: Start, next: NextChain, ctx: &mut Context<Self>) {
        let lost = self.chain.is_none() && matches!(next, NextChain::Continues(_));
        if lost && self.resources.held.is_some() {
            // It failed meanwhile, and a new one has to know which aggregates are held.
            return self.start_generation(ctx);
        }
        let (old, generation) = (self.chain.take(), self.generation);
        let launch = Launch {
            resources: &self.resources,
            generation,
            start: &start,
            supervisor: ctx.address(),
            checkpointer: &self.checkpointer,
            publication_watch: &self.publication_watch,
        };
        let (mut chain, first_batch) = match (old, next) {
            (Some(old), NextChain::Continues(progress)) => (old, progress.batches),
            (old, next) => {
                if let Some(old) = old {
                    warn!(
                        self.resources.log,
                        "reading in-flight batches again: the server has another history"
                    );
                    old.stop();
                }
                match launch.chain(&self.paused, next.held()) {
                    Ok(chain) => (chain, 0),
                    Err(error) => return self.end(Err(error), ctx),
                }
            }
        };
        let continues = chain.first < generation;
        let gate = launch.gate(&chain.decoder);
        let reader = launch.reader(first_batch, gate.clone(), chain.decoder.clone(), &self.threads);
        let (from, confirm) = (start.from.clone(), reader.clone().recipient());
        self.checkpointer.do_send(BeginGeneration { generation, from, continues, confirm });
        self.resources.status.set_generation(generation, continues);
        self.resources.status.wal_ends_at(start.wal_end);
        chain.reader = Some(reader);
        chain.gate = gate;
        chain.launched = Instant::now();
        self.cluster = Some(start.from.system_id);
        chain.from = start.from;
        self.chain = Some(chain);
    }

    /// The chain is broken, or only the reader's connection: stop what can't go on.
    fn chain_failed(&mut self, actor: ActorKind, error: Error, ctx: &mut Context<Self>) {
        let Some(mut chain) = self.chain.take() else { return };
        error!(self.resources.log, "generation failed"; "generation" => self.generation,
            "failed" => %actor, "error" => %error);
        self.resources.status.actor_failed(actor.name(), &error);
        let delivered = self.resources.status.snapshot().saved_lsn > chain.from.lsn;
        self.restarts.ended(delivered, chain.launched.elapsed());
        let starts_already = chain.reader.is_none();
        let connection_lost =
            actor == ActorKind::WalReader && error.kind() != ErrorKind::ActorFailed;
        if actor == ActorKind::WalReader && error.kind() != ErrorKind::SlotInUse {
            self.resources.status.replication_failed();
        }
        if connection_lost && error.is_transient() {
            // What was read is delivered while the next reader connects.
            chain.reader = None;
            self.chain = Some(chain);
            self.checkpointer.do_send(HoldSaves);
        } else {
            self.stop_chain(&chain);
        }
        if !starts_already || !error.is_transient() {
            self.retry(error, ctx);
        }
    }

    fn stop_chain(&self, chain: &Chain) {
        chain.stop();
        for actor in [ActorKind::WalReader, ActorKind::Decoder, ActorKind::Router] {
            self.resources.status.actor_is(actor.name(), ActorState::Starting);
        }
    }

    /// True if an actor of this generation belongs to the present chain.
    fn is_present(&self, actor: ActorKind, generation: u64) -> bool {
        self.chain.as_ref().is_some_and(|chain| match actor {
            ActorKind::WalReader => generation == self.generation && chain.reader.is_some(),
            ActorKind::CommitGate => generation == self.generation && chain.gate.is_some(),
            // Its failures carry the generation in which it began what failed.
            _ => generation >= chain.first,
        })
    }

    /// Starts again after a pause, unless that can't help.
    fn retry(&mut self, error: Error, ctx: &mut Context<Self>) {
        let Some(pause) = self.restarts.after(&error) else { return self.give_up(error, ctx) };
        let blocked_by = match error.kind() {
            ErrorKind::PostgresUnavailable => Some(BlockedBy::Postgres),
            ErrorKind::KafkaUnavailable | ErrorKind::TopicUnavailable => Some(BlockedBy::Kafka),
            ErrorKind::CheckpointUnavailable => Some(BlockedBy::Store),
            _ => None,
        };
        if error.kind() == ErrorKind::SlotInUse {
            self.resources.stands_by(&error);
        } else {
            self.resources.status.actor_waits(ActorKind::WalReader.name(), blocked_by);
            warn!(self.resources.log, "starting again after a pause"; "error" => %error,
                "pause_ms" => pause.as_millis() as u64, "failures" => self.restarts.failures());
            self.resources.status.set_state(PipelineState::Retrying { error: error.to_string() });
        }
        if matches!(error.kind(), ErrorKind::KafkaUnavailable | ErrorKind::TransactionAborted) {
            return self.pause_generation(pause, ctx);
        }
        ctx.run_later(pause, |this, ctx| this.start_generation(ctx));
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for topic in &self.paused {
            self.resources.status.pause(topic, true);
        }
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
            self.checkpointer = self.resources.checkpointer(ctx.address(), &self.threads.saving);
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
        info!(self.resources.log, "relay running"; "generation" => self.generation, "from" => %chain.from.lsn);
        self.resources.status.set_state(if self.draining {
            PipelineState::Draining
        } else {
            PipelineState::Running
        });
        self.resources.status.actor_is(ActorKind::WalReader.name(), ActorState::Running);
        self.publication_watch.do_send(CheckPublication);
        self.restarts.runs();
        self.running.send_replace(true);
    }
}
