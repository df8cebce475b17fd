//! Lets a batch go down to Kafka's client before the next one is touched.

use actix::{Actor, AsyncContext, WrapFuture};
use tokio::task::yield_now;

/// Handles no further message before the other actors of the thread have had a turn.
///
/// An actor empties its mailbox at once. Under load, many batches wait there, and each actor in
/// turn would walk through all of them: far more bytes than the processor's cache holds. So an
/// actor gives way after each batch, and those below work on bytes that were just read.
pub(super) fn give_way<A>(actor: &A, ctx: &mut A::Context)
where
    A: Actor,
    A::Context: AsyncContext<A>,
{
    ctx.wait(yield_now().into_actor(actor));
}
