//! Opens a topic's lane: to Kafka, or to an actor of the user's own.

use std::{sync::Arc, time::Duration};

use actix::Recipient;
use async_trait::async_trait;
use slog::Logger;

use crate::{
    Result,
    messages::{ExitGuard, TopicBatch},
};

/// Makes the actor that delivers a topic's events, again after each failure.
#[async_trait]
pub(crate) trait Lanes: Send + Sync + 'static {
    /// Makes it ready to be sent to. Nothing that an earlier actor of this topic
    /// sent may still be under way when this returns.
    ///
    /// # Errors
    /// A transient error is retried with backoff, another stops the pipeline: what is refused for
    /// the topic alone is for the actor to say, event by event.
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>>;

    /// Waits until the other side, if it is away, is back; true then. False where nothing is known
    /// to be away.
    async fn is_back(&self) -> bool {
        false
    }

    /// Is the other side there at all? Asked once, before anything is read.
    async fn check(&self, timeout: Duration) -> Result<()>;
}

/// The surroundings of a lane's actor.
pub(crate) struct LaneContext {
    /// Its topic.
    pub topic: Arc<str>,
    /// A logger with the topic as a key.
    pub log: Logger,
    /// Openings in a row, before this one, that delivered nothing.
    pub failures: u32,
    /// Held by the actor: the supervisor learns of its end when this is dropped.
    pub exit: ExitGuard,
}
