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

use std::{collections::HashMap, sync::Arc};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use slog::{Logger, debug, warn};

use super::deliveries::{Deliveries, Dispatch, Opening, PartEnd};
use crate::{
    Error, Event, Result,
    faults::{FaultSite, Faults},
    kafka::record::topic_name,
    messages::{
        AckToken, ActorKind, BatchDone, ChainFailed, EventBatch, ExitGuard, LaneFailed, LaneLost,
        LaneOpened, OpenLane, PartDone, Stop, TopicBatch,
    },
    status::Status,
};

/// The actor around [`TopicNames`] and [`Deliveries`].
pub(crate) struct Router {
    pub topics: TopicNames,
    pub deliveries: Deliveries,
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
        let EventBatch { id, events, commit_end_lsn, permit } = batch;
        let count = events.len();
        let parts = match self.sort(events) {
            Ok(parts) => parts,
            Err(error) => {
                let generation = self.exit.generation;
                self.failed.do_send(ChainFailed { actor: ActorKind::Router, generation, error });
                return;
            }
        };
        self.deliveries.open_batch(id, parts.len(), count, commit_end_lsn);
        for (lane, events) in parts {
            if let Some(dispatch) = self.deliveries.add(lane, id, events, permit.clone()) {
                send(dispatch, ctx);
            }
        }
    }
}

impl Handler<PartDone> for Router {
    type Result = ();

    fn handle(&mut self, done: PartDone, _: &mut Self::Context) {
        let (lane, epoch) = (done.lane, done.epoch);
        match self.deliveries.finish(done) {
            PartEnd::Stale => {}
            PartEnd::Part { lane, events } => self.delivered(lane, events),
            PartEnd::Batch { lane, events, done } => {
                self.delivered(lane, events);
                self.done.do_send(done);
            }
            PartEnd::Failed(error) => self.reopen(lane, epoch, error),
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
        self.reopen(failed.lane, failed.epoch, failed.error);
    }
}

impl Handler<LaneLost> for Router {
    type Result = ();

    fn handle(&mut self, lost: LaneLost, _: &mut Self::Context) {
        let what = "the topic's actor ended";
        self.reopen(lost.lane, lost.epoch, Error::new(crate::ErrorKind::ActorFailed, what));
    }
}

impl Router {
    /// Cuts a batch into one part a topic; order within a topic is kept.
    fn sort(&mut self, events: Vec<Event>) -> Result<Vec<(usize, Vec<Event>)>> {
        let mut parts: Vec<(usize, Vec<Event>)> = Vec::new();
        for event in events {
            let topic = self.topics.topic(&event)?;
            let (lane, opening) = self.deliveries.lane(&topic);
            if let Some(opening) = opening {
                self.open(opening, None);
            }
            // A batch has few topics, and neighbours often share one.
            match parts.iter_mut().rev().find(|(other, _)| *other == lane) {
                Some((_, part)) => part.push(event),
                None => parts.push((lane, vec![event])),
            }
        }
        Ok(parts)
    }

    fn delivered(&mut self, lane: usize, events: usize) {
        if let Some(topic) = self.deliveries.topic(lane) {
            self.status.delivered(topic, events);
        }
    }

    fn reopen(&mut self, lane: usize, epoch: u32, error: Error) {
        // Only the first of an opening's parts to fail finds it open.
        if let Some(opening) = self.deliveries.close(lane, epoch) {
            warn!(self.log, "topic failed, opening it again";
                "topic" => %opening.topic, "failures" => opening.failures, "error" => %error);
            self.status.topic_failed(&opening.topic, &error);
            self.open(opening, Some(error));
        }
    }

    fn open(&self, opening: Opening, error: Option<Error>) {
        let Opening { lane, topic, epoch, failures } = opening;
        let generation = self.exit.generation;
        self.lanes.do_send(OpenLane { generation, lane, topic, epoch, failures, error });
    }
}

fn send(dispatch: Dispatch, ctx: &mut Context<Router>) {
    let Dispatch { recipient, topic, events, permit, lane, epoch, part } = dispatch;
    let ack = AckToken::new((lane, epoch, part), ctx.address().recipient(), permit);
    // A closed mailbox drops the batch, and with it the token, which then says so.
    recipient.do_send(TopicBatch { topic, events, ack });
}

/// `{prefix}.{aggregate_type}`, made once for each aggregate type.
pub(crate) struct TopicNames {
    prefix: String,
    known: HashMap<Box<str>, Arc<str>>,
}

impl TopicNames {
    pub fn new(prefix: impl Into<String>) -> Self {
        TopicNames { prefix: prefix.into(), known: HashMap::new() }
    }

    fn topic(&mut self, event: &Event) -> Result<Arc<str>> {
        let aggregate_type = event.aggregate_type();
        if let Some(topic) = self.known.get(aggregate_type) {
            return Ok(Arc::clone(topic));
        }
        let topic: Arc<str> = topic_name(&self.prefix, aggregate_type)?.into();
        self.known.insert(aggregate_type.into(), Arc::clone(&topic));
        Ok(topic)
    }
}
