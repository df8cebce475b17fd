//! Hands ended parts to the actor that writes receipts.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::EndedPart;
use crate::kafka::pipelined::PipelinedTopic;

/// A part whose receipts are to be written.
pub(crate) struct ReceiptTask {
    pub part: EndedPart,
    /// The topic of receipts in the session of transactions that the part belongs to.
    pub in_transaction: Option<Arc<PipelinedTopic>>,
    pub then: Then,
}

/// Called once the receipts are safe.
pub(crate) type Then = Box<dyn FnOnce() + Send>;

/// The way to the writer. With exactly-once, receipts go into the transaction of their events.
#[derive(Clone)]
pub(crate) struct ReceiptSender {
    tasks: mpsc::UnboundedSender<ReceiptTask>,
    in_transaction: Option<Arc<PipelinedTopic>>,
}

/// Makes a queue.
pub(crate) fn receipt_queue() -> (ReceiptSender, mpsc::UnboundedReceiver<ReceiptTask>) {
    let (tasks, queue) = mpsc::unbounded_channel();
    (ReceiptSender { tasks, in_transaction: None }, queue)
}

impl ReceiptSender {
    /// Writes into the transactions of a session by its topic of receipts; none if receipts go
    /// elsewhere.
    pub fn in_transaction(&self, topic: Option<Arc<PipelinedTopic>>) -> Self {
        ReceiptSender { tasks: self.tasks.clone(), in_transaction: topic }
    }

    /// Writes the receipts of a part, and calls `then` once they are safe. If the pipeline ends
    /// before that, `then` is dropped.
    pub fn write(&self, part: EndedPart, then: impl FnOnce() + Send + 'static) {
        if part.is_empty() {
            return then();
        }
        let in_transaction = self.in_transaction.clone();
        // The queue needs no bound: a part holds its bytes of the window until `then` is called.
        // Where the writer is gone, the pipeline has ended.
        let _ = self.tasks.send(ReceiptTask { part, in_transaction, then: Box::new(then) });
    }
}
