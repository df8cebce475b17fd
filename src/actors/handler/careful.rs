//! CarefulActor: stands before an actor of the user's that did not answer for a batch.
//!
//! Which event it was that the actor panicked at, nobody can tell from outside. So the first
//! batch that comes after such a failure is handed on event by event. One that the actor does
//! not answer for is tried again by a new actor, and given up after as many tries as an event
//! of other handlers. When the batch has ended, all that is behind it goes to the actor as
//! it came.
//!
//! # Life
//! Made with a lane that is opened again, on the handler's thread. What the actor *fails* is
//! its own word that the batch has to come again: that closes the lane, as without this.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture,
};
use slog::{Logger, warn};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, ErrorKind, Event, Refused, TopicBatch,
    handlers::HandlerOptions,
    messages::{AckToken, Onward, PartDone},
    status::Status,
};

pub(super) struct CarefulActor {
    /// Makes the user's actor.
    pub make: Box<dyn Fn() -> Recipient<TopicBatch> + Send>,
    /// None where it has to be made again.
    pub actor: Option<Recipient<TopicBatch>>,
    pub options: HandlerOptions,
    /// An event is never given up.
    pub for_ever: bool,
    pub status: Arc<Status>,
    pub log: Logger,
    pub cancelled: CancellationToken,
    pub first: First,
}

/// What has become of the first batch.
pub(super) enum First {
    Awaited,
    Open { batch: Opened, behind: VecDeque<TopicBatch> },
    Ended,
}

pub(super) struct Opened {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    ack: AckToken,
    index: usize,
    /// Of this event that failed.
    tries: u32,
    /// Which answer is waited for.
    sent: u64,
    onward: Vec<Onward>,
    refused: Vec<Refused>,
}

impl Actor for CarefulActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let cancelled = self.cancelled.clone().cancelled_owned();
        ctx.spawn(cancelled.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<TopicBatch> for CarefulActor {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        match &mut self.first {
            First::Awaited => {
                let TopicBatch { topic, events, ack } = batch;
                let (onward, refused) = Default::default();
                let batch =
                    Opened { topic, events, ack, index: 0, tries: 0, sent: 0, onward, refused };
                self.first = First::Open { batch, behind: VecDeque::new() };
                self.send(ctx);
            }
            First::Open { behind, .. } => behind.push_back(batch),
            First::Ended => self.pass(batch),
        }
    }
}

impl Handler<PartDone> for CarefulActor {
    type Result = ();

    fn handle(&mut self, done: PartDone, ctx: &mut Self::Context) {
        let First::Open { batch, .. } = &mut self.first else { return };
        if done.part != batch.sent {
            return;
        }
        match done.result {
            Ok(refused) => {
                batch.onward.extend(done.onward);
                let error = refused.into_iter().next().map(|refused| refused.error);
                self.ended(error, ctx);
            }
            Err(error) if error.kind() == ErrorKind::ActorFailed => self.failed(error, ctx),
            Err(error) => {
                if let First::Open { batch, .. } = std::mem::replace(&mut self.first, First::Ended)
                {
                    batch.ack.fail_with(error, done.pause);
                }
                ctx.stop();
            }
        }
    }
}

impl CarefulActor {
    /// Hands the present event to the actor.
    fn send(&mut self, ctx: &mut Context<Self>) {
        let Some(actor) = self.actor() else {
            let what = "the handler actor was not made";
            return self.failed(Error::new(ErrorKind::ActorFailed, what), ctx);
        };
        let First::Open { batch, .. } = &mut self.first else { return };
        batch.sent += 1;
        let ack = batch.ack.of_one_event(batch.sent, ctx.address().recipient());
        let events = Arc::new(batch.events.get(batch.index).cloned().into_iter().collect());
        actor.do_send(TopicBatch { topic: Arc::clone(&batch.topic), events, ack });
    }

    /// The present event has ended, or can never be handled.
    fn ended(&mut self, refused: Option<Error>, ctx: &mut Context<Self>) {
        let First::Open { batch, behind } = &mut self.first else { return };
        let index = batch.index;
        batch.refused.extend(refused.map(|error| Refused { index, error }));
        if batch.tries > 0 {
            self.status.handler_goes_on(&batch.topic);
        }
        (batch.index, batch.tries) = (index + 1, 0);
        if batch.index < batch.events.len() {
            return self.send(ctx);
        }
        let behind = std::mem::take(behind);
        if let First::Open { batch, .. } = std::mem::replace(&mut self.first, First::Ended) {
            batch.ack.pass_on(batch.onward, batch.refused);
        }
        behind.into_iter().for_each(|batch| self.pass(batch));
    }

    /// The actor did not answer for the present event.
    fn failed(&mut self, error: Error, ctx: &mut Context<Self>) {
        self.actor = None;
        let First::Open { batch, .. } = &mut self.first else { return };
        batch.tries += 1;
        let (tries, event) = (batch.tries, batch.events.get(batch.index));
        warn!(self.log, "handler actor failed"; "event" => ?event, "try" => tries,
            "of" => self.options.tries, "error" => %error);
        if tries >= self.options.tries && !self.for_ever {
            let what = format!("its handler failed {tries} times, the last time");
            let error = Error::new(ErrorKind::HandlerFailed, what).caused_by(error);
            return self.ended(Some(error), ctx);
        }
        let id = event.map(Event::id).unwrap_or_default();
        self.status.handler_retries(
            &batch.topic,
            format!("event {id}, try {tries}: {error}"),
            true,
        );
        let pause = self.options.pauses().nth(tries as usize - 1);
        ctx.run_later(pause.unwrap_or(Duration::ZERO), |this, ctx| this.send(ctx));
    }

    /// As it came: dropped where there is no actor, which counts as failed.
    fn pass(&mut self, batch: TopicBatch) {
        if let Some(actor) = self.actor() {
            actor.do_send(batch);
        }
    }

    fn actor(&mut self) -> Option<Recipient<TopicBatch>> {
        if self.actor.is_none() {
            // The factory is the user's and may panic.
            self.actor = catch_unwind(AssertUnwindSafe(|| (self.make)())).ok();
        }
        self.actor.clone()
    }
}
