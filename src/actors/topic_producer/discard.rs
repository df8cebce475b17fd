//! Discard: lanes that deliver to nothing, to measure what is above them.

use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient};
use async_trait::async_trait;

use crate::{
    Result,
    actors::lane::{LaneContext, Lanes},
    messages::{ExitGuard, TopicBatch},
};

/// Opens lanes that acknowledge every batch at once.
pub(crate) struct DiscardLanes;

#[async_trait]
impl Lanes for DiscardLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        Ok(Discard { _exit: Some(lane.exit) }.start().recipient())
    }

    async fn check(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Discard {
    _exit: Option<ExitGuard>,
}

impl Actor for Discard {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for Discard {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        batch.ack.ack();
    }
}
