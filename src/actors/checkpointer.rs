//! Checkpointer: saves the position, then lets it be confirmed.
//!
//! # Life
//! One for the pipeline's life; each generation resets its window. At most one
//! save is under way at a time, so positions reach the store in rising order.
//!
//! # Backpressure
//! Positions coalesce: while a save runs, or the interval has not passed, only
//! the newest safe position is kept.
//!
//! # Failure
//! A store that can't be reached is tried again for ever; events flow on, and
//! nothing is confirmed. A store that holds what can't be right ends the pipeline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle,
    WrapFuture,
};
use slog::{Logger, debug, error, info, warn};
use tokio::sync::oneshot;

use crate::{
    Lsn, Result,
    checkpoint::{AckWindow, Checkpoint, CheckpointStore},
    config::CheckpointConfig,
    faults::{FaultSite, Faults},
    messages::{ActorKind, BatchDone, ChainFailed, ConfirmLsn, ExitGuard},
    status::Status,
};

/// First pause after a save that failed; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A new generation: acknowledgements of older ones are ignored from here on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginGeneration {
    pub generation: u64,
    /// Where it starts: slot, system and the saved position.
    pub from: Checkpoint,
    pub confirm: Recipient<ConfirmLsn>,
}

/// Save what is safe at once; with `batches`, after so many batches of this
/// generation are done. The answer is the position that is saved.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush {
    pub batches: Option<u64>,
    pub reply: oneshot::Sender<Lsn>,
}

pub(crate) struct Checkpointer {
    store: Arc<dyn CheckpointStore>,
    config: CheckpointConfig,
    generation: Option<Generation>,
    saving: bool,
    /// When the last save began, and how many failed in a row since one succeeded.
    last_save: Option<Instant>,
    failures: u32,
    /// Events, not only positions, are waiting to be saved.
    events_waiting: bool,
    timer: Option<(Instant, SpawnHandle)>,
    flush: Option<Flush>,
    failed: Recipient<ChainFailed>,
    status: Arc<Status>,
    faults: Faults,
    log: Logger,
    _exit: ExitGuard,
}

struct Generation {
    number: u64,
    window: AckWindow,
    /// The newest position that is in the store.
    saved: Checkpoint,
    confirm: Recipient<ConfirmLsn>,
}

impl Checkpointer {
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        config: CheckpointConfig,
        failed: Recipient<ChainFailed>,
        status: Arc<Status>,
        faults: Faults,
        log: Logger,
        exit: ExitGuard,
    ) -> Self {
        Checkpointer {
            store,
            config,
            generation: None,
            saving: false,
            last_save: None,
            failures: 0,
            events_waiting: false,
            timer: None,
            flush: None,
            failed,
            status,
            faults,
            log,
            _exit: exit,
        }
    }

    /// Saves now, or sets the timer for when it may, or has nothing to do.
    fn schedule(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = &self.generation else { return self.answer_flush() };
        if self.saving {
            return;
        }
        if generation.window.safe() <= generation.saved.lsn {
            return self.answer_flush();
        }
        let now = Instant::now();
        let due = self.last_save.map_or(now, |last| last + self.pause());
        if due <= now {
            self.save(ctx);
        } else if self.timer.as_ref().is_none_or(|(at, _)| due < *at) {
            if let Some((_, old)) = self.timer.take() {
                ctx.cancel_future(old);
            }
            let handle = ctx.run_later(due - now, |this, ctx| {
                this.timer = None;
                this.schedule(ctx);
            });
            self.timer = Some((due, handle));
        }
    }

    fn pause(&self) -> Duration {
        if self.failures > 0 {
            return RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        }
        match (&self.flush, self.events_waiting) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => self.config.interval,
            // A save in the database moves the WAL's end itself; unhurried, that is no traffic.
            (None, false) => self.config.idle_interval,
        }
    }

    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = &self.generation else { return };
        let number = generation.number;
        let checkpoint = Checkpoint { lsn: generation.window.safe(), ..generation.saved.clone() };
        self.faults.reach(FaultSite::BeforeSave);
        self.saving = true;
        self.events_waiting = false;
        self.last_save = Some(Instant::now());
        let store = Arc::clone(&self.store);
        let saving = async move {
            let result = store.save(&checkpoint).await;
            (checkpoint, result)
        };
        ctx.spawn(saving.into_actor(self).map(move |(checkpoint, result), this, ctx| {
            this.saving = false;
            this.saved(number, checkpoint, result);
            this.schedule(ctx);
        }));
    }

    fn saved(&mut self, number: u64, checkpoint: Checkpoint, result: Result<()>) {
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    info!(self.log, "checkpoint store is back"; "failures" => self.failures);
                }
                self.failures = 0;
                self.faults.reach(FaultSite::AfterSave);
                let lsn = checkpoint.lsn;
                self.status.saved(lsn);
                if let Some(generation) = &mut self.generation
                    && lsn > generation.saved.lsn
                {
                    generation.saved = checkpoint;
                    generation.confirm.do_send(ConfirmLsn(lsn));
                }
            }
            Err(error) if error.is_transient() => {
                self.failures += 1;
                warn!(self.log, "cannot save the position, trying again";
                    "store" => self.store.describe(), "lsn" => %checkpoint.lsn,
                    "failures" => self.failures, "error" => %error);
            }
            Err(error) => {
                self.failures += 1;
                let actor = ActorKind::Checkpointer;
                self.failed.do_send(ChainFailed { actor, generation: number, error });
            }
        }
    }

    /// Answers a flush whose batches are done and whose position is saved.
    fn answer_flush(&mut self) {
        let Some(flush) = self.flush.take_if(|flush| match (&self.generation, flush.batches) {
            (Some(generation), Some(batches)) => generation.window.next_seq() >= batches,
            (None, _) | (_, None) => true,
        }) else {
            return;
        };
        let lsn = self.generation.as_ref().map_or(Lsn::ZERO, |generation| generation.saved.lsn);
        // Whoever asked may have stopped waiting.
        let _ = flush.reply.send(lsn);
    }
}

impl Actor for Checkpointer {
    type Context = Context<Self>;
}

impl Handler<BeginGeneration> for Checkpointer {
    type Result = ();

    fn handle(&mut self, begin: BeginGeneration, _: &mut Self::Context) {
        let BeginGeneration { generation: number, from, confirm } = begin;
        debug!(self.log, "generation begins"; "generation" => number, "lsn" => %from.lsn);
        self.status.saved(from.lsn);
        self.events_waiting = false;
        self.generation =
            Some(Generation { number, window: AckWindow::new(from.lsn), saved: from, confirm });
    }
}

impl Handler<BatchDone> for Checkpointer {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Checkpointer);
        let current = self.generation.as_mut().filter(|g| g.number == done.id.generation);
        let Some(generation) = current else { return };
        self.events_waiting |= done.events > 0;
        if let Err(error) = generation.window.done(done.id.seq, done.commit_end_lsn) {
            error!(self.log, "a batch was acknowledged twice"; "batch" => ?done.id, "error" => %error);
        }
        self.schedule(ctx);
    }
}

impl Handler<Flush> for Checkpointer {
    type Result = ();

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) {
        self.flush = Some(flush);
        self.schedule(ctx);
    }
}
