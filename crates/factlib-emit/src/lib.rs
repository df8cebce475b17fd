//! Emits *facts* (domain events) into PostgreSQL, inside the transaction that makes them true.
//!
//! The relay [factlib] reads committed facts from the write-ahead log and produces them to Kafka:
//! a transactional outbox without a table to poll. This crate is the client for services. It needs
//! no TLS stack, no logger and no build script.
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
//! [`emit()`] takes a [`Transaction`] instead of a connection: code that emits a fact outside a
//! transaction does not compile. An [`Emitter`] writes a fact as a logical message, which is
//! stored only in the WAL, as a row of an outbox table, or both.
#![cfg_attr(
    feature = "tokio-postgres",
    doc = "A [`Publisher`] publishes facts that belong to no other change, on a connection of its own,
and [`delivered()`] waits until the relay has an event in Kafka."
)]
//!
//! # Features
//! | feature | adds |
//! | --- | --- |
//! | `tokio-postgres` (default) | transactions of tokio-postgres; `Publisher`; `delivered` |
//! | `deadpool` | transactions of deadpool-postgres |
//! | `sqlx` | transactions of sqlx (needs Rust 1.94) |
//! | `diesel-async` | transactions of diesel-async |
//! | `opentelemetry` | `Fact::current_trace` |
//!
//! # Where things are
//! | file | idea |
//! | --- | --- |
//! | `fact`, `trace` | a fact and its trace context |
//! | [`reserved`] | metadata keys that the relay interprets |
//! | `emitter`, `statement` | turns facts into one SQL statement |
//! | `transaction`, `driver/` | the trait of transactions, and its implementation for each driver |
//! | `publisher` | publishes facts on a connection of its own |
//! | `receipt` | waits until the relay has delivered an event |
//! | [`schema`] | SQL for the outbox table, and functions that emit from any language |
//! | [`proto`] | the encoded event |
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
#[cfg(feature = "tokio-postgres")]
mod receipt;
pub mod reserved;
pub mod schema;
mod statement;
mod trace;
mod transaction;

use std::borrow::Borrow;

use uuid::Uuid;

#[doc(hidden)] // For the relay.
pub use self::trace::ids as traceparent_ids;
pub use self::{
    emitter::{DEFAULT_MAX_BYTES, Emitter},
    error::{Error, ErrorKind, Result},
    fact::Fact,
    transaction::Transaction,
};
#[cfg(feature = "tokio-postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-postgres")))]
pub use self::{
    publisher::Publisher,
    receipt::{Receipt, delivered},
};

/// The default prefix of logical messages.
pub const DEFAULT_PREFIX: &str = "factlib";

/// Emits a fact under [`DEFAULT_PREFIX`] and returns its event id.
///
/// # Errors
/// Returns the same errors as [`Emitter::emit`].
pub async fn emit(transaction: impl Transaction, fact: impl Borrow<Fact>) -> Result<Uuid> {
    Emitter::default().emit(transaction, fact).await
}

/// The README's example, compiled by the tests.
#[cfg(all(doctest, feature = "tokio-postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
