//! FilteredEvents: has receipts written for events that are not sent.

use actix::{Actor, Context, Handler, Recipient};

use crate::{
    messages::{ExitGuard, TopicBatch},
    receipts::{EndedPart, ReceiptSender},
};

/// The actor; it sends nothing to Kafka.
pub(super) struct FilteredEvents {
    receipts: ReceiptSender,
    _exit: ExitGuard,
}

impl FilteredEvents {
    pub fn start(receipts: ReceiptSender, exit: ExitGuard) -> Recipient<TopicBatch> {
        Actor::start(FilteredEvents { receipts, _exit: exit }).recipient()
    }
}

impl Actor for FilteredEvents {
    type Context = Context<Self>;
}

impl Handler<TopicBatch> for FilteredEvents {
    type Result = ();

    fn handle(&mut self, batch: TopicBatch, _: &mut Self::Context) {
        let TopicBatch { events, ack, .. } = batch;
        let ended = EndedPart::filtered(events, ack.plans().clone());
        self.receipts.write(ended, move || ack.ack());
    }
}
