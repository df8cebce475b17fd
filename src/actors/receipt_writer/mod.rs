//! ReceiptWriter: writes the receipts of ended parts, and removes old ones from the table.
//!
//! # Life
//! One for the pipeline's life, a task on the thread that saves positions. It ends with the last
//! [`ReceiptSender`](crate::receipts::ReceiptSender).
//!
//! # Backpressure
//! None of its own: a part that waits for its receipts holds its bytes of the window, and so the
//! reader.
//!
//! # Failure
//! A store that takes no receipts is tried again for ever, and what ended waits for it. In a
//! transaction, a topic that takes no receipts ends the session, which is begun again.

mod to_table;
mod to_topic;

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use slog::{Logger, warn};
use tokio::{
    sync::mpsc,
    time::{interval, sleep},
};

use self::{to_table::TableWriter, to_topic::TopicWriter};
use crate::{
    Error, Result,
    receipts::{ReceiptTable, ReceiptTask, ReceiptTopic},
    status::{ActorState, BlockedBy, PipelineState, Status},
};

/// Name in the status and the log.
const NAME: &str = "receipt_writer";
/// Interval of looking for old rows.
const REMOVE_INTERVAL: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The store of receipts.
#[derive(Clone)]
pub(crate) enum ReceiptTarget {
    Topic(Arc<ReceiptTopic>),
    Table(Arc<ReceiptTable>),
}

impl ReceiptTarget {
    /// Creates what is missing, if that is wanted.
    ///
    /// # Errors
    /// Without the store, the relay can't start.
    pub async fn prepare(&self, log: &Logger) -> Result<()> {
        match self {
            ReceiptTarget::Topic(topic) => topic.create(log).await.map(drop),
            ReceiptTarget::Table(table) => table.prepare().await,
        }
    }
}

/// Writes receipts to their store.
pub(crate) struct ReceiptWriter {
    pub target: ReceiptTarget,
    pub tasks: mpsc::UnboundedReceiver<ReceiptTask>,
    pub slot: String,
    pub retention: Duration,
    pub status: Arc<Status>,
    pub log: Logger,
}

impl ReceiptWriter {
    /// Writes until nobody can send any more.
    pub async fn run(self) {
        let ReceiptWriter { target, tasks, slot, retention, status, log } = self;
        status.actor_is(NAME, ActorState::Running);
        match target {
            ReceiptTarget::Topic(topic) => {
                let trouble = Trouble::new(BlockedBy::Kafka, status, log.clone());
                TopicWriter::new(topic, slot, trouble, log).run(tasks).await;
            }
            ReceiptTarget::Table(table) => {
                let trouble = Trouble::new(BlockedBy::Store, Arc::clone(&status), log.clone());
                let writer = TableWriter { table: Arc::clone(&table), slot, trouble };
                tokio::select! {
                    () = writer.run(tasks) => {}
                    () = remove_old(&table, retention, &status, &log) => {}
                }
            }
        }
    }
}

/// Removes old rows while the pipeline runs.
async fn remove_old(table: &ReceiptTable, retention: Duration, status: &Status, log: &Logger) {
    let mut ticks = interval(REMOVE_INTERVAL);
    let mut last_error = None;
    loop {
        ticks.tick().await;
        // Whoever stands by leaves it to the one that reads.
        if status.snapshot().state != PipelineState::Running {
            continue;
        }
        let error = table.remove_older(retention).await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|error| last_error.as_ref() != Some(*error)) {
            warn!(log, "old receipts can't be removed, trying again"; "error" => error);
        }
        last_error = error;
    }
}

/// Failures of the store in a row.
struct Trouble {
    pauses: Option<ExponentialBackoff>,
    blocked_by: BlockedBy,
    status: Arc<Status>,
    log: Logger,
}

impl Trouble {
    fn new(blocked_by: BlockedBy, status: Arc<Status>, log: Logger) -> Self {
        Trouble { pauses: None, blocked_by, status, log }
    }

    /// Reports a failure, and waits before the next try.
    async fn pause(&mut self, error: &Error) {
        let builder = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        let is_first = self.pauses.is_none();
        let pauses = self.pauses.get_or_insert_with(|| builder.build());
        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
        self.status.actor_waits(NAME, Some(self.blocked_by));
        self.status.actor_complains(NAME, error.to_string());
        if is_first {
            warn!(self.log, "receipts can't be written, and what they are for waits";
                "error" => %error);
        }
        sleep(pause).await;
    }

    /// Notes that the store takes receipts.
    fn is_over(&mut self) {
        if self.pauses.take().is_some() {
            self.status.actor_waits(NAME, None);
        }
    }
}
