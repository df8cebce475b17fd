//! Lanes: opened when the router asks, held back when somebody else does.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use slog::{info, o};

use super::Supervisor;
use crate::{
    actors::lane::LaneContext,
    handlers::HandlerTopics,
    messages::{ActorKind, ExitGuard, LaneFailed, LaneOpened, OpenLane, PauseTopic},
};

impl Handler<OpenLane> for Supervisor {
    type Result = ();

    fn handle(&mut self, request: OpenLane, ctx: &mut Self::Context) {
        if !self.is_present(ActorKind::Router, request.generation) {
            return;
        }
        match &request.error {
            Some(error) if !error.is_transient() => self.end(Err(error.clone()), ctx),
            None => self.open_lane(request, ctx),
            Some(_) => {
                let grown = || self.restarts.pause(request.failures);
                let pause = request.pause.unwrap_or_else(grown);
                ctx.run_later(pause, move |this, ctx| {
                    if this.is_present(ActorKind::Router, request.generation) {
                        this.open_lane(request, ctx);
                    }
                });
            }
        }
    }
}

impl Supervisor {
    fn open_lane(&mut self, request: OpenLane, ctx: &mut Context<Self>) {
        let OpenLane { generation, lane, topic, epoch, failures, .. } = request;
        let to = ctx.address().recipient();
        let actor = if HandlerTopics::is_handler(&topic) { "handler" } else { "topic_producer" };
        let context = LaneContext {
            log: self.plan.log.new(o!("actor" => actor, "topic" => topic.to_string())),
            topic,
            failures,
            exit: ExitGuard { actor: ActorKind::Lane { lane, epoch }, generation, to },
        };
        let lanes = Arc::clone(&self.plan.lanes);
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
        info!(self.plan.log, "topic paused or resumed"; "topic" => %topic, "paused" => paused);
        self.plan.status.pause(topic, *paused);
        if let Some(chain) = &self.chain {
            chain.router.do_send(pause);
        }
    }
}
