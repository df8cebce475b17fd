//! Batches of a topic wait here, in their order, for the ids of their schemas.

use std::{collections::VecDeque, sync::Arc};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};

use crate::{
    Result,
    messages::TopicBatch,
    schema_registry::{Prefixes, Registry},
};

/// What waits for the registry; the first is being asked for.
pub(super) struct Framing {
    registry: Arc<Registry>,
    waiting: VecDeque<TopicBatch>,
    /// The registry has failed: another actor follows on this one.
    given_up: bool,
}

impl Framing {
    pub fn new(registry: Arc<Registry>) -> Self {
        Framing { registry, waiting: VecDeque::new(), given_up: false }
    }
}

/// An actor that sends batches behind what their schemas put before their values.
pub(super) trait Framed: Actor<Context = Context<Self>> {
    fn framing(&mut self) -> &mut Framing;

    fn send_framed(&mut self, batch: TopicBatch, prefixes: Prefixes, ctx: &mut Context<Self>);

    /// Sends it when the registry has answered for all before it and for it.
    fn frame(&mut self, batch: TopicBatch, ctx: &mut Context<Self>) {
        let framing = self.framing();
        // Dropped, its token says that it was not sent, behind the one that says why.
        if framing.given_up {
            return;
        }
        framing.waiting.push_back(batch);
        if framing.waiting.len() == 1 {
            self.frame_waiting(ctx);
        }
    }

    /// Sends from the front of what waits, or asks the registry.
    fn frame_waiting(&mut self, ctx: &mut Context<Self>) {
        while let Framing { registry, waiting, .. } = self.framing()
            && let Some(TopicBatch { topic, events, .. }) = waiting.front()
        {
            let Some(prefixes) = registry.known(topic, events) else {
                let (topic, events) = (Arc::clone(topic), Arc::clone(events));
                let registry = Arc::clone(registry);
                let asking = async move { registry.prefixes(&topic, &events).await };
                ctx.spawn(asking.into_actor(self).map(|prefixes, this, ctx| {
                    this.answered(prefixes, ctx);
                    this.frame_waiting(ctx);
                }));
                return;
            };
            self.answered(Ok(prefixes), ctx);
        }
    }

    /// Sends the first of what waits, or gives up.
    fn answered(&mut self, prefixes: Result<Prefixes>, ctx: &mut Context<Self>) {
        let Some(batch) = self.framing().waiting.pop_front() else { return };
        match prefixes {
            Ok(prefixes) => self.send_framed(batch, prefixes, ctx),
            Err(error) => {
                batch.ack.fail_with(error, None);
                let framing = self.framing();
                framing.given_up = true;
                framing.waiting.clear();
            }
        }
    }
}
