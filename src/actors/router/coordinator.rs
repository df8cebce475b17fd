//! Coordinator: commits a Kafka transaction together with the position that it ends at.
//!
//! # Life
//! One a chain, with exactly-once only. The router says when a transaction is complete. The
//! coordinator closes it, so that the router can pass on the first events of the next one, and
//! commits it; only then does the checkpointer learn that its batches are done.
//!
//! # Failure
//! A transaction that can't be committed ends the chain, as soon as that is known: the next chain
//! has it aborted and begins at the last position that was committed.

use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient,
    WrapFuture,
};

use crate::{
    Error,
    checkpoint::{Checkpoint, Cut, Position},
    exactly_once::Transactions,
    messages::{ActorKind, BatchDone, ChainFailed, ExitGuard, Stop},
};

/// Commit what was sent, with this position; these batches are done then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CommitTransaction {
    pub at: Cut,
    pub done: Vec<BatchDone>,
    pub sealed: Recipient<TransactionSealed>,
    pub committed: Recipient<TransactionCommitted>,
}

/// A record of the transaction failed, or the actor that sent it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TransactionFailed(pub Error);

/// It takes no more records, and the next one is open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TransactionSealed;

/// It is committed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TransactionCommitted;

/// The actor around [`Transactions`].
pub(crate) struct Coordinator {
    pub transactions: Arc<Transactions>,
    /// Slot, cluster and timeline; its position is where the chain began.
    pub from: Checkpoint,
    pub done: Recipient<BatchDone>,
    pub failed: Recipient<ChainFailed>,
    pub exit: ExitGuard,
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let failing = self.transactions.session_failed();
        ctx.spawn(failing.into_actor(self).map(|error, this, _| this.fail(error)));
    }
}

impl Handler<CommitTransaction> for Coordinator {
    type Result = ();

    fn handle(&mut self, commit: CommitTransaction, ctx: &mut Self::Context) {
        let CommitTransaction { at: Cut { lsn, partial }, done, sealed, committed } = commit;
        let checkpoint = Checkpoint { lsn, ..self.from.clone() };
        let transaction = match self.transactions.close(&Position { checkpoint, partial }) {
            Ok(transaction) => transaction,
            Err(error) => return self.fail(error),
        };
        sealed.do_send(TransactionSealed);
        let transactions = Arc::clone(&self.transactions);
        let committing = async move { transactions.commit(transaction).await };
        ctx.spawn(committing.into_actor(self).map(move |result, this, _| match result {
            Ok(()) => {
                for done in done {
                    this.done.do_send(done);
                }
                committed.do_send(TransactionCommitted);
            }
            Err(error) => this.fail(error),
        }));
    }
}

impl Handler<TransactionFailed> for Coordinator {
    type Result = ();

    fn handle(&mut self, TransactionFailed(error): TransactionFailed, _: &mut Self::Context) {
        self.fail(error);
    }
}

impl Coordinator {
    fn fail(&self, error: Error) {
        let (actor, generation) = (ActorKind::Coordinator, self.exit.generation);
        self.failed.do_send(ChainFailed { actor, generation, error });
    }
}

impl Handler<Stop> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
