//! The publisher that connects by URL.

use std::borrow::Borrow;

use factlib_postgres::ConnectInfo;
use uuid::Uuid;

use super::{Emitter, Fact, client_error};
use crate::{Result, postgres::sql};

/// Publishes facts that belong to no other change, over a connection by URL: hosts, TLS and rules
/// are those of the relay.
///
/// It is the [`Publisher`](factlib_emit::Publisher) of `factlib-emit`, which takes any connection.
///
/// ```no_run
/// # async fn example() -> factlib::Result<()> {
/// use factlib::emit::{Fact, Publisher};
///
/// let publisher = Publisher::new("postgresql://app@db/shop")?;
/// let event_id = publisher.publish(Fact::new("job", "nightly", "job.started")).await?;
/// # Ok(()) }
/// ```
pub struct Publisher(factlib_emit::Publisher);

impl Publisher {
    /// A publisher of messages under [`DEFAULT_PREFIX`](super::DEFAULT_PREFIX); `url` is a
    /// connection string as libpq takes it. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a malformed connection string.
    pub fn new(url: &str) -> Result<Self> {
        let info = ConnectInfo::parse(url)?;
        Ok(Publisher(factlib_emit::Publisher::with_connect(move || {
            let info = info.clone();
            async move { sql::connect_info(&info).await.map_err(client_error) }
        })))
    }

    /// Publishes by this emitter instead.
    pub fn emitter(self, emitter: Emitter) -> Self {
        Publisher(self.0.emitter(emitter))
    }

    /// Publishes a fact and returns its event id; the fact is committed then.
    ///
    /// # Errors
    /// As [`factlib_emit::Publisher::publish`].
    pub async fn publish(&self, fact: impl Borrow<Fact>) -> Result<Uuid> {
        Ok(self.0.publish(fact).await?)
    }

    /// Publishes facts in their order, in one transaction and one round trip.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_all(&self, facts: &[Fact]) -> Result<Vec<Uuid>> {
        Ok(self.0.publish_all(facts).await?)
    }
}
