//! Publishers: facts that belong to no other change, on a connection of their own.

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
/// It connects when it is first used, and again after the connection broke. A fact that belongs
/// to a change in the database should be [emitted](crate::emit()) in that transaction instead.
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
    /// A publisher of messages under [`DEFAULT_PREFIX`](crate::DEFAULT_PREFIX), on connections by
    /// `config`, with the TLS of your choice. Nothing is connected yet.
    ///
    /// It connects inside of a tokio runtime, and spawns a task for each connection.
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
                // Its error is that of the client's next call.
                tokio::spawn(connection);
                Ok::<_, tokio_postgres::Error>(client)
            }
        })
    }

    /// A publisher whose clients `connect` gives: each must be driven already.
    ///
    /// An [`Error`] that `connect` returns is passed on as it is; any other is one of kind
    /// [`ErrorKind::PostgresUnavailable`], unless tokio-postgres says more.
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

    /// Publishes by this emitter instead.
    pub fn emitter(mut self, emitter: Emitter) -> Self {
        self.emitter = emitter;
        self
    }

    /// Publishes a fact and returns its event id; the fact is committed then.
    ///
    /// # Errors
    /// As [`Emitter::emit`], or that of connecting. If the connection breaks meanwhile, the fact
    /// may be committed or not: published again, the same fact has the same event id.
    pub async fn publish(&self, fact: impl Borrow<Fact>) -> Result<Uuid> {
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

    /// Runs a statement, which is a transaction where no other is open.
    async fn run(&self, statement: &Statement) -> Result<()> {
        let mut slot = self.client.lock().await;
        // Taken out, so that a call that is given up leaves no statement half sent.
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
