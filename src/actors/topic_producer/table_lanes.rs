//! Lanes of a pipeline without Kafka: only dead letters have one, into their table.

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use async_trait::async_trait;

use crate::{
    Result,
    actors::lane::{LaneContext, Lanes},
    dead_letter::DeadLetterTable,
    messages::{ExitGuard, TopicBatch},
};

/// Opens the lane of the dead letters; without Kafka the router asks for no other one.
pub(crate) struct TableLanes(Arc<DeadLetterTable>);

impl TableLanes {
    pub fn new(table: DeadLetterTable) -> Self {
        TableLanes(Arc::new(table))
    }
}

#[async_trait]
impl Lanes for TableLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        Ok(DeadLetterWriter { table: Arc::clone(&self.0), _exit: lane.exit }.start().recipient())
    }

    async fn check(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

/// Writes dead letters into the table.
struct DeadLetterWriter {
    table: Arc<DeadLetterTable>,
    _exit: ExitGuard,
}

impl Actor for DeadLetterWriter {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for DeadLetterWriter {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, ctx: &mut Self::Context) {
        let (table, events) = (Arc::clone(&self.table), Arc::clone(&batch.events));
        let keeping = async move { table.keep_each(events.iter()).await };
        // The order of dead letters means nothing.
        ctx.spawn(keeping.into_actor(self).map(|kept, _, _| match kept {
            Ok(()) => batch.ack.ack(),
            Err(error) => batch.ack.fail_with(error, None),
        }));
    }
}
