//! Emits *facts* (domain events) into PostgreSQL, inside the transaction that makes them true.
//!
//! The relay [factlib] reads committed facts out of the write-ahead log and produces each to
//! Kafka: the transactional outbox, without a table to poll. This crate is the client that a
//! service adds. It needs no TLS stack, no logger and no build script.
//!
#![cfg_attr(feature = "tokio-postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "tokio-postgres"), doc = "```ignore")]
//! use factlib_emit::{Fact, emit};
//!
//! # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let tx = client.transaction().await?;
//! tx.execute("INSERT INTO users (id, name) VALUES ($1, $2)", &[&"u1", &"Ada"]).await?;
//! let fact = Fact::new("user", "u1", "user.created").payload(r#"{"name":"Ada"}"#);
//! let event_id = emit(&tx, fact).await?;
//! tx.commit().await?; // the row and its fact, or neither
//! # Ok(()) }
//! ```
//!
//! [`emit()`] takes a [`Transaction`] and not a connection: a fact that is committed without its
//! transaction, or the other way round, does not compile. An [`Emitter`] makes of a fact a logical
//! message, which only the WAL holds, a row of an outbox table, or both.
#![cfg_attr(
    feature = "tokio-postgres",
    doc = "A [`Publisher`] has a connection of its own, for facts that belong to no other change."
)]
//!
//! # Features
//! | feature | adds |
//! | --- | --- |
//! | `tokio-postgres` (default) | transactions of tokio-postgres; `Publisher` |
//! | `deadpool` | transactions of deadpool-postgres |
//! | `sqlx` | transactions of sqlx (needs Rust 1.94) |
//! | `diesel-async` | transactions of diesel-async |
//! | `opentelemetry` | `Fact::current_trace` |
//!
//! # Where things are
//! | file | idea |
//! | --- | --- |
//! | `fact`, `trace` | what happened, and the trace that it happened in |
//! | [`reserved`] | metadata keys that mean something to the relay |
//! | `emitter`, `statement` | facts as one SQL statement |
//! | `transaction`, `driver/` | the trait of transactions, and its implementation for each driver |
//! | `publisher` | a connection of its own |
//! | [`schema`] | SQL for the outbox table, and functions that emit from any language |
//! | [`proto`] | the event on the wire |
//!
//! [factlib]: https://docs.rs/factlib

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod driver;
mod emitter;
mod error;
mod fact;
#[allow(missing_docs)] // Generated.
pub mod proto;
#[cfg(feature = "tokio-postgres")]
mod publisher;
pub mod reserved;
pub mod schema;
mod statement;
mod trace;
mod transaction;

use std::borrow::Borrow;

use uuid::Uuid;

#[cfg(feature = "tokio-postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-postgres")))]
pub use self::publisher::Publisher;
#[doc(hidden)] // For the relay.
pub use self::trace::ids as traceparent_ids;
pub use self::{
    emitter::{DEFAULT_MAX_BYTES, Emitter},
    error::{Error, ErrorKind, Result},
    fact::Fact,
    transaction::Transaction,
};

/// The default prefix of logical messages.
pub const DEFAULT_PREFIX: &str = "factlib";

/// Emits a fact under [`DEFAULT_PREFIX`] and returns its event id.
///
/// # Errors
/// As [`Emitter::emit`].
pub async fn emit(transaction: impl Transaction, fact: impl Borrow<Fact>) -> Result<Uuid> {
    Emitter::default().emit(transaction, fact).await
}

/// The README's example, compiled by the tests.
#[cfg(all(doctest, feature = "tokio-postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
