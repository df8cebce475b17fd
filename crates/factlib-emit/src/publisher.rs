//! Publishes facts that belong to no other change, on a connection of its own.

use std::{borrow::Borrow, error::Error as StdError, pin::Pin};

use tokio::sync::Mutex;
use tokio_postgres::{
    Client, Config, Socket,
    tls::{MakeTlsConnect, TlsConnect},
};
use uuid::Uuid;

use crate::{
    Emitter, Error, ErrorKind, Fact, Result,
    driver::tokio_postgres::{failed, run_alone},
    statement::Statement,
};

type Connect = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Client>> + Send>> + Send + Sync>;

/// Publishes facts that belong to no other change: each call is a transaction of its own.
///
/// A publisher connects when it is first used, and reconnects after the connection broke. A fact
/// that belongs to a change in the database should be [emitted](crate::emit()) in the transaction
/// of that change instead.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use factlib_emit::{Fact, Publisher};
///
/// let publisher = Publisher::new("postgresql://app@db/shop".parse()?, tokio_postgres::NoTls);
/// let event_id = publisher.publish(Fact::new("job", "nightly", "job.started")).await?;
/// # Ok(()) }
/// ```
pub struct Publisher {
    connect: Connect,
    emitter: Emitter,
    client: Mutex<Option<Client>>,
}

impl Publisher {
    /// Creates a publisher that emits messages under [`DEFAULT_PREFIX`](crate::DEFAULT_PREFIX). It
    /// connects with `config` and `tls` when it is first used.
    ///
    /// The publisher needs a tokio runtime, and spawns a task for each connection.
    pub fn new<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Publisher::with_connect(move || {
            let (config, tls) = (config.clone(), tls.clone());
            async move {
                let (client, connection) = config.connect(tls).await?;
                // The client's next call returns the error of the connection.
                tokio::spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            }
        })
    }

    /// Creates a publisher that gets its clients from `connect`. The connection task of each
    /// client must already be running.
    ///
    /// An [`Error`] from `connect` is returned unchanged. The kind of a tokio-postgres error
    /// depends on its cause; any other error becomes [`ErrorKind::PostgresUnavailable`].
    pub fn with_connect<F, C, E>(connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<Client, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let connect: Connect = Box::new(move || {
            let connecting = connect();
            Box::pin(async move { connecting.await.map_err(|error| connect_error(error.into())) })
        });
        Publisher { connect, emitter: Emitter::default(), client: Mutex::new(None) }
    }

    /// Sets the emitter to publish with.
    pub fn emitter(mut self, emitter: Emitter) -> Self {
        self.emitter = emitter;
        self
    }

    /// Publishes and commits a fact, and returns its event id.
    ///
    /// # Errors
    /// Returns the same errors as [`Emitter::emit`], or a connection error. If the connection
    /// breaks during the call, the fact may or may not be committed. It keeps its event id if it
    /// is published again.
    pub async fn publish(&self, fact: impl Borrow<Fact>) -> Result<Uuid> {
        let (id, statement) = self.emitter.one(fact.borrow())?;
        self.run(&statement).await.map_err(|error| self.emitter.explained(error))?;
        Ok(id)
    }

    /// Publishes facts in their order, in one transaction and one round trip.
    ///
    /// # Errors
    /// Returns the same errors as [`publish`](Self::publish).
    pub async fn publish_all(&self, facts: &[Fact]) -> Result<Vec<Uuid>> {
        let (ids, statement) = self.emitter.many(facts)?;
        if let Some(statement) = statement {
            self.run(&statement).await.map_err(|error| self.emitter.explained(error))?;
        }
        Ok(ids)
    }

    /// Runs a statement in a transaction of its own.
    async fn run(&self, statement: &Statement) -> Result<()> {
        let mut slot = self.client.lock().await;
        // The client is taken out of the slot, so that a cancelled call drops the connection
        // instead of leaving a half-sent statement on it.
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => (self.connect)().await?,
        };
        let sent = run_alone(&client, statement).await;
        *slot = Some(client);
        sent
    }
}

fn connect_error(error: Box<dyn StdError + Send + Sync>) -> Error {
    const WHAT: &str = "cannot connect to PostgreSQL";
    let error = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    match error.downcast::<tokio_postgres::Error>() {
        Ok(error) => failed(WHAT, *error),
        Err(error) => Error::new(ErrorKind::PostgresUnavailable, WHAT).caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn connecting_fails_with_the_error_of_whoever_connects() {
        let fact = Fact::new("job", "nightly", "job.started");
        let publisher = Publisher::with_connect(async || {
            Err(Error::new(ErrorKind::Config, "no such service").remedy("name one"))
        });
        let error = publisher.publish(&fact).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "no such service (name one)");

        let publisher = Publisher::with_connect(async || Err(io::Error::other("away")));
        let error = publisher.publish(&fact).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PostgresUnavailable);
        assert_eq!(error.to_string(), "cannot connect to PostgreSQL: away");

        let nobody = "host=/nonexistent user=u".parse().expect("a connection string");
        let publisher = Publisher::new(nobody, tokio_postgres::NoTls);
        let error = publisher.publish(&fact).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PostgresUnavailable, "{error}");
        assert!(error.to_string().starts_with("cannot connect to PostgreSQL: "), "{error}");
    }
}
