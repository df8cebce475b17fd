//! HandlerActor: calls a handler for each event of its aggregate type.
//!
//! # Life
//! One a handler, on the handler's thread, made by [`HandlerLanes`] at its first event and
//! again with each new router. One whose router is gone is stopped first: two never call a
//! handler at the same time.
//!
//! # Backpressure
//! None of its own: an event that waits here holds its bytes of the window.
//!
//! # Failure
//! Of the handler, see [`attempts`]: none of them is the actor's.

mod attempts;
mod careful;
mod lanes;
mod lineup;

use std::rc::Rc;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

pub(crate) use self::lanes::HandlerLanes;
use self::{
    attempts::Caller,
    lineup::{Answer, Lineup},
};
use crate::messages::{ExitGuard, TopicBatch};

struct HandlerActor {
    caller: Rc<Caller>,
    lineup: Lineup,
    /// Events that are being handled now.
    running: usize,
    cancelled: CancellationToken,
    _exit: ExitGuard,
    /// Dropped last: the next one may call the handler now.
    _place: OwnedMutexGuard<()>,
}

impl Actor for HandlerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let cancelled = self.cancelled.clone().cancelled_owned();
        ctx.spawn(cancelled.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<TopicBatch> for HandlerActor {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        self.lineup.push(batch);
        self.call(ctx);
    }
}

impl HandlerActor {
    /// Calls the handler for as many events as may be handled now.
    fn call(&mut self, ctx: &mut Context<Self>) {
        while self.running < self.caller.options.concurrency {
            let Some(turn) = self.lineup.next() else { return };
            self.running += 1;
            let caller = Rc::clone(&self.caller);
            let handling = async move {
                let end = caller.handle(&turn.events[turn.index]).await;
                (turn, end)
            };
            ctx.spawn(handling.into_actor(self).map(|(turn, end), this, ctx| {
                this.running -= 1;
                this.lineup.end(&turn, end).into_iter().for_each(Answer::give);
                this.call(ctx);
            }));
        }
    }
}
