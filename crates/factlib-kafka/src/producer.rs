//! The producer: topics to send to, and an observer of what goes wrong meanwhile.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::{Command, Driver},
    error::{Error, Result},
    settings::Settings,
    topic::Topic,
};

/// Hears what a client does and suffers; on the driver's task, which must not be held up.
pub trait Observer: Send + Sync + 'static {
    /// Something failed that will be tried again; with the topic that waits for it, where it is
    /// of one. It is said at each attempt.
    fn trouble(&self, _topic: Option<&str>, _error: &Error) {}

    /// All that was in trouble of a topic is acknowledged.
    fn recovered(&self, _topic: &str) {}

    /// A connection to a broker (`host:port`) was made, after none or after a failure.
    fn connected(&self, _broker: &str) {}

    /// The connection to a broker ended; without an error where it is not needed any more.
    fn disconnected(&self, _broker: &str, _error: Option<&Error>) {}

    /// A Produce request goes to a broker.
    fn sent(&self, _broker: &str, _request: &SentRequest) {}

    /// A Produce request was answered, or will never be.
    fn answered(&self, _broker: &str, _answer: &AnsweredRequest) {}

    /// A topic has more partitions than before: keys go elsewhere from now on.
    fn grown(&self, _topic: &str, _from: usize, _to: usize) {}
}

/// A Produce request on its way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SentRequest {
    /// Partitions of which it has a batch.
    pub partitions: usize,
    /// Bytes of the batches.
    pub bytes: usize,
}

/// The end of a Produce request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AnsweredRequest {
    /// Time since it was sent.
    pub took: Duration,
    /// The connection ended before the answer came.
    pub is_lost: bool,
    /// The broker wants nothing more for this long, because of a quota.
    pub throttled: Duration,
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// An idempotent producer; clones are the same one. It ends when all of them are gone, and so
/// are all [`Topic`]s, once everything has ended that was sent.
#[derive(Clone)]
pub struct Producer {
    commands: mpsc::UnboundedSender<Command>,
}

impl Producer {
    /// A producer, and the task that does its work, which somebody has to spawn on a runtime of
    /// tokio.
    pub fn new(
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let driver = Driver::new(Arc::new(settings), observer, commanded);
        (Producer { commands }, driver.run())
    }

    /// Looks a topic up, which has to be there.
    ///
    /// # Errors
    /// The brokers' error for the topic, such as `UNKNOWN_TOPIC_OR_PARTITION`. Waits for brokers
    /// that are away.
    pub async fn topic(&self, name: impl Into<Arc<str>>) -> Result<Topic> {
        open_topic(&self.commands, name.into()).await
    }

    /// Closes a topic: nothing more is sent to it, and its handles take nothing more. Returns when
    /// nothing of it is on its way. Receipts of what was not sent, or not answered for, are then
    /// dropped; a [`Topic`] that is asked for after that comes behind all of it.
    pub async fn close(&self, topic: &Topic) {
        let (answer, answered) = oneshot::channel();
        let closing = Command::Close { topic: topic.clone(), answer };
        if self.commands.send(closing).is_ok() {
            // A driver that is gone sends nothing.
            let _ = answered.await;
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
