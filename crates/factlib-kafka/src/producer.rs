//! The idempotent producer, and the observer that reports its failures, connections and requests.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::{Command, DrainHold, Driver},
    error::{Error, Result},
    settings::Settings,
    topic::Topic,
};

/// Is notified of what a client does and of its failures. Runs on the driver's task, so it must
/// not block.
pub trait Observer: Send + Sync + 'static {
    /// An attempt failed and will be repeated. `topic` is the topic concerned, if the failure
    /// concerns a single topic. Called for each failed attempt.
    fn trouble(&self, _topic: Option<&str>, _error: &Error) {}

    /// A topic has recovered: Kafka acknowledged every partition that had failed.
    fn recovered(&self, _topic: &str) {}

    /// The producer has a connection to a broker (`host:port`), the first one or after the former one
    /// ended.
    fn connected(&self, _broker: &str) {}

    /// The connection to a broker ended, or no connection can be opened any more. There is no error
    /// if the client closed the connection itself.
    fn disconnected(&self, _broker: &str, _error: Option<&Error>) {}

    /// A Produce request is sent to a broker.
    fn sent(&self, _broker: &str, _request: &SentRequest) {}

    /// A Produce request has ended with a response, or was lost with its connection.
    fn answered(&self, _broker: &str, _answer: &AnsweredRequest) {}

    /// A topic has more partitions than before. Keys of later records map to other partitions, unless
    /// they are [ignored](crate::AddedPartitions::Ignored).
    fn grown(&self, _topic: &str, _from: usize, _to: usize) {}

    /// A topic to which partitions were added is drained
    /// ([`AddedPartitions::Drained`](crate::AddedPartitions::Drained)): every record that was mapped
    /// to the former partitions has its result. Records that are mapped to all of them are sent once
    /// `hold` is dropped.
    fn drained(&self, _topic: &str, _from: usize, _to: usize, _hold: DrainHold) {}
}

/// Size of a Produce request that is being sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SentRequest {
    /// Number of partitions with a batch in the request.
    pub partitions: usize,
    /// Total bytes of the batches.
    pub bytes: usize,
}

/// Result of a Produce request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AnsweredRequest {
    /// Time since the request was sent.
    pub took: Duration,
    /// True if the connection ended before the response.
    pub is_lost: bool,
    /// Time for which the broker throttles this client because of a quota.
    pub throttled: Duration,
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// An idempotent producer. Clones share one producer. The producer ends when all clones and all
/// [`Topic`]s are dropped and every record has been acknowledged or refused.
#[derive(Clone)]
pub struct Producer {
    commands: mpsc::UnboundedSender<Command>,
}

impl Producer {
    /// Returns a producer and the task that does its work. Spawn the task on a tokio runtime.
    pub fn new(
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let driver = Driver::new(Arc::new(settings), observer, commanded);
        (Producer { commands }, driver.run())
    }

    /// Looks up an existing topic.
    ///
    /// # Errors
    /// Returns the brokers' error for the topic, such as `UNKNOWN_TOPIC_OR_PARTITION`. Waits while
    /// brokers are unavailable.
    pub async fn topic(&self, name: impl Into<Arc<str>>) -> Result<Topic> {
        open_topic(&self.commands, name.into()).await
    }

    /// Closes a topic: its handles accept no more records, and nothing more is sent. Returns when
    /// no request for the topic is in flight; receipts of records without a result are dropped
    /// then. Records of a [`Topic`] that is opened afterwards come after all earlier records.
    pub async fn close(&self, topic: &Topic) {
        let (answer, answered) = oneshot::channel();
        let closing = Command::Close { topic: topic.clone(), answer };
        if self.commands.send(closing).is_err() || answered.await.is_err() {
            // The driver is gone, and can't drop what it never took.
            topic.0.close();
            topic.0.clear();
        }
    }
}

pub(crate) async fn open_topic(
    commands: &mpsc::UnboundedSender<Command>,
    name: Arc<str>,
) -> Result<Topic> {
    let (answer, answered) = oneshot::channel();
    commands.send(Command::Open { name, answer }).map_err(|_| Error::Ended)?;
    answered.await.unwrap_or(Err(Error::Ended))
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
