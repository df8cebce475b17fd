//! HeldEventWriter: writes events of held aggregates into the table `factlib.held_events`.
//!
//! # Life
//! The actor of one lane, which the router opens first with `dead_letter.policy =
//! "hold-aggregate"`. It writes one part after the other, so that the event that was refused is in the
//! table before those that wait behind it.
//!
//! # Backpressure
//! None of its own: a part that waits holds its bytes of the window. At `dead_letter.held_limit`, the
//! lane fails and is opened again until there is room. Until then its batches are not done, so the
//! position stops, and the reader stops when the window is full.
//!
//! # Failure
//! A statement that fails fails the lane: the router sends all parts again, in order.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture,
};
use async_trait::async_trait;
use slog::{Logger, error, warn};

use super::lane::{LaneContext, Lanes};
use crate::{
    Error, ErrorKind, Result,
    dead_letter::{Held, HeldEvents},
    messages::{ExitGuard, Refused, TopicBatch},
    status::Status,
};

/// Name of the lane; no topic can have it, because Kafka allows no colon.
pub(crate) const HELD_LANE: &str = "held:events";

/// Time between two counts of the held events.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Least time between two counts while events are written, and in units of what a count takes.
const SHORTEST_COUNT_PAUSE: Duration = Duration::from_secs(1);
const COUNT_SHARE: u32 = 20;

/// Pause before the lane is opened again at the limit.
const LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// Opens the lane of held events; all others are opened by `rest`.
pub(crate) struct HeldEventLanes {
    held: Arc<HeldEvents>,
    rest: Arc<dyn Lanes>,
    status: Arc<Status>,
}

impl HeldEventLanes {
    pub fn new(held: Arc<HeldEvents>, rest: Arc<dyn Lanes>, status: Arc<Status>) -> Self {
        HeldEventLanes { held, rest, status }
    }
}

#[async_trait]
impl Lanes for HeldEventLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        if *lane.topic != *HELD_LANE {
            return self.rest.open(lane).await;
        }
        let load = self.held.last_load().await;
        self.status.held(self.held.summary().await?);
        let writer = HeldEventWriter {
            held: Arc::clone(&self.held),
            load,
            waiting: VecDeque::new(),
            is_writing: false,
            counted: Instant::now(),
            count_pause: SHORTEST_COUNT_PAUSE,
            status: Arc::clone(&self.status),
            log: lane.log,
            _exit: lane.exit,
        };
        Ok(writer.start().recipient())
    }

    async fn is_back(&self) -> bool {
        self.rest.is_back().await
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        self.rest.check(timeout).await
    }
}

/// The actor around [`HeldEvents`].
struct HeldEventWriter {
    held: Arc<HeldEvents>,
    /// Load of the held aggregates after which its parts were made.
    load: u64,
    /// Parts that wait for the one that is being written.
    waiting: VecDeque<TopicBatch>,
    is_writing: bool,
    counted: Instant,
    /// Least time between two counts.
    count_pause: Duration,
    status: Arc<Status>,
    log: Logger,
    _exit: ExitGuard,
}

impl Actor for HeldEventWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(COUNT_INTERVAL, |this, ctx| this.count(ctx));
    }
}

impl Handler<TopicBatch> for HeldEventWriter {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        self.waiting.push_back(batch);
        if !self.is_writing {
            self.write_next(ctx);
        }
    }
}

impl HeldEventWriter {
    fn write_next(&mut self, ctx: &mut Context<Self>) {
        let Some(batch) = self.waiting.pop_front() else { return };
        self.is_writing = true;
        let (held, load, events) = (Arc::clone(&self.held), self.load, Arc::clone(&batch.events));
        let writing = async move { held.write(&events, load).await };
        ctx.spawn(writing.into_actor(self).map(|written, this, ctx| {
            this.is_writing = false;
            match written {
                Ok(held) => {
                    this.written(batch, held);
                    if this.counted.elapsed() >= this.count_pause {
                        this.count(ctx);
                    }
                    this.write_next(ctx);
                }
                Err(error) => this.fail(batch, error, ctx),
            }
        }));
    }

    /// Answers for a part: events whose aggregate is not held any more are given back.
    fn written(&mut self, batch: TopicBatch, held: Held) {
        for event in batch.events.iter() {
            let Some(refusal) = event.refusal().filter(|refusal| !refusal.waits) else { continue };
            let topic = refusal.topic.as_ref();
            error!(self.log, "event can't be delivered, its aggregate is held"; "event" => ?event,
                "aggregate_type" => event.aggregate_type(), "aggregate_id" => event.aggregate_id(),
                "from" => topic.map_or("", |topic| topic), "error" => %refusal.error);
            self.status.dead_lettered();
            self.status.parked(event, topic.map(|topic| &**topic), &refusal.error);
            if let Some(topic) = topic {
                self.held.refused_before.remove(event, topic);
            }
        }
        let released =
            || Error::new(ErrorKind::RecordBlocked, "its aggregate is not held any more");
        let released = held.released.into_iter().map(|index| Refused { index, error: released() });
        batch.ack.refuse_records(released.collect());
    }

    /// Fails the lane. The parts behind are dropped, which fails them too.
    fn fail(&mut self, batch: TopicBatch, error: Error, ctx: &mut Context<Self>) {
        let pause = (error.kind() == ErrorKind::RecordBlocked).then_some(LIMIT_PAUSE);
        warn!(self.log, "events can't be held, trying again"; "events" => batch.events.len(),
            "error" => %error);
        batch.ack.fail_with(error, pause);
        ctx.stop();
    }

    fn count(&mut self, ctx: &mut Context<Self>) {
        self.counted = Instant::now();
        let held = Arc::clone(&self.held);
        let counting = async move { held.summary().await };
        ctx.spawn(counting.into_actor(self).map(|summary, this, _| {
            this.count_pause = SHORTEST_COUNT_PAUSE.max(this.counted.elapsed() * COUNT_SHARE);
            match summary {
                Ok(summary) => this.status.held(summary),
                Err(error) => warn!(this.log, "held events can't be counted"; "error" => %error),
            }
        }));
    }
}
