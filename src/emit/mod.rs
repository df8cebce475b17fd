//! The client: facts, written inside the transaction that makes them true.
//!
//! [`emit`] takes a [`Transaction`] and not a connection: a fact that is committed
//! without its transaction, or the other way round, does not compile. An [`Emitter`]
//! says what the fact becomes: a logical message, which only the WAL holds, a row of
//! an outbox table, or both. A [`Publisher`] has a connection of its own, for facts
//! that belong to no other change.
//!
//! | file | idea |
//! | --- | --- |
//! | `fact` | what happened |
//! | [`reserved`] | metadata that means something to the relay |
//! | `trace` | the trace that it happened in |
//! | `emitter`, `statement` | facts as one statement |
//! | `transaction` | what facts are emitted in; below it, one file a driver |
//! | `publisher` | the simple case |
//! | [`schema`] | the outbox table, and functions for everyone else |

#[cfg(feature = "deadpool")]
mod deadpool;
#[cfg(feature = "diesel-async")]
mod diesel_async;
mod emitter;
mod fact;
mod publisher;
pub mod reserved;
pub mod schema;
#[cfg(feature = "sqlx")]
mod sqlx;
mod statement;
mod tokio_postgres;
mod trace;
mod transaction;

use std::borrow::Borrow;

use uuid::Uuid;

pub(crate) use self::emitter::DEFAULT_MAX_BYTES;
pub(crate) use self::trace::ids as traceparent_ids;
pub use self::{emitter::Emitter, fact::Fact, publisher::Publisher, transaction::Transaction};
use crate::Result;

/// The prefix of logical messages where no other is configured.
pub const DEFAULT_PREFIX: &str = "factlib";

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
pub async fn emit(transaction: impl Transaction, fact: impl Borrow<Fact>) -> Result<Uuid> {
    Emitter::default().emit(transaction, fact).await
}
