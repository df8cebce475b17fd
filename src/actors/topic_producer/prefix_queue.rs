//! Batches of a topic that wait, in their order, for the ids of their schemas.

use std::{collections::VecDeque, sync::Arc};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};

use crate::{Result, format::Prefixes, messages::TopicBatch, schema_registry::Registry};

/// Batches that wait for the schema registry, which is asked for those of the first.
pub(super) struct PrefixQueue {
    registry: Arc<Registry>,
    waiting: VecDeque<TopicBatch>,
    /// True once the registry has failed: this actor is replaced then.
    given_up: bool,
}

impl PrefixQueue {
    pub fn new(registry: Arc<Registry>) -> Self {
        PrefixQueue { registry, waiting: VecDeque::new(), given_up: false }
    }
}

/// An actor that sends batches with the prefixes of their schemas before the values.
pub(super) trait SendsPrefixed: Actor<Context = Context<Self>> {
    fn prefix_queue(&mut self) -> &mut PrefixQueue;

    fn send_prefixed(&mut self, batch: TopicBatch, prefixes: Prefixes, ctx: &mut Context<Self>);

    /// Sends a batch once the registry has answered for it and for all before it.
    fn enqueue(&mut self, batch: TopicBatch, ctx: &mut Context<Self>) {
        let prefix_queue = self.prefix_queue();
        // Dropped, its token says that it was not sent, behind the one that says why.
        if prefix_queue.given_up {
            return;
        }
        prefix_queue.waiting.push_back(batch);
        if prefix_queue.waiting.len() == 1 {
            self.send_waiting(ctx);
        }
    }

    /// Sends batches from the front of the queue, until the registry has to be asked.
    fn send_waiting(&mut self, ctx: &mut Context<Self>) {
        while let PrefixQueue { registry, waiting, .. } = self.prefix_queue()
            && let Some(batch) = waiting.front()
        {
            let Some(prefixes) = registry.cached_prefixes(batch.schema_refs()) else {
                let (topic, schema_refs) =
                    (Arc::clone(&batch.topic), batch.schema_refs().collect::<Vec<_>>());
                let registry = Arc::clone(registry);
                let asking = async move { registry.prefixes(&topic, schema_refs).await };
                ctx.spawn(asking.into_actor(self).map(|prefixes, this, ctx| {
                    this.answered(prefixes, ctx);
                    this.send_waiting(ctx);
                }));
                return;
            };
            self.answered(Ok(prefixes), ctx);
        }
    }

    /// Sends the first batch of the queue, or gives up.
    fn answered(&mut self, prefixes: Result<Prefixes>, ctx: &mut Context<Self>) {
        let Some(batch) = self.prefix_queue().waiting.pop_front() else { return };
        match prefixes {
            Ok(prefixes) => self.send_prefixed(batch, prefixes, ctx),
            Err(error) => {
                batch.ack.fail_with(error, None);
                let prefix_queue = self.prefix_queue();
                prefix_queue.given_up = true;
                prefix_queue.waiting.clear();
            }
        }
    }
}
