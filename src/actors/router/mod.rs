//! Router: sorts the events of a batch by topic and answers for the batch.
//!
//! # Life
//! One per generation. It asks the supervisor for a lane at a topic's first
//! event and again whenever a lane fails; until it is open, parts wait here.
//!
//! # Backpressure
//! None of its own: a waiting part holds its batch's permit, and so the reader.
//!
//! # Failure
//! A lane fails alone: see [`crate::messages::AckToken`]. What the router itself
//! keeps is lost with it; the next generation reads it again from the WAL.

mod chosen_topics;
mod coordinator;
mod deliveries;
mod forward;
mod transaction;
mod transaction_batcher;

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use slog::{Logger, debug, error, info, warn};

use self::deliveries::{Dispatch, Opening, PartEnd};
pub(crate) use self::{
    chosen_topics::ChosenTopics, coordinator::Coordinator, deliveries::Deliveries,
    transaction::Transaction, transaction_batcher::Limits,
};
use crate::{
    Error, ErrorKind, Event, Refusal, Result,
    config::RefusalPolicy,
    faults::{FaultSite, Faults},
    handlers::HandlerTopics,
    messages::{
        AckToken, ActorKind, BatchDone, ChainFailed, EventBatch, ExitGuard, LaneFailed, LaneLost,
        LaneOpened, OpenLane, PartDone, PauseTopic, Stop, TopicBatch,
    },
    routing::{Placed, Routing},
    status::Status,
};

/// The actor around [`Routing`] and [`Deliveries`].
pub(crate) struct Router {
    /// Events of these go to a handler first.
    pub handlers: HandlerTopics,
    /// Topics that handlers name.
    pub topics_of_handlers: ChosenTopics,
    pub routing: Routing,
    pub dead_letters: DeadLetters,
    pub deliveries: Deliveries,
    /// With exactly-once.
    pub transaction: Option<Transaction>,
    pub lanes: Recipient<OpenLane>,
    pub done: Recipient<BatchDone>,
    pub failed: Recipient<ChainFailed>,
    pub status: Arc<Status>,
    pub faults: Faults,
    pub log: Logger,
    pub exit: ExitGuard,
}

impl Handler<Stop> for Router {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<EventBatch> for Router {
    type Result = ();

    fn handle(&mut self, batch: EventBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Router);
        self.let_in(batch, ctx);
    }
}

impl Router {
    /// Sorts a batch and hands its parts out.
    pub(super) fn route_batch(&mut self, batch: EventBatch, ctx: &mut Context<Self>) {
        let EventBatch { id, events, commit_end_lsn, permit, .. } = batch;
        let count = events.len();
        let Sorted { parts, filtered } = match self.sort(events) {
            Ok(sorted) => sorted,
            Err(error) => return self.fail(error),
        };
        self.status.batch(count, permit.bytes());
        self.status.read(count, filtered);
        if parts.is_empty() {
            // Nothing of it is to be sent: it is done.
            return self.batch_done(BatchDone { id, commit_end_lsn, events: count }, ctx);
        }
        self.handed_out();
        self.deliveries.open_batch(id, parts.len(), count, commit_end_lsn);
        for (lane, events) in parts {
            if let Some(topic) = self.deliveries.topic(lane) {
                self.status.waits(topic, events.len());
                self.status.routed(topic, &events);
            }
            if let Some(dispatch) = self.deliveries.add(lane, id, events, permit.clone()) {
                send(dispatch, ctx);
            }
        }
    }
}

impl Handler<PartDone> for Router {
    type Result = ();

    fn handle(&mut self, done: PartDone, ctx: &mut Self::Context) {
        let (lane, epoch, pause) = (done.lane, done.epoch, done.pause);
        match self.deliveries.finish(done) {
            PartEnd::HandedOn { events, delivered, took, rest } => {
                if let Some(topic) = self.deliveries.topic(rest.lane) {
                    self.status.handed_on(topic, events, delivered, took);
                }
                self.hand_on(rest, ctx);
                self.release(lane, ctx);
            }
            PartEnd::Stale => {}
            PartEnd::Part { lane, events, took } => {
                self.delivered(lane, events, took);
                self.release(lane, ctx);
            }
            PartEnd::Batch { lane, events, took, done } => {
                self.delivered(lane, events, took);
                self.batch_done(done, ctx);
                self.release(lane, ctx);
            }
            PartEnd::Failed { error, .. } if self.ends_transaction(lane, &error, true) => {
                self.transaction_failed(error);
            }
            PartEnd::Failed { error, at_once: true } => self.reopen_at_once(lane, epoch, &error),
            PartEnd::Failed { error, at_once: false } => self.reopen(lane, epoch, error, pause),
        }
    }
}

impl Handler<LaneOpened> for Router {
    type Result = ();

    fn handle(&mut self, opened: LaneOpened, ctx: &mut Self::Context) {
        let LaneOpened { lane, epoch, recipient } = opened;
        let waiting = self.deliveries.opened(lane, epoch, recipient);
        if let Some(topic) = self.deliveries.topic(lane) {
            debug!(self.log, "topic opened"; "topic" => %topic, "epoch" => epoch, "parts" => waiting.len());
            self.status.topic_open(topic);
        }
        for dispatch in waiting {
            send(dispatch, ctx);
        }
    }
}

impl Handler<LaneFailed> for Router {
    type Result = ();

    fn handle(&mut self, failed: LaneFailed, _: &mut Self::Context) {
        let LaneFailed { lane, epoch, error } = failed;
        match self.ends_transaction(lane, &error, false) {
            true => self.transaction_failed(error),
            false => self.reopen(lane, epoch, error, None),
        }
    }
}

impl Handler<LaneLost> for Router {
    type Result = ();

    fn handle(&mut self, lost: LaneLost, _: &mut Self::Context) {
        let LaneLost { lane, epoch } = lost;
        // One that could not be opened has never had an actor, and its failure is told by itself.
        if !self.deliveries.is_open(lane, epoch) {
            return;
        }
        let error = Error::new(ErrorKind::ActorFailed, "the topic's actor ended");
        match self.ends_transaction(lane, &error, true) {
            true => self.transaction_failed(error),
            false => self.reopen(lane, epoch, error, None),
        }
    }
}

impl Handler<PauseTopic> for Router {
    type Result = ();

    fn handle(&mut self, PauseTopic { topic, paused }: PauseTopic, ctx: &mut Self::Context) {
        if self.pause_all(&topic, paused, ctx) {
            return;
        }
        for dispatch in self.deliveries.pause(&topic, paused) {
            send(dispatch, ctx);
        }
    }
}

impl Router {
    /// Cuts a batch into one part a topic; order within a topic is kept. An event that goes
    /// to several topics is in the part of each.
    fn sort(&mut self, events: Vec<Event>) -> Result<Sorted> {
        let mut sorted = Sorted::default();
        for event in events {
            self.place(event, &mut sorted)?;
        }
        Ok(sorted)
    }

    /// Adds an event to the part of its topic.
    pub(super) fn add(&mut self, to: &mut Sorted, topic: &Arc<str>, event: Event) {
        let (lane, opening) = self.deliveries.lane(topic);
        if let Some(opening) = opening {
            self.open(opening, None, None);
        }
        // A batch has few topics, and neighbours often share one.
        match to.parts.iter_mut().rev().find(|(other, _)| *other == lane) {
            Some((_, part)) => part.push(event),
            None => to.parts.push((lane, vec![event])),
        }
    }

    /// Adds an event to the parts where it goes: its handler's, its topics', the dead letters'.
    fn place(&mut self, event: Event, to: &mut Sorted) -> Result<()> {
        if let Some(refusal) = event.refusal() {
            let error = refusal.error.clone();
            return self.refuse(event, error, None, to);
        }
        if let Some(lane) = self.handlers.lane(&event).cloned() {
            self.add(to, &lane, event);
            return Ok(());
        }
        match self.route(event, to)? {
            None => Ok(()),
            Some((event, error)) => self.refuse(event, error, None, to),
        }
    }

    /// Adds an event to the parts of its topics. One that can go nowhere comes back, and why.
    pub(super) fn route(
        &mut self,
        event: Event,
        to: &mut Sorted,
    ) -> Result<Option<(Event, Error)>> {
        if self.topics_of_handlers.without_kafka() {
            let kind = event.aggregate_type();
            let what = format!("no handler ends with events of {kind:?}, and there is no Kafka");
            return Ok(Some((event, Error::new(ErrorKind::HandlerFailed, what))));
        }
        match self.routing.place(event) {
            Placed::One(topic, event) => self.add(to, &topic, event),
            Placed::Several(all) => {
                for (topic, event) in all {
                    self.add(to, &topic, event);
                }
            }
            Placed::Filtered => to.filtered += 1,
            Placed::Refused(event, error) => return Ok(Some((event, error))),
            Placed::Stop(error) => return Err(error),
        }
        Ok(None)
    }

    /// Adds an event to the part of the dead letters, if that is the policy; `from` is the lane
    /// of the topic that refused it, or of the handler that had it.
    pub(super) fn refuse(
        &mut self,
        event: Event,
        error: Error,
        from: Option<&Arc<str>>,
        to: &mut Sorted,
    ) -> Result<()> {
        let (topic, event) = self.dead_letter(event, error, from)?;
        self.add(to, &topic, event);
        Ok(())
    }

    /// The event, addressed to the dead letters, if that is the policy.
    pub(super) fn dead_letter(
        &self,
        event: Event,
        error: Error,
        from: Option<&Arc<str>>,
    ) -> Result<(Arc<str>, Event)> {
        match self.dead_letters.policy {
            RefusalPolicy::DeadLetter => {
                error!(self.log, "event goes to the dead letters"; "event" => ?event,
                    "from" => from.map_or("", |lane| lane), "error" => %error);
                let handler = from.and_then(|lane| HandlerTopics::handler(lane)).map(Into::into);
                // What a handler refuses belongs to no topic.
                let topic = from.filter(|_| handler.is_none()).cloned();
                self.status.dead_lettered();
                self.status.parked(&event, topic.as_deref(), &error);
                let refusal = Refusal { topic, handler, ..Refusal::new(error) };
                Ok((Arc::clone(&self.dead_letters.topic), event.refused(refusal)))
            }
            RefusalPolicy::Stop => Err(error),
            RefusalPolicy::Block => {
                let what = "an event that can't be delivered blocks all behind it";
                Err(Error::new(ErrorKind::RecordBlocked, what).caused_by(error))
            }
        }
    }

    fn release(&mut self, lane: usize, ctx: &mut Context<Self>) {
        for dispatch in self.deliveries.released(lane) {
            send(dispatch, ctx);
        }
    }

    pub(super) fn fail(&self, error: Error) {
        let generation = self.exit.generation;
        self.failed.do_send(ChainFailed { actor: ActorKind::Router, generation, error });
    }

    fn delivered(&mut self, lane: usize, events: usize, took: Duration) {
        if let Some(topic) = self.deliveries.topic(lane) {
            self.status.delivered(topic, events, took);
        }
    }

    /// Opens a failed lane again, after this pause or one that grows.
    fn reopen(&mut self, lane: usize, epoch: u32, error: Error, pause: Option<Duration>) {
        // Only the first of an opening's parts to fail finds it open.
        if let Some(opening) = self.deliveries.close(lane, epoch) {
            warn!(self.log, "topic failed, opening it again";
                "topic" => %opening.topic, "failures" => opening.failures, "error" => %error);
            self.status.topic_failed(&opening.topic, &error);
            self.open(opening, Some(error), pause);
        }
    }

    /// Opens a lane again that failed through no fault of its topic's: there is nothing to wait for.
    fn reopen_at_once(&mut self, lane: usize, epoch: u32, error: &Error) {
        if let Some(opening) = self.deliveries.close(lane, epoch) {
            info!(self.log, "topic goes on after a refused batch";
                "topic" => %opening.topic, "error" => %error);
            self.open(Opening { failures: 0, ..opening }, None, None);
        }
    }

    fn open(&self, opening: Opening, error: Option<Error>, pause: Option<Duration>) {
        let Opening { lane, topic, epoch, failures } = opening;
        let generation = self.exit.generation;
        self.lanes.do_send(OpenLane { generation, lane, topic, epoch, failures, error, pause });
    }
}

pub(super) fn send(dispatch: Dispatch, ctx: &mut Context<Router>) {
    let Dispatch { recipient, topic, events, suspects, permit, lane, epoch, part } = dispatch;
    let (place, router) = ((lane, epoch, part), ctx.address().recipient());
    let ack = AckToken::new(place, events.len(), router, permit).with_suspects(suspects);
    // A closed mailbox drops the batch, and with it the token, which then says so.
    recipient.do_send(TopicBatch { topic, events, ack });
}

/// A batch, sorted.
#[derive(Default)]
pub(super) struct Sorted {
    /// By lane.
    pub parts: Vec<(usize, Vec<Event>)>,
    /// Events that are not to be sent.
    pub filtered: usize,
}

/// What becomes of events that can never be delivered.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub policy: RefusalPolicy,
    pub topic: Arc<str>,
}

#[cfg(test)]
mod tests;
