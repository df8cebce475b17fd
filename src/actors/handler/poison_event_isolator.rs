//! PoisonEventIsolator: finds the event at which a user's actor fails, in a batch that it did not
//! answer for.
//!
//! It is not known from outside at which event the actor panicked. So the first batch after such a
//! failure is sent to it event by event. An event that the actor does not answer for is tried
//! again by a new actor, and given up after as many tries as an event of other handlers. After
//! this batch, all others are passed to the actor unchanged.
//!
//! # Life
//! Made with a lane that is opened again, on the handler's thread. A batch that the actor *fails*
//! itself has to come again whole: that closes the lane, as without the isolator.

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
    messages::{AckToken, HandlerOutput, PartDone},
    status::Status,
};

/// The actor in front of the user's.
pub(super) struct PoisonEventIsolator {
    /// Makes the user's actor.
    pub make: Box<dyn Fn() -> Recipient<TopicBatch> + Send>,
    /// None where it has to be made again.
    pub actor: Option<Recipient<TopicBatch>>,
    pub options: HandlerOptions,
    /// True if an event is never given up.
    pub for_ever: bool,
    pub status: Arc<Status>,
    pub log: Logger,
    pub cancelled: CancellationToken,
    pub first: FirstBatch,
}

/// The state of the first batch.
// There is one of it, in the actor.
#[allow(clippy::large_enum_variant)]
pub(super) enum FirstBatch {
    Awaited,
    Open { batch: IsolatedBatch, behind: VecDeque<TopicBatch> },
    Ended,
}

/// A batch that is sent event by event.
pub(super) struct IsolatedBatch {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    ack: AckToken,
    index: usize,
    /// Failed tries of the present event.
    tries: u32,
    /// Number of the answer that is awaited.
    sent: u64,
    output: Vec<HandlerOutput>,
    refused: Vec<Refused>,
}

impl Actor for PoisonEventIsolator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let cancelled = self.cancelled.clone().cancelled_owned();
        ctx.spawn(cancelled.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<TopicBatch> for PoisonEventIsolator {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        match &mut self.first {
            FirstBatch::Awaited => {
                let TopicBatch { topic, events, ack } = batch;
                let (output, refused) = Default::default();
                let batch = IsolatedBatch {
                    topic,
                    events,
                    ack,
                    index: 0,
                    tries: 0,
                    sent: 0,
                    output,
                    refused,
                };
                self.first = FirstBatch::Open { batch, behind: VecDeque::new() };
                self.send(ctx);
            }
            FirstBatch::Open { behind, .. } => behind.push_back(batch),
            FirstBatch::Ended => self.pass(batch),
        }
    }
}

impl Handler<PartDone> for PoisonEventIsolator {
    type Result = ();

    fn handle(&mut self, done: PartDone, ctx: &mut Self::Context) {
        let FirstBatch::Open { batch, .. } = &mut self.first else { return };
        if done.part != batch.sent {
            return;
        }
        match done.result {
            Ok(refused) => {
                batch.output.extend(done.output);
                let error = refused.into_iter().next().map(|refused| refused.error);
                self.ended(error, ctx);
            }
            Err(error) if error.kind() == ErrorKind::ActorFailed => self.failed(error, ctx),
            Err(error) => {
                if let FirstBatch::Open { batch, .. } =
                    std::mem::replace(&mut self.first, FirstBatch::Ended)
                {
                    batch.ack.fail_with(error, done.pause);
                }
                ctx.stop();
            }
        }
    }
}

impl PoisonEventIsolator {
    /// Hands the present event to the actor.
    fn send(&mut self, ctx: &mut Context<Self>) {
        let Some(actor) = self.actor() else {
            let what = "the handler actor was not made";
            return self.failed(Error::new(ErrorKind::ActorFailed, what), ctx);
        };
        let FirstBatch::Open { batch, .. } = &mut self.first else { return };
        batch.sent += 1;
        let ack = batch.ack.for_one_event(batch.sent, ctx.address().recipient());
        let events = Arc::new(batch.events.get(batch.index).cloned().into_iter().collect());
        actor.do_send(TopicBatch { topic: Arc::clone(&batch.topic), events, ack });
    }

    /// The present event has ended, or can never be handled.
    fn ended(&mut self, refused: Option<Error>, ctx: &mut Context<Self>) {
        let FirstBatch::Open { batch, behind } = &mut self.first else { return };
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
        if let FirstBatch::Open { batch, .. } =
            std::mem::replace(&mut self.first, FirstBatch::Ended)
        {
            batch.ack.forward(batch.output, batch.refused);
        }
        behind.into_iter().for_each(|batch| self.pass(batch));
    }

    /// The actor did not answer for the present event.
    fn failed(&mut self, error: Error, ctx: &mut Context<Self>) {
        self.actor = None;
        let FirstBatch::Open { batch, .. } = &mut self.first else { return };
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

    /// Passes a batch on unchanged. Without an actor it is dropped, which counts as failed.
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
