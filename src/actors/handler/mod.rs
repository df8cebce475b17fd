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
//! A handler's failures are handled in [`attempts`]; none of them ends the actor.

mod attempts;
mod event_queue;
mod lanes;
mod poison_event_isolator;

use std::rc::Rc;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tokio::{sync::OwnedMutexGuard, task::yield_now};
use tokio_util::sync::CancellationToken;

pub(crate) use self::lanes::HandlerLanes;
use self::{
    attempts::{Begun, Caller, Try},
    event_queue::{Answer, EventEnd, EventQueue, Turn},
};
use crate::messages::{ExitGuard, TopicBatch};

/// Number of events begun before other tasks of the thread have their turn: few enough for
/// handlers of a millisecond, and so many that a yield costs each of them nothing.
const AT_ONCE: usize = 64;

struct HandlerActor {
    caller: Rc<Caller>,
    queue: EventQueue,
    /// Events whose handling takes time.
    running: usize,
    /// Events begun since others had their turn.
    begun: usize,
    cancelled: CancellationToken,
    _exit: ExitGuard,
    /// Dropped last: the next one may call the handler now.
    _call_lock: OwnedMutexGuard<()>,
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
        self.queue.push(batch);
        self.call(ctx);
    }
}

impl HandlerActor {
    fn new(
        caller: Caller,
        cancelled: CancellationToken,
        exit: ExitGuard,
        call_lock: OwnedMutexGuard<()>,
    ) -> Self {
        HandlerActor {
            caller: Rc::new(caller),
            queue: EventQueue::default(),
            running: 0,
            begun: 0,
            cancelled,
            _exit: exit,
            _call_lock: call_lock,
        }
    }

    /// Calls the handler for as many events as may be handled now.
    fn call(&mut self, ctx: &mut Context<Self>) {
        while self.running < self.caller.options.concurrency && self.begun < AT_ONCE {
            let Some(turn) = self.queue.next() else { return };
            self.begun += 1;
            if self.begun == AT_ONCE {
                ctx.spawn(yield_now().into_actor(self).map(|(), this, ctx| {
                    this.begun = 0;
                    this.call(ctx);
                }));
            }
            match self.caller.begin(&turn) {
                Begun::Over(Try::Ended(end)) => self.end(turn, end),
                begun => self.wait_for(turn, begun, ctx),
            }
        }
    }

    fn wait_for(&mut self, turn: Turn, begun: Begun, ctx: &mut Context<Self>) {
        self.running += 1;
        self.queue.open(&turn);
        let caller = Rc::clone(&self.caller);
        let handling = async move {
            let end = caller.handle(&turn, begun).await;
            (turn, end)
        };
        ctx.spawn(handling.into_actor(self).map(|(turn, end), this, ctx| {
            this.running -= 1;
            this.end(turn, end);
            this.call(ctx);
        }));
    }

    fn end(&mut self, turn: Turn, end: EventEnd) {
        self.queue.end(turn, end).into_iter().for_each(Answer::give);
    }
}

#[cfg(test)]
mod tests;
