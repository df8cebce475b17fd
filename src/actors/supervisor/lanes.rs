//! Opens lanes when the router asks, after a pause where they failed, and holds topics back when
//! an operator asks.

use std::{sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use slog::{info, o};

use super::Supervisor;
use crate::{
    ErrorKind,
    actors::lane::LaneContext,
    handlers::HandlerLaneNames,
    messages::{ActorKind, ExitGuard, LaneFailed, LaneOpened, OpenLane, PauseTopic},
};

/// A lane, or the next generation, that waits before it is tried again.
pub(super) struct Pause {
    of: Paused,
    timer: SpawnHandle,
}

enum Paused {
    Lane(OpenLane),
    Generation,
}

impl Handler<OpenLane> for Supervisor {
    type Result = ();

    fn handle(&mut self, request: OpenLane, ctx: &mut Self::Context) {
        if !self.is_present(ActorKind::Router, request.generation) {
            return;
        }
        match &request.error {
            // A topic that Kafka refuses while it is written to waits like one that it can't have.
            Some(error) if !error.is_transient() && error.kind() != ErrorKind::TopicRefused => {
                self.end(Err(error.clone()), ctx);
            }
            None => self.open_lane(request, ctx),
            Some(_) => {
                match request.pause {
                    // A handler's own, which has nothing to do with brokers.
                    Some(pause) => {
                        ctx.run_later(pause, move |this, ctx| {
                            this.end_pause(Paused::Lane(request), ctx);
                        });
                    }
                    None => {
                        let pause = self.restarts.pause(request.failures);
                        self.pause(Paused::Lane(request), pause, ctx);
                    }
                }
            }
        }
    }
}

impl Supervisor {
    /// Starts the next generation after a pause, or when brokers that are away are back.
    pub(super) fn pause_generation(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.pause(Paused::Generation, pause, ctx);
    }

    fn pause(&mut self, of: Paused, pause: Duration, ctx: &mut Context<Self>) {
        self.last_pause += 1;
        let number = self.last_pause;
        let timer = ctx.run_later(pause, move |this, ctx| {
            if let Some(pause) = this.pauses.remove(&number) {
                this.end_pause(pause.of, ctx);
            }
        });
        self.pauses.insert(number, Pause { of, timer });
        self.await_brokers(ctx);
    }

    fn end_pause(&mut self, of: Paused, ctx: &mut Context<Self>) {
        match of {
            Paused::Generation => self.start_generation(ctx),
            Paused::Lane(request) if self.is_present(ActorKind::Router, request.generation) => {
                self.open_lane(request, ctx);
            }
            Paused::Lane(_) => {}
        }
    }

    /// Ends all pauses when brokers that are away answer again: what waits longer then waits for
    /// nothing. One question is enough for all.
    fn await_brokers(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.awaits_brokers, true) {
            return;
        }
        let lanes = Arc::clone(&self.resources.lanes);
        let waiting = async move { lanes.is_back().await };
        ctx.spawn(waiting.into_actor(self).map(|back, this, ctx| {
            this.awaits_brokers = false;
            if !back {
                return;
            }
            info!(this.resources.log, "brokers are back"; "waiting" => this.pauses.len());
            for Pause { of, timer } in std::mem::take(&mut this.pauses).into_values() {
                ctx.cancel_future(timer);
                this.end_pause(of, ctx);
            }
        }));
    }

    fn open_lane(&mut self, request: OpenLane, ctx: &mut Context<Self>) {
        let OpenLane { generation, lane, topic, epoch, failures, .. } = request;
        let to = ctx.address().recipient();
        let actor = if HandlerLaneNames::is_handler(&topic) { "handler" } else { "topic_producer" };
        let context = LaneContext {
            log: self.resources.log.new(o!("actor" => actor, "topic" => topic.to_string())),
            topic,
            failures,
            exit: ExitGuard { actor: ActorKind::Lane { lane, epoch }, generation, to },
        };
        let lanes = Arc::clone(&self.resources.lanes);
        let opening = async move { lanes.open(context).await };
        ctx.spawn(opening.into_actor(self).map(move |result, this, _| {
            let Some(chain) = this.chain.as_ref().filter(|chain| generation >= chain.first) else {
                return;
            };
            match result {
                Ok(recipient) => chain.router.do_send(LaneOpened { lane, epoch, recipient }),
                Err(error) => chain.router.do_send(LaneFailed { lane, epoch, error }),
            }
        }));
    }
}

impl Handler<PauseTopic> for Supervisor {
    type Result = ();

    fn handle(&mut self, pause: PauseTopic, _: &mut Self::Context) {
        let PauseTopic { topic, paused } = &pause;
        let changed = match paused {
            true => self.paused.insert(Arc::clone(topic)),
            false => self.paused.remove(topic),
        };
        if !changed {
            return;
        }
        info!(self.resources.log, "topic paused or resumed"; "topic" => %topic, "paused" => paused);
        self.resources.status.pause(topic, *paused);
        if let Some(chain) = &self.chain {
            chain.router.do_send(pause);
        }
    }
}
