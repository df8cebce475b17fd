use tokio::sync::Mutex;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{Emitter, Fact, statement::Statement, tokio_postgres::alone};
use crate::{
    Result,
    postgres::{ConnectInfo, sql},
};

/// Publishes facts that belong to no other change: each call is a transaction of its own.
///
/// It connects when it is first used, and again after the connection broke. Where a fact
/// goes with a change of the database, [`emit`](super::emit) it in that transaction
/// instead.
///
/// ```no_run
/// # async fn example() -> factlib::Result<()> {
/// use factlib::emit::{Fact, Publisher};
///
/// let publisher = Publisher::new("postgresql://app@db/shop")?;
/// let event_id = publisher.publish(Fact::new("job", "nightly", "job.started")).await?;
/// # Ok(()) }
/// ```
pub struct Publisher {
    info: ConnectInfo,
    emitter: Emitter,
    client: Mutex<Option<Client>>,
}

impl Publisher {
    /// A publisher of messages under [`DEFAULT_PREFIX`](super::DEFAULT_PREFIX); `url` is a
    /// connection string as libpq takes it. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a malformed connection string.
    pub fn new(url: &str) -> Result<Self> {
        let info = ConnectInfo::parse(url)?;
        Ok(Publisher { info, emitter: Emitter::default(), client: Mutex::new(None) })
    }

    /// Publishes by this emitter instead.
    pub fn emitter(mut self, emitter: Emitter) -> Self {
        self.emitter = emitter;
        self
    }

    /// Publishes a fact and returns its event id; the fact is committed then.
    ///
    /// # Errors
    /// As [`Emitter::emit`]. When the connection breaks meanwhile, the fact may be committed
    /// or not: published again, the same fact has the same event id.
    pub async fn publish(&self, fact: impl std::borrow::Borrow<Fact>) -> Result<Uuid> {
        let (id, statement) = self.emitter.one(fact.borrow())?;
        self.run(&statement).await.map_err(|error| self.emitter.explained(error))?;
        Ok(id)
    }

    /// Publishes facts in their order, in one transaction and one round trip.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_all(&self, facts: &[Fact]) -> Result<Vec<Uuid>> {
        let (ids, statement) = self.emitter.many(facts)?;
        if let Some(statement) = statement {
            self.run(&statement).await.map_err(|error| self.emitter.explained(error))?;
        }
        Ok(ids)
    }

    /// A statement outside of a transaction block is a transaction.
    async fn run(&self, statement: &Statement) -> Result<()> {
        let mut slot = self.client.lock().await;
        // Taken out, so that a call that is given up leaves no statement half sent.
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => sql::connect_info(&self.info).await?,
        };
        let sent = alone(&client, statement).await;
        *slot = Some(client);
        sent
    }
}
