//! Handles each event once, in the consumer's own PostgreSQL transaction.
//!
//! A relay delivers at least once. [`Inbox::first_delivery`] stores the event's id in the transaction
//! that has the event's effect, and says whether it was there.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

use std::time::Duration;

use tokio_postgres::{Error, GenericClient, Transaction};

/// SQL that creates the table and the functions of an inbox, in the schema `factlib`. It may run again.
pub const SCHEMA: &str = include_str!("inbox.sql");

/// Events that are forgotten in one statement.
const FORGET_AT_ONCE: i32 = 10_000;

/// The events that one consumer has handled.
#[derive(Clone, Debug)]
pub struct Inbox {
    consumer: String,
}

impl Inbox {
    /// Names the consumer, for example its consumer group. Several consumers may share a database: each
    /// handles each event once.
    pub fn new(consumer: impl Into<String>) -> Self {
        Inbox { consumer: consumer.into() }
    }

    /// Returns true the first time: handle the event in this transaction. Returns false if the event has
    /// been handled: skip it.
    ///
    /// While another transaction handles the same event, the call waits for its end. If that
    /// transaction is rolled back, this one is the first.
    ///
    /// # Errors
    /// The server can't be reached, or [`SCHEMA`] is missing.
    pub async fn first_delivery(
        &self,
        transaction: &Transaction<'_>,
        event_id: &str,
    ) -> Result<bool, Error> {
        let call = "SELECT factlib.first_delivery($1, $2)";
        transaction.query_one(call, &[&self.consumer, &event_id]).await?.try_get(0)
    }

    /// Forgets the events that were handled longer ago than `age`, and returns how many. An event that
    /// is delivered again after that is handled again, so keep them for as long as a topic does, or
    /// for as long as somebody may replay.
    ///
    /// Each statement forgets at most 10,000.
    ///
    /// # Errors
    /// As [`first_delivery`](Self::first_delivery).
    pub async fn forget(&self, client: &impl GenericClient, age: Duration) -> Result<u64, Error> {
        let call = "SELECT factlib.forget_deliveries($1, $2 * interval '1 second', $3)";
        let mut all = 0;
        loop {
            let age = age.as_secs_f64();
            let row = client.query_one(call, &[&self.consumer, &age, &FORGET_AT_ONCE]).await?;
            let forgotten: i64 = row.try_get(0)?;
            all += forgotten.unsigned_abs();
            if forgotten < i64::from(FORGET_AT_ONCE) {
                return Ok(all);
            }
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
