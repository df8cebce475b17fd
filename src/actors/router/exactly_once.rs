//! The router's transactions with exactly-once: batches are held back until the open Kafka
//! transaction may take them, and the [`Coordinator`] commits it.

use std::{collections::HashSet, sync::Arc, time::Instant};

use actix::{Addr, AsyncContext, Context, Message, SpawnHandle};

use super::{
    Router,
    coordinator::{CommitTransaction, Coordinator, TransactionFailed},
    transaction_batcher::{NextStep, TransactionBatcher, TransactionLimits},
};
use crate::{
    Error, ErrorKind, Lsn,
    messages::{BatchDone, EventBatch},
};

/// It may be time to commit the open transaction.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TransactionDue;

/// The transactions of one router, one after the other.
pub(crate) struct ExactlyOnce {
    batcher: TransactionBatcher,
    coordinator: Addr<Coordinator>,
    /// Topics that are held back; one transaction holds all of them.
    paused: HashSet<Arc<str>>,
    timer: Option<(Instant, SpawnHandle)>,
    undone: Undone,
}

/// A transaction that has an event behind a refused one of its aggregate can't be committed.
enum Undone {
    No,
    /// It is aborted when all that was sent has been answered.
    Soon(Error),
    Aborted,
}

impl ExactlyOnce {
    /// Begins at `from`, where reading starts.
    pub fn new(
        limits: TransactionLimits,
        from: Lsn,
        paused: HashSet<Arc<str>>,
        coordinator: Addr<Coordinator>,
    ) -> Self {
        let batcher = TransactionBatcher::new(limits, from, !paused.is_empty());
        ExactlyOnce { batcher, coordinator, paused, timer: None, undone: Undone::No }
    }

    pub(super) fn push(&mut self, batch: EventBatch) {
        self.batcher.push(batch);
    }

    pub(super) fn next_batch(&mut self) -> Option<EventBatch> {
        if self.is_undone() {
            return None;
        }
        self.batcher.next_batch()
    }

    pub(super) fn mark_dispatched(&mut self) {
        self.batcher.mark_dispatched(Instant::now());
    }

    pub(super) fn done(&mut self, done: BatchDone) {
        self.batcher.done(done);
    }

    pub(super) fn sealed(&mut self) {
        self.batcher.sealed();
    }

    pub(super) fn committed(&mut self) {
        self.batcher.committed();
    }

    /// Holds everything back while one topic is.
    pub(super) fn pause(&mut self, topic: &Arc<str>, paused: bool) {
        match paused {
            true => self.paused.insert(Arc::clone(topic)),
            false => self.paused.remove(topic),
        };
        self.batcher.pause(!self.paused.is_empty());
    }

    /// Sends nothing more and commits nothing: the transaction is going to be aborted.
    pub(super) fn undo(&mut self, refusal: &Error) {
        if matches!(self.undone, Undone::No) {
            let what = "the Kafka transaction is repeated without an aggregate that is held now";
            let error = Error::new(ErrorKind::TransactionAborted, what);
            self.undone = Undone::Soon(error.caused_by(refusal.clone()));
        }
    }

    pub(super) fn is_undone(&self) -> bool {
        !matches!(self.undone, Undone::No)
    }

    /// The reason for which to abort it, once.
    pub(super) fn take_undone(&mut self) -> Option<Error> {
        if !matches!(self.undone, Undone::Soon(_)) {
            return None;
        }
        match std::mem::replace(&mut self.undone, Undone::Aborted) {
            Undone::Soon(error) => Some(error),
            _ => None,
        }
    }

    pub(super) fn abort(&self, error: Error) {
        self.coordinator.do_send(TransactionFailed(error));
    }

    /// Commits the transaction if it is time for that, or sets the timer for that time. Gives
    /// the batches that are done without it.
    pub(super) fn commit_if_due(&mut self, ctx: &mut Context<Router>) -> Vec<BatchDone> {
        if self.is_undone() {
            return Vec::new();
        }
        match self.batcher.next_step(Instant::now()) {
            NextStep::PassOn(done) => return done,
            NextStep::Commit(at, done) => {
                let (sealed, committed) = (ctx.address().recipient(), ctx.address().recipient());
                self.coordinator.do_send(CommitTransaction { at, done, sealed, committed });
            }
            NextStep::Wait(None) => {}
            NextStep::Wait(Some(due)) => self.set_timer(due, ctx),
        }
        Vec::new()
    }

    fn set_timer(&mut self, due: Instant, ctx: &mut Context<Router>) {
        if self.timer.as_ref().is_some_and(|(at, _)| *at <= due) {
            return;
        }
        if let Some((_, later)) = self.timer.take() {
            ctx.cancel_future(later);
        }
        let pause = due.saturating_duration_since(Instant::now());
        self.timer = Some((due, ctx.notify_later(TransactionDue, pause)));
    }

    pub(super) fn timer_fired(&mut self) {
        self.timer = None;
    }
}
