//! What the router does besides with exactly-once: it lets batches into the open Kafka
//! transaction and has the [`Coordinator`](super::coordinator::Coordinator) close it.

use std::{collections::HashSet, sync::Arc, time::Instant};

use actix::{Addr, AsyncContext, Context, Handler, SpawnHandle};

use super::{
    Router,
    coordinator::{CommitTransaction, Coordinator, TransactionCommitted, TransactionFailed},
    transaction_batcher::{Gate, Limits, Step},
};
use crate::{
    Error, ErrorKind, Lsn,
    handlers::HandlerTopics,
    messages::{BatchDone, EventBatch},
};

/// A router's transactions.
pub(crate) struct Transaction {
    gate: Gate,
    pub coordinator: Addr<Coordinator>,
    /// Topics that are held back; one transaction holds all of them.
    paused: HashSet<Arc<str>>,
    timer: Option<(Instant, SpawnHandle)>,
}

impl Transaction {
    /// Reading starts at `from`.
    pub fn new(
        limits: Limits,
        from: Lsn,
        paused: HashSet<Arc<str>>,
        coordinator: Addr<Coordinator>,
    ) -> Self {
        let gate = Gate::new(limits, from, !paused.is_empty());
        Transaction { gate, coordinator, paused, timer: None }
    }
}

impl Handler<TransactionCommitted> for Router {
    type Result = ();

    fn handle(&mut self, _: TransactionCommitted, ctx: &mut Self::Context) {
        if let Some(transaction) = &mut self.transaction {
            transaction.gate.committed();
        }
        self.go_on(ctx);
    }
}

impl Router {
    /// A batch came: it is routed at once, or when it is the next transaction's turn.
    pub(super) fn let_in(&mut self, batch: EventBatch, ctx: &mut Context<Self>) {
        match &mut self.transaction {
            Some(transaction) => {
                transaction.gate.push(batch);
                self.go_on(ctx);
            }
            None => self.route_batch(batch, ctx),
        }
    }

    /// All of a batch is safe; in a transaction it is so only with that.
    pub(super) fn batch_done(&mut self, done: BatchDone, ctx: &mut Context<Self>) {
        match &mut self.transaction {
            Some(transaction) => {
                transaction.gate.done(done);
                self.step(ctx);
            }
            None => self.done.do_send(done),
        }
    }

    /// Something is on its way that has to be in the open transaction.
    pub(super) fn handed_out(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.gate.handed_out(Instant::now());
        }
    }

    /// Whether a lane's failure is one of the transaction: what its actor sent is in there,
    /// and to send it again would be to send it twice.
    pub(super) fn ends_transaction(&self, lane: usize, error: &Error, has_sent: bool) -> bool {
        let of_handler =
            self.deliveries.topic(lane).is_some_and(|topic| HandlerTopics::is_handler(topic));
        self.transaction.is_some()
            && !of_handler
            && (has_sent || error.kind() == ErrorKind::TransactionAborted)
    }

    pub(super) fn transaction_failed(&self, error: Error) {
        if let Some(transaction) = &self.transaction {
            transaction.coordinator.do_send(TransactionFailed(error));
        }
    }

    /// Holds everything back while one topic is; false without transactions.
    pub(super) fn pause_all(
        &mut self,
        topic: &Arc<str>,
        paused: bool,
        ctx: &mut Context<Self>,
    ) -> bool {
        let Some(transaction) = &mut self.transaction else { return false };
        match paused {
            true => transaction.paused.insert(Arc::clone(topic)),
            false => transaction.paused.remove(topic),
        };
        transaction.gate.pause(!transaction.paused.is_empty());
        self.go_on(ctx);
        true
    }

    /// Lets in what may come in, and closes the transaction if it is time for that.
    pub(super) fn go_on(&mut self, ctx: &mut Context<Self>) {
        while let Some(batch) = self.transaction.as_mut().and_then(|t| t.gate.next_batch()) {
            self.route_batch(batch, ctx);
        }
        self.step(ctx);
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        let Some(transaction) = &mut self.transaction else { return };
        match transaction.gate.step(Instant::now()) {
            Step::PassOn(done) => {
                for done in done {
                    self.done.do_send(done);
                }
            }
            Step::Commit(at, done) => {
                let reply = ctx.address().recipient();
                transaction.coordinator.do_send(CommitTransaction { at, done, reply });
            }
            Step::Wait(None) => {}
            Step::Wait(Some(due)) => {
                if transaction.timer.as_ref().is_some_and(|(at, _)| *at <= due) {
                    return;
                }
                if let Some((_, later)) = transaction.timer.take() {
                    ctx.cancel_future(later);
                }
                let pause = due.saturating_duration_since(Instant::now());
                let handle = ctx.run_later(pause, |this, ctx| {
                    if let Some(transaction) = &mut this.transaction {
                        transaction.timer = None;
                    }
                    this.step(ctx);
                });
                transaction.timer = Some((due, handle));
            }
        }
    }
}
