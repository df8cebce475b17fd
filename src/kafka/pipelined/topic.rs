//! One topic to send to, by the pipelined client.

use std::{
    future::Future,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use factlib_kafka::{PushError, Receipt, Topic, record_batch};
use tokio::sync::oneshot;

use super::{
    delivery::{AfterRefusal, Delivery},
    reports::TopicState,
};
use crate::{
    Error,
    faults::Faults,
    kafka::in_flight::{InFlight, InFlightBatch},
    record::{BorrowedRecord, RecordBatch},
};

/// One opening of a topic. Batches are sent in the order in which they come.
///
/// Where the brokers do not take the topic's records, it is closed: what is acknowledged by then
/// is known, and the rest fails with the brokers' error. In a transaction, the session ends.
pub(crate) struct PipelinedTopic {
    topic: Topic,
    state: Arc<TopicState>,
    in_flight: InFlight,
    faults: Faults,
    after_refusal: AfterRefusal,
    _open: oneshot::Sender<()>,
}

impl PipelinedTopic {
    /// `on_failure` runs when the brokers do not take the topic's records.
    pub(super) fn new(
        on_failure: impl Future<Output = ()> + Send + 'static,
        topic: Topic,
        state: Arc<TopicState>,
        in_flight: InFlight,
        faults: Faults,
    ) -> Self {
        let (open, dropped) = oneshot::channel();
        let (watched, sent) = (Arc::clone(&state), in_flight.clone());
        tokio::spawn(async move {
            let over = async {
                let _ = dropped.await;
                // What was sent may still have to be closed.
                sent.ended().await;
            };
            tokio::select! {
                () = watched.failed.notified() => on_failure.await,
                () = over => {}
            }
        });
        PipelinedTopic {
            topic,
            state,
            in_flight,
            faults,
            after_refusal: AfterRefusal::Continue,
            _open: open,
        }
    }

    /// Sets what happens behind a record that is refused.
    pub fn after_refusal(self, after_refusal: AfterRefusal) -> Self {
        PipelinedTopic { after_refusal, ..self }
    }

    /// The number of its partitions.
    pub fn partitions(&self) -> usize {
        usize::try_from(self.topic.begin().partitions()).unwrap_or_default()
    }

    /// Counts as a batch in flight until it is dropped: the topic is not opened again before.
    pub fn hold(&self) -> InFlightBatch {
        InFlightBatch::new(self.in_flight.clone())
    }

    /// Closes the topic: what was not acknowledged fails with this error, and is not sent any more.
    pub fn fail(&self, error: Error) {
        self.state.fail(error);
    }

    /// Sends a batch; its answer comes when all of its records have ended.
    pub fn send(&self, batch: RecordBatch) {
        let (state, in_flight) = (Arc::clone(&self.state), self.in_flight.clone());
        let faults = self.faults.clone();
        let delivery = Arc::new(Delivery::new(batch, state, in_flight, faults, self.after_refusal));
        if self.state.error().is_some() {
            // Dropped, the delivery says so.
            return;
        }
        let receipt: Arc<dyn Receipt> = delivery.clone();
        let records = Arc::clone(delivery.records());
        let now_ms = now_ms();
        let mut sending = self.topic.begin();
        for index in 0..records.len() {
            // A batch has fewer records than that: it is bounded by the window.
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let mut pushed = Ok(());
            let made = records.with_record(index, &mut |record| {
                pushed = sending.push(
                    &client_record(&record, now_ms),
                    record.partition,
                    &receipt,
                    number,
                );
            });
            match (made, pushed) {
                (Ok(()), Ok(())) => continue,
                (Err(error), _) => delivery.refuse(index, error),
                (_, Err(PushError::NoPartition(partition))) => {
                    delivery.no_partition(index, partition);
                }
                // Closed: the rest of the batch fails in the same way.
                (_, Err(_)) => return,
            }
            if self.after_refusal.stops() {
                // The rest of the batch fails when its delivery is dropped.
                return;
            }
        }
    }
}

/// Gives the record as the client takes it.
pub(super) fn client_record<'a>(
    record: &'a BorrowedRecord<'_>,
    now_ms: i64,
) -> record_batch::Record<'a> {
    record_batch::Record {
        key: Some(record.key),
        value: record.value,
        headers: &record.headers,
        timestamp_ms: record.timestamp_ms.unwrap_or(now_ms),
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
