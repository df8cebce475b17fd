//! Checkpointer: saves the position, then lets it be confirmed.
//!
//! # Life
//! One for the pipeline's life, on a thread that does little else. Each chain resets its window; a
//! reader that replaces another in the same chain keeps it. At most one save is under way at a
//! time, so positions reach the store in rising order.
//!
//! # Backpressure
//! Positions coalesce: while a save runs, only the newest safe position is kept. A save is due
//! when the interval has passed, or a whole window has been acknowledged since the last one.
//!
//! # Failure
//! A store that can't be reached is tried again for ever; events flow on, and
//! nothing is confirmed. A store that holds what can't be right ends the pipeline.

mod save_schedule;

use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient,
    SpawnHandle, WrapFuture,
};
use slog::{Logger, debug, error, info, warn};
use tokio::time::Instant;

pub(crate) use self::save_schedule::SaveSchedule;
use crate::{
    Lsn, Result,
    checkpoint::{AckWindow, Checkpoint, CheckpointStore},
    faults::{FaultSite, Faults},
    messages::{
        ActorKind, BatchDone, BeginGeneration, ChainFailed, ConfirmLsn, ExitGuard, Flush,
        GetSavedProgress, HoldSaves, SavedProgress, Stop,
    },
    status::Status,
};

pub(crate) struct Checkpointer {
    store: Arc<dyn CheckpointStore>,
    generation: Option<Generation>,
    saving: bool,
    schedule: SaveSchedule,
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
    /// The generation that its chain began with.
    first: u64,
    window: AckWindow,
    /// The newest position that is in the store.
    saved: Checkpoint,
    /// None while there is no reader.
    confirm: Option<Recipient<ConfirmLsn>>,
}

impl Checkpointer {
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        schedule: SaveSchedule,
        failed: Recipient<ChainFailed>,
        status: Arc<Status>,
        faults: Faults,
        log: Logger,
        exit: ExitGuard,
    ) -> Self {
        Checkpointer {
            store,
            generation: None,
            saving: false,
            schedule,
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
        if self.saving || generation.confirm.is_none() && self.flush.is_none() {
            return;
        }
        let unsaved = generation.window.safe().distance_from(generation.saved.lsn);
        if unsaved == 0 {
            return self.answer_flush();
        }
        let now = Instant::now();
        let due = self.schedule.at(unsaved, self.flush.is_some(), now);
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

    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = &self.generation else { return };
        let number = generation.number;
        let checkpoint = Checkpoint { lsn: generation.window.safe(), ..generation.saved.clone() };
        self.faults.reach(FaultSite::BeforeSave);
        self.saving = true;
        self.schedule.begins(Instant::now());
        let store = Arc::clone(&self.store);
        let saving = async move {
            let result = store.save(&checkpoint).await;
            (checkpoint, result)
        };
        ctx.spawn(saving.into_actor(self).map(move |(checkpoint, result), this, ctx| {
            this.saving = false;
            this.saved(number, checkpoint, result);
            this.rest_while_held();
            this.schedule(ctx);
        }));
    }

    fn saved(&mut self, number: u64, checkpoint: Checkpoint, result: Result<()>) {
        match result {
            Ok(()) => {
                let failures = std::mem::take(&mut self.schedule.failures);
                if failures > 0 {
                    info!(self.log, "checkpoint store is back"; "failures" => failures);
                }
                self.status.actor_waits(ActorKind::Checkpointer.name(), None);
                self.faults.reach(FaultSite::AfterSave);
                let lsn = checkpoint.lsn;
                self.status.saved(lsn);
                // Of a cluster that was left meanwhile, it says nothing.
                if let Some(generation) = &mut self.generation
                    && generation.saved.is_of_the_same_history(&checkpoint)
                    && lsn > generation.saved.lsn
                {
                    generation.saved = checkpoint;
                    if let Some(confirm) = &generation.confirm {
                        confirm.do_send(ConfirmLsn(lsn));
                    }
                }
            }
            Err(error) if error.is_transient() => {
                self.schedule.failures += 1;
                self.status.save_failed(ActorKind::Checkpointer.name(), &error);
                warn!(self.log, "cannot save the position, trying again";
                    "store" => self.store.describe(), "lsn" => %checkpoint.lsn,
                    "failures" => self.schedule.failures, "error" => %error);
            }
            Err(error) => {
                self.schedule.failures += 1;
                let actor = ActorKind::Checkpointer;
                self.failed.do_send(ChainFailed { actor, generation: number, error });
            }
        }
    }

    /// While there is no reader, nothing is saved, and so no store is waited for.
    fn rest_while_held(&self) {
        let held = self.generation.as_ref().is_some_and(|generation| generation.confirm.is_none());
        if held && self.flush.is_none() && !self.saving {
            self.status.actor_waits(ActorKind::Checkpointer.name(), None);
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

    fn handle(&mut self, begin: BeginGeneration, ctx: &mut Self::Context) {
        let BeginGeneration { generation: number, from, continues, confirm } = begin;
        debug!(self.log, "generation begins"; "generation" => number, "lsn" => %from.lsn,
            "continues" => continues);
        self.status.starts_at(from.lsn);
        match self.generation.as_mut().filter(|_| continues) {
            Some(generation) => {
                generation.number = number;
                // What was saved while nobody was there to confirm it.
                if generation.saved.lsn > from.lsn {
                    confirm.do_send(ConfirmLsn(generation.saved.lsn));
                } else {
                    generation.saved = from;
                }
                generation.confirm = Some(confirm);
            }
            None => {
                self.schedule.events_waiting = false;
                let (first, confirm) = (number, Some(confirm));
                let window = AckWindow::new(from.lsn);
                self.generation = Some(Generation { number, first, window, saved: from, confirm });
            }
        }
        self.schedule(ctx);
    }
}

impl Handler<HoldSaves> for Checkpointer {
    type Result = ();

    fn handle(&mut self, _: HoldSaves, _: &mut Self::Context) {
        if let Some(generation) = &mut self.generation {
            generation.confirm = None;
        }
        self.rest_while_held();
    }
}

impl Handler<GetSavedProgress> for Checkpointer {
    type Result = MessageResult<GetSavedProgress>;

    fn handle(&mut self, _: GetSavedProgress, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.generation.as_ref().map_or(SavedProgress::default(), |generation| {
            SavedProgress { batches: generation.window.known(), saved: generation.saved.lsn }
        }))
    }
}

impl Handler<BatchDone> for Checkpointer {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Checkpointer);
        let current = self.generation.as_mut().filter(|g| done.id.generation >= g.first);
        let Some(generation) = current else { return };
        self.schedule.events_waiting |= done.events > 0;
        if let Err(error) = generation.window.done(done.id.seq, done.commit_end_lsn) {
            error!(self.log, "a batch was acknowledged twice"; "batch" => ?done.id, "error" => %error);
        }
        self.status.safe(generation.window.safe());
        self.schedule(ctx);
    }
}

impl Handler<Stop> for Checkpointer {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Flush> for Checkpointer {
    type Result = ();

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) {
        self.flush = Some(flush);
        self.schedule(ctx);
    }
}

#[cfg(test)]
mod tests;
