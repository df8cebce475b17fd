//! The client: facts, written inside the transaction that makes them true.
//!
//! [`emit`] takes a transaction and not a connection: a fact that is committed
//! without its transaction, or the other way round, does not compile. The fact
//! becomes a transactional logical message, which only the WAL holds: there is
//! no table to grow.

mod fact;

use std::borrow::Borrow;

use tokio_postgres::Transaction;
use uuid::Uuid;

pub use self::fact::Fact;
use crate::{Error, ErrorKind, Result, postgres::postgres_error};

/// The prefix of logical messages where no other is configured.
pub const DEFAULT_PREFIX: &str = "factlib";

const EMIT: &str = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";

/// The order of the array is the order in the WAL.
const EMIT_ALL: &str = "\
SELECT pg_logical_emit_message(true, $1, message)
FROM unnest($2::bytea[]) WITH ORDINALITY AS facts (message, n) ORDER BY n";

/// Emits a fact under [`DEFAULT_PREFIX`] and returns its event id.
///
/// ```no_run
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use factlib::emit::{Fact, emit};
///
/// let tx = client.transaction().await?;
/// tx.execute("INSERT INTO users (id, name) VALUES ($1, $2)", &[&"user123", &"Ada"]).await?;
/// let fact = Fact::new("user", "user123", "user.created").payload(r#"{"name":"Ada"}"#);
/// let event_id = emit(&tx, fact).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`Emitter::emit`].
pub async fn emit(transaction: &Transaction<'_>, fact: impl Borrow<Fact>) -> Result<Uuid> {
    Emitter::new(DEFAULT_PREFIX).emit(transaction, fact).await
}

/// Emits facts under a prefix; the relay reads one prefix.
#[derive(Clone, Debug)]
pub struct Emitter {
    prefix: String,
}

impl Emitter {
    /// An emitter for the relay whose `postgres.message_prefix` is `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Emitter { prefix: prefix.into() }
    }

    /// Emits a fact and returns its event id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFact`] before anything is sent; otherwise what
    /// PostgreSQL says, after which the transaction can only be rolled back.
    pub async fn emit(
        &self,
        transaction: &Transaction<'_>,
        fact: impl Borrow<Fact>,
    ) -> Result<Uuid> {
        let (id, message) = fact.borrow().encode()?;
        self.run(transaction, EMIT, &message).await?;
        Ok(id)
    }

    /// Emits facts in their order, in one round trip, and returns their event ids.
    ///
    /// # Errors
    /// As [`emit`](Self::emit); an invalid fact is named by its place, and none is sent.
    pub async fn emit_all(
        &self,
        transaction: &Transaction<'_>,
        facts: &[Fact],
    ) -> Result<Vec<Uuid>> {
        let mut ids = Vec::with_capacity(facts.len());
        let mut messages = Vec::with_capacity(facts.len());
        for (n, fact) in facts.iter().enumerate() {
            let (id, message) = fact.encode().map_err(|error| {
                Error::new(error.kind(), format!("fact {} of {}", n + 1, facts.len()))
                    .caused_by(error)
            })?;
            ids.push(id);
            messages.push(message);
        }
        if !messages.is_empty() {
            self.run(transaction, EMIT_ALL, &messages).await?;
        }
        Ok(ids)
    }

    async fn run(
        &self,
        transaction: &Transaction<'_>,
        statement: &str,
        messages: &(dyn tokio_postgres::types::ToSql + Sync),
    ) -> Result<()> {
        if self.prefix.is_empty() || self.prefix.contains('\0') {
            let what = format!("{:?} can't be the prefix of a logical message", self.prefix);
            return Err(Error::new(ErrorKind::InvalidFact, what));
        }
        transaction
            .query(statement, &[&self.prefix, messages])
            .await
            .map_err(|error| postgres_error("cannot emit", error))?;
        Ok(())
    }
}
