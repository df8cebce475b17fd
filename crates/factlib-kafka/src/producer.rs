//! The producer: topics to send to, and an observer of what goes wrong meanwhile.

use std::{fmt, future::Future, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::{Driver, OpenTopic},
    error::{Error, Result},
    settings::Settings,
    topic::Topic,
};

/// Hears what a client does and suffers; on the driver's task, which must not be held up.
pub trait Observer: Send + Sync + 'static {
    /// Something failed that will be tried again; with the topic that waits for it, where it is
    /// of one.
    fn trouble(&self, _topic: Option<&str>, _error: &Error) {}

    /// A connection was made, after none or after a failure.
    fn connected(&self, _address: &str) {}

    /// A topic has more partitions than before: keys go elsewhere from now on.
    fn grown(&self, _topic: &str, _from: usize, _to: usize) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// An idempotent producer; clones are the same one. It ends when all of them are gone, and so
/// are all [`Topic`]s, once everything has ended that was sent.
#[derive(Clone)]
pub struct Producer {
    opens: mpsc::UnboundedSender<OpenTopic>,
    settings: Arc<Settings>,
}

impl Producer {
    /// A producer, and the task that does its work, which somebody has to spawn on a runtime of
    /// tokio.
    pub fn new(
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let settings = Arc::new(settings);
        let (opens, opened) = mpsc::unbounded_channel();
        let driver = Driver::new(Arc::clone(&settings), observer, opened);
        (Producer { opens, settings }, driver.run())
    }

    /// Looks a topic up, which has to be there.
    ///
    /// # Errors
    /// The brokers' error for the topic, such as `UNKNOWN_TOPIC_OR_PARTITION`. Waits for brokers
    /// that are away.
    pub async fn topic(&self, name: impl Into<Arc<str>>) -> Result<Topic> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::Protocol {
            address: self.settings.bootstrap.join(",").into(),
            what: "the producer has ended".into(),
        };
        self.opens.send(OpenTopic { name: name.into(), answer }).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
