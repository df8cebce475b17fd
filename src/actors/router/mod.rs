//! Router: sorts the events of a batch by topic and answers for the batch.
//!
//! # Life
//! One per generation. It asks the supervisor for a lane at a topic's first
//! event and again whenever a lane fails; until it is open, parts wait here.
//!
//! A batch goes through this room once. The actor calls the plain structs; none calls it back:
//!
//! | step | file |
//! | --- | --- |
//! | wait for a transaction to take it, with exactly-once | `exactly_once`, `transaction_batcher` |
//! | sort its events by topic | `sorter` |
//! | keep its parts until they are acknowledged | `deliveries` |
//! | sort what a part gives back | `forward` |
//! | know which aggregates are held | `held_aggregates` |
//! | commit the transaction, with exactly-once | `coordinator` |
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
mod exactly_once;
mod forward;
mod held_aggregates;
mod sorter;
mod transaction_batcher;

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use slog::{Logger, debug, warn};

#[cfg(feature = "otlp")]
pub(crate) use self::deliveries::SpanMaker;
pub(crate) use self::{
    chosen_topics::ChosenTopics,
    coordinator::Coordinator,
    deliveries::Deliveries,
    exactly_once::ExactlyOnce,
    held_aggregates::HeldAggregates,
    sorter::{DeadLetters, EventSorter},
    transaction_batcher::TransactionLimits,
};
use self::{
    coordinator::{TransactionCommitted, TransactionSealed},
    deliveries::{Dispatch, Opening, PartEnd, Released, ReturnedEvents},
    exactly_once::TransactionDue,
    forward::forward,
    sorter::SortedEvents,
};
use super::{give_way::give_way, held_events::HELD_LANE};
use crate::{
    Error, ErrorKind,
    faults::{FaultSite, Faults},
    handlers::HandlerLaneNames,
    messages::{
        AckToken, ActorKind, BatchDone, BatchId, ChainFailed, EventBatch, ExitGuard, LaneFailed,
        LaneLost, LaneOpened, OpenLane, PartDone, PauseTopic, Stop, TopicBatch, WindowPermit,
    },
    receipts::FILTERED_LANE,
    routing::OutgoingEvents,
    status::Status,
};

/// The actor around [`EventSorter`], [`Deliveries`] and [`ExactlyOnce`].
pub(crate) struct Router {
    pub sorter: EventSorter,
    pub deliveries: Deliveries,
    /// None without exactly-once.
    pub exactly_once: Option<ExactlyOnce>,
    pub lanes: Recipient<OpenLane>,
    pub done: Recipient<BatchDone>,
    pub failed: Recipient<ChainFailed>,
    pub status: Arc<Status>,
    pub faults: Faults,
    pub log: Logger,
    pub exit: ExitGuard,
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let Some(opening) = self.deliveries.held_lane() {
            self.open(opening, None, None);
        }
    }
}

impl Handler<EventBatch> for Router {
    type Result = ();

    fn handle(&mut self, batch: EventBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Router);
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.push(batch);
            return self.route_next_batches(ctx);
        }
        if let Some(done) = self.route(batch, ctx) {
            self.complete(done, ctx);
        }
        give_way(self, ctx);
    }
}

impl Handler<TransactionSealed> for Router {
    type Result = ();

    fn handle(&mut self, _: TransactionSealed, ctx: &mut Self::Context) {
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.sealed();
            self.deliveries.transaction_ended();
        }
        self.route_next_batches(ctx);
    }
}

impl Handler<TransactionCommitted> for Router {
    type Result = ();

    fn handle(&mut self, _: TransactionCommitted, ctx: &mut Self::Context) {
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.committed();
        }
        self.route_next_batches(ctx);
    }
}

impl Handler<TransactionDue> for Router {
    type Result = ();

    fn handle(&mut self, _: TransactionDue, ctx: &mut Self::Context) {
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.timer_fired();
        }
        self.commit_if_due(ctx);
    }
}

impl Handler<PartDone> for Router {
    type Result = ();

    fn handle(&mut self, done: PartDone, ctx: &mut Self::Context) {
        let (lane, epoch, pause) = (done.lane, done.epoch, done.pause);
        match self.deliveries.finish(done) {
            PartEnd::Stale => {}
            PartEnd::Returned { events, delivered, took, returned } => {
                if let Some(topic) = self.shown_topic(lane) {
                    self.status.part_finished(topic, events, delivered, took);
                }
                if !self.undoes(&returned) {
                    self.forward(returned, ctx);
                    self.release(lane, ctx);
                }
            }
            PartEnd::Written { events, took, batch, permit, released } => {
                self.written((lane, events, took), batch, &permit, released, ctx);
            }
            PartEnd::Done { lane, events, took } => {
                self.delivered(lane, events, took);
                self.release(lane, ctx);
            }
            PartEnd::LastDone { lane, events, took, batch } => {
                self.delivered(lane, events, took);
                self.complete(batch, ctx);
                self.release(lane, ctx);
            }
            PartEnd::Failed(error) => match self.ends_transaction(lane, &error, true) {
                true => self.abort_transaction(error),
                false => self.reopen(lane, epoch, error, pause),
            },
        }
        self.abort_if_undone();
    }
}

impl Handler<LaneOpened> for Router {
    type Result = ();

    fn handle(&mut self, opened: LaneOpened, ctx: &mut Self::Context) {
        let LaneOpened { lane, epoch, recipient } = opened;
        let waiting = self.deliveries.opened(lane, epoch, recipient);
        if let Some(topic) = self.deliveries.topic(lane) {
            debug!(self.log, "topic opened"; "topic" => %topic, "epoch" => epoch, "parts" => waiting.len());
        }
        if let Some(topic) = self.shown_topic(lane) {
            self.status.topic_open(topic);
        }
        send_all(waiting, ctx);
        self.note_diverted();
    }
}

impl Handler<LaneFailed> for Router {
    type Result = ();

    fn handle(&mut self, failed: LaneFailed, _: &mut Self::Context) {
        let LaneFailed { lane, epoch, error } = failed;
        match self.ends_transaction(lane, &error, false) {
            true => self.abort_transaction(error),
            false => self.reopen(lane, epoch, error, None),
        }
    }
}

impl Handler<LaneLost> for Router {
    type Result = ();

    fn handle(&mut self, lost: LaneLost, _: &mut Self::Context) {
        let LaneLost { lane, epoch } = lost;
        // One that could not be opened has never had an actor, and LaneFailed reports it.
        if !self.deliveries.is_open(lane, epoch) {
            return;
        }
        let error = Error::new(ErrorKind::ActorFailed, "the topic's actor ended");
        match self.ends_transaction(lane, &error, true) {
            true => self.abort_transaction(error),
            false => self.reopen(lane, epoch, error, None),
        }
    }
}

impl Handler<PauseTopic> for Router {
    type Result = ();

    fn handle(&mut self, PauseTopic { topic, paused }: PauseTopic, ctx: &mut Self::Context) {
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.pause(&topic, paused);
            return self.route_next_batches(ctx);
        }
        send_all(self.deliveries.pause(&topic, paused), ctx);
        self.note_diverted();
    }
}

impl Handler<Stop> for Router {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Router {
    /// Routes the batches that the open transaction may take, and commits it if it is due.
    fn route_next_batches(&mut self, ctx: &mut Context<Self>) {
        while let Some(batch) = self.exactly_once.as_mut().and_then(ExactlyOnce::next_batch) {
            if let Some(done) = self.route(batch, ctx) {
                self.complete(done, ctx);
            }
        }
        self.commit_if_due(ctx);
    }

    /// Sorts a batch and sends its parts. Gives it back as done where nothing of it is to be sent.
    fn route(&mut self, batch: EventBatch, ctx: &mut Context<Self>) -> Option<BatchDone> {
        let EventBatch { id, events, commit_end_lsn, permit, .. } = batch;
        let count = events.len();
        let SortedEvents { topics, filtered, .. } = match self.sorter.sort(events) {
            Ok(sorted) => sorted,
            Err(error) => {
                self.fail(error);
                return None;
            }
        };
        self.status.batch(count, permit.bytes());
        self.status.read(count, filtered);
        if topics.is_empty() {
            return Some(BatchDone { id, commit_end_lsn, events: count });
        }
        if let Some(exactly_once) = &mut self.exactly_once {
            exactly_once.mark_dispatched();
        }
        self.deliveries.open_batch(id, topics.len(), count, commit_end_lsn);
        self.send_parts(id, topics, &permit, ctx);
        None
    }

    /// Sends what a part gave back; its batch waits for this in place of the part.
    fn forward(&mut self, returned: ReturnedEvents, ctx: &mut Context<Self>) {
        let (batch, permit) = (returned.batch, returned.permit.clone());
        let Some(from) = self.deliveries.topic(returned.lane) else { return };
        let SortedEvents { topics, filtered, .. } = match forward(from, returned, &mut self.sorter)
        {
            Ok(sorted) => sorted,
            Err(error) => return self.fail(error),
        };
        self.status.read(0, filtered);
        match self.deliveries.replace_part(batch, topics.len()) {
            Some(done) => self.complete(done, ctx),
            None => self.send_parts(batch, topics, &permit, ctx),
        }
    }

    fn send_parts(
        &mut self,
        batch: BatchId,
        mut topics: Vec<(Arc<str>, OutgoingEvents)>,
        permit: &WindowPermit,
        ctx: &mut Context<Self>,
    ) {
        if self.deliveries.holds() {
            // First, so that the later events of its aggregates are diverted.
            topics.sort_by_key(|(topic, _)| **topic != *HELD_LANE);
        }
        for (topic, outgoing) in topics {
            self.send_part(batch, &topic, (outgoing, Vec::new()), permit, ctx);
        }
    }

    /// Sends events to a topic; `cleared` is empty but for [`Released`] ones.
    fn send_part(
        &mut self,
        batch: BatchId,
        topic: &Arc<str>,
        (outgoing, cleared): (OutgoingEvents, Vec<u32>),
        permit: &WindowPermit,
        ctx: &mut Context<Self>,
    ) {
        let (lane, opening) = self.deliveries.lane(topic);
        if let Some(opening) = opening {
            self.open(opening, None, None);
        }
        if self.shown_topic(lane).is_some() {
            self.status.waits(topic, outgoing.events.len());
            self.status.routed(topic, &outgoing.events);
        }
        let permit = permit.clone();
        send_all(self.deliveries.add_diverting(lane, batch, outgoing, cleared, permit), ctx);
        self.note_diverted();
    }

    /// Moves diverted events from their topics to the table, in the status.
    fn note_diverted(&mut self) {
        let mut all = 0;
        for (topic, events) in self.deliveries.take_diverted() {
            self.status.part_finished(&topic, events, 0, Duration::ZERO);
            all += events;
        }
        if all > 0 {
            self.status.waits(&Arc::from(HELD_LANE), all);
        }
    }

    /// Takes the table's answer: sends the events whose aggregate is not held any more.
    fn written(
        &mut self,
        (lane, events, took): (usize, usize, Duration),
        batch: BatchId,
        permit: &WindowPermit,
        released: Vec<Released>,
        ctx: &mut Context<Self>,
    ) {
        if let Some(topic) = self.deliveries.topic(lane) {
            self.status.part_finished(topic, events, 0, took);
        }
        if self.is_undone() {
            return;
        }
        match self.deliveries.replace_part(batch, released.len()) {
            Some(done) => self.complete(done, ctx),
            None => {
                for Released { topic, events, cleared } in released {
                    self.send_part(batch, &topic, (events, cleared), permit, ctx);
                }
            }
        }
    }

    /// With exactly-once: undoes the transaction if it has later events of an aggregate of which one
    /// was refused.
    fn undoes(&mut self, returned: &ReturnedEvents) -> bool {
        let (Some(exactly_once), true) = (&mut self.exactly_once, self.deliveries.holds()) else {
            return false;
        };
        let Some(topic) = self.deliveries.topic(returned.lane) else { return false };
        let (topic, refused) = (Arc::clone(topic), returned.refused.iter());
        let refused = refused.filter(|(event, _)| event.refusal().is_none());
        let is_undone = exactly_once.is_undone();
        let undoes = self.deliveries.is_overtaken(&topic, refused.clone(), is_undone);
        if undoes && let Some((_, error)) = refused.clone().next() {
            exactly_once.undo(error);
        }
        undoes
    }

    fn is_undone(&self) -> bool {
        self.exactly_once.as_ref().is_some_and(ExactlyOnce::is_undone)
    }

    /// Aborts a transaction that is undone once all that was sent has been answered, so that every
    /// refused event is known when it is repeated.
    fn abort_if_undone(&mut self) {
        if self.deliveries.is_settled()
            && let Some(error) = self.exactly_once.as_mut().and_then(ExactlyOnce::take_undone)
        {
            self.abort_transaction(error);
        }
    }

    /// Reports a batch of which all is safe; with exactly-once its transaction does so.
    fn complete(&mut self, done: BatchDone, ctx: &mut Context<Self>) {
        let Some(exactly_once) = &mut self.exactly_once else { return self.done.do_send(done) };
        exactly_once.done(done);
        self.commit_if_due(ctx);
    }

    fn commit_if_due(&mut self, ctx: &mut Context<Self>) {
        let Some(exactly_once) = &mut self.exactly_once else { return };
        exactly_once.commit_if_due(ctx).into_iter().for_each(|done| self.done.do_send(done));
    }

    /// True for a failure that undoes the transaction: what the lane's actor sent is in there,
    /// and sent again it would be there twice.
    fn ends_transaction(&self, lane: usize, error: &Error, has_sent: bool) -> bool {
        let of_handler =
            self.deliveries.topic(lane).is_some_and(|topic| HandlerLaneNames::is_handler(topic));
        self.exactly_once.is_some()
            && !of_handler
            && !self.deliveries.is_held_lane(lane)
            && (has_sent || error.kind() == ErrorKind::TransactionAborted)
    }

    fn abort_transaction(&self, error: Error) {
        if let Some(exactly_once) = &self.exactly_once {
            exactly_once.abort(error);
        }
    }

    fn fail(&self, error: Error) {
        let generation = self.exit.generation;
        self.failed.do_send(ChainFailed { actor: ActorKind::Router, generation, error });
    }

    fn release(&mut self, lane: usize, ctx: &mut Context<Self>) {
        send_all(self.deliveries.release(lane), ctx);
        self.note_diverted();
    }

    fn delivered(&mut self, lane: usize, events: usize, took: Duration) {
        if let Some(topic) = self.shown_topic(lane) {
            self.status.delivered(topic, events, took);
        }
    }

    /// The topic of a lane for the status, where events that are not sent have none.
    fn shown_topic(&self, lane: usize) -> Option<&Arc<str>> {
        self.deliveries.topic(lane).filter(|topic| ***topic != *FILTERED_LANE)
    }

    /// Opens a failed lane again, after this pause or one that grows.
    fn reopen(&mut self, lane: usize, epoch: u32, error: Error, pause: Option<Duration>) {
        // Only the first of an opening's parts to fail finds it open.
        if let Some(opening) = self.deliveries.close(lane, epoch) {
            let holds = self.deliveries.holds() && !self.deliveries.is_held_lane(lane);
            if holds && error.kind() == ErrorKind::RecordBlocked {
                // The topic is sound: what is behind the refused record is sent again at once.
                debug!(self.log, "topic opened again behind a refused record";
                    "topic" => %opening.topic, "error" => %error);
                return self.open(opening, Some(error), Some(Duration::ZERO));
            }
            warn!(self.log, "topic failed, opening it again";
                "topic" => %opening.topic, "failures" => opening.failures, "error" => %error);
            self.status.topic_failed(&opening.topic, &error);
            self.open(opening, Some(error), pause);
        }
    }

    fn open(&self, opening: Opening, error: Option<Error>, pause: Option<Duration>) {
        let Opening { lane, topic, epoch, failures } = opening;
        let generation = self.exit.generation;
        self.lanes.do_send(OpenLane { generation, lane, topic, epoch, failures, error, pause });
    }
}

fn send_all(parts: impl IntoIterator<Item = Dispatch>, ctx: &mut Context<Router>) {
    for dispatch in parts {
        let Dispatch { recipient, topic, events, plans, permit, lane, epoch, part } = dispatch;
        let (place, router) = ((lane, epoch, part), ctx.address().recipient());
        let ack = AckToken::new(place, events.len(), router, permit).with_plans(plans);
        // A closed mailbox drops the batch, and with it the token, which then says so.
        recipient.do_send(TopicBatch { topic, events, ack });
    }
}

#[cfg(test)]
mod tests;
