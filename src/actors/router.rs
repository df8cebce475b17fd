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
use slog::{Logger, debug, error, warn};

use super::deliveries::{Deliveries, Dispatch, Opening, PartEnd};
use crate::{
    Error, ErrorKind, Event, Result,
    config::RefusalPolicy,
    faults::{FaultSite, Faults},
    kafka::record::{is_kept_in_table, topic_name},
    messages::{
        AckToken, ActorKind, BatchDone, BatchId, ChainFailed, EventBatch, ExitGuard, LaneFailed,
        LaneLost, LaneOpened, OpenLane, PartDone, Stop, TopicBatch, WindowPermit,
    },
    status::Status,
};

/// The actor around [`TopicNames`] and [`Deliveries`].
pub(crate) struct Router {
    pub topics: TopicNames,
    pub dead_letters: DeadLetters,
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
            Err(error) => return self.fail(error),
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

    fn handle(&mut self, done: PartDone, ctx: &mut Self::Context) {
        let (lane, epoch) = (done.lane, done.epoch);
        let block = self.dead_letters.policy == RefusalPolicy::Block;
        match self.deliveries.finish(done, block) {
            PartEnd::Refused { lane, delivered, refused, batch, permit } => {
                self.delivered(lane, delivered);
                self.park(lane, refused, batch, permit, ctx);
            }
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
        self.reopen(lost.lane, lost.epoch, Error::new(ErrorKind::ActorFailed, what));
    }
}

impl Router {
    /// Cuts a batch into one part a topic; order within a topic is kept.
    fn sort(&mut self, events: Vec<Event>) -> Result<Vec<(usize, Vec<Event>)>> {
        let mut parts: Vec<(usize, Vec<Event>)> = Vec::new();
        for event in events {
            let (topic, event) = self.place(event)?;
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

    /// Where an event goes: its topic or, where it has none, the dead letters.
    fn place(&mut self, event: Event) -> Result<(Arc<str>, Event)> {
        let placed = match event.refusal() {
            Some(refusal) => Err(refusal.error.clone()),
            None => self.topics.topic(&event),
        };
        match placed {
            Ok(topic) => Ok((topic, event)),
            Err(error) => self.dead_letter(event, error, None),
        }
    }

    /// The event, addressed to the dead letters, if that is the policy.
    fn dead_letter(
        &self,
        event: Event,
        error: Error,
        topic: Option<&Arc<str>>,
    ) -> Result<(Arc<str>, Event)> {
        match self.dead_letters.policy {
            RefusalPolicy::DeadLetter => {
                error!(self.log, "event goes to the dead letters"; "event" => ?event,
                    "from" => topic.map(|topic| topic.to_string()), "error" => %error);
                self.status.dead_lettered();
                Ok((Arc::clone(&self.dead_letters.topic), event.refused(error, topic.cloned())))
            }
            RefusalPolicy::Stop => Err(error),
            RefusalPolicy::Block => {
                let what = "an event that can't be delivered blocks all behind it";
                Err(Error::new(ErrorKind::RecordBlocked, what).caused_by(error))
            }
        }
    }

    /// Hands refused events on to the dead letters; their batch waits for these instead.
    fn park(
        &mut self,
        lane: usize,
        refused: Vec<(Event, Error)>,
        batch: BatchId,
        permit: WindowPermit,
        ctx: &mut Context<Self>,
    ) {
        let Some(from) = self.deliveries.topic(lane).cloned() else { return };
        let mut parked = Vec::with_capacity(refused.len());
        for (event, error) in refused {
            let placed = match event.refusal() {
                None => self.dead_letter(event, error, Some(&from)),
                // Too large for the dead letters as well: its bytes go to the table.
                Some(refusal)
                    if error.kind() == ErrorKind::RecordTooLarge && !is_kept_in_table(&event) =>
                {
                    let topic = refusal.topic.clone();
                    Ok((Arc::clone(&from), event.refused(error, topic)))
                }
                Some(_) => Err(error),
            };
            match placed {
                Ok((_, event)) => parked.push(event),
                Err(error) => return self.fail(error),
            }
        }
        let (lane, opening) = self.deliveries.lane(&self.dead_letters.topic);
        if let Some(opening) = opening {
            self.open(opening, None);
        }
        if let Some(dispatch) = self.deliveries.add(lane, batch, parked, permit) {
            send(dispatch, ctx);
        }
    }

    fn fail(&self, error: Error) {
        let generation = self.exit.generation;
        self.failed.do_send(ChainFailed { actor: ActorKind::Router, generation, error });
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

/// What becomes of events that can never be delivered.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub policy: RefusalPolicy,
    pub topic: Arc<str>,
}

/// `{prefix}.{aggregate_type}`, made once for each aggregate type.
pub(crate) struct TopicNames {
    prefix: String,
    max: usize,
    known: HashMap<Box<str>, Arc<str>>,
}

impl TopicNames {
    /// At most `max` of them.
    pub fn new(prefix: impl Into<String>, max: usize) -> Self {
        TopicNames { prefix: prefix.into(), max, known: HashMap::new() }
    }

    fn topic(&mut self, event: &Event) -> Result<Arc<str>> {
        let aggregate_type = event.aggregate_type();
        if let Some(topic) = self.known.get(aggregate_type) {
            return Ok(Arc::clone(topic));
        }
        let topic: Arc<str> = topic_name(&self.prefix, aggregate_type)?.into();
        if self.known.len() >= self.max {
            let what = format!("{topic} would be one topic more than the {} allowed", self.max);
            let remedy = "are aggregate types made of ids? kafka.topics.max sets the limit";
            return Err(Error::new(ErrorKind::RecordRefused, what).remedy(remedy));
        }
        self.known.insert(aggregate_type.into(), Arc::clone(&topic));
        Ok(topic)
    }
}
