//! Emits facts as logical messages, outbox rows, or both, and enforces the size limits.

use std::borrow::Borrow;

use prost::Message;
use uuid::Uuid;

use crate::{
    DEFAULT_PREFIX, Error, ErrorKind, Fact, Result, Transaction,
    proto::OutboxEvent,
    statement::{self, Statement},
};

/// Default limit for an encoded fact. It leaves room for key, headers and batch header within the
/// default of a broker's `message.max.bytes`, 1,048,588.
pub const DEFAULT_MAX_BYTES: usize = 1_000_000;

/// PostgreSQL's limit for one value, less the overhead of the message in the WAL.
const POSTGRES_MAX_BYTES: usize = (1 << 30) - (1 << 16);

/// Emits facts in transactions.
///
/// | constructor | result for each fact |
/// | --- | --- |
/// | [`new`](Self::new) | a logical message, stored only in the WAL, so no table grows |
/// | [`table`](Self::table) | a row of an outbox table |
/// | [`archive`](Self::archive) | both, with the same id: the message for the relay, the row for queries and replays |
#[derive(Clone, Debug)]
pub struct Emitter {
    prefix: Option<String>,
    table: Option<String>,
    max_bytes: usize,
}

impl Default for Emitter {
    /// Emits messages under [`DEFAULT_PREFIX`].
    fn default() -> Self {
        Emitter::new(DEFAULT_PREFIX)
    }
}

impl Emitter {
    /// Emits logical messages, for the relay whose `postgres.message_prefix` is `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Emitter { prefix: Some(prefix.into()), table: None, max_bytes: DEFAULT_MAX_BYTES }
    }

    /// Inserts rows into a table, `name` or `schema.name`; `factlib setup --outbox-table` creates it.
    pub fn table(name: impl Into<String>) -> Self {
        Emitter { prefix: None, table: Some(name.into()), max_bytes: DEFAULT_MAX_BYTES }
    }

    /// Inserts a row and emits a message for each fact, in one round trip. The relay must read
    /// only the messages, not the table.
    pub fn archive(prefix: impl Into<String>, table: impl Into<String>) -> Self {
        Emitter { table: Some(table.into()), ..Emitter::new(prefix) }
    }

    /// Sets the maximum bytes of an encoded fact, instead of [`DEFAULT_MAX_BYTES`]. Set it to the
    /// broker's `message.max.bytes`, less room for key and headers.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Allows facts of any size that PostgreSQL accepts. The relay stores facts that Kafka refuses
    /// as dead letters.
    pub fn any_size(self) -> Self {
        self.max_bytes(usize::MAX)
    }

    /// Emits a fact and returns its event id.
    ///
    /// # Errors
    /// Returns [`ErrorKind::InvalidFact`], with the field or the limit, before anything is sent.
    /// Otherwise returns PostgreSQL's error, after which the transaction can only be rolled back.
    pub async fn emit(
        &self,
        transaction: impl Transaction,
        fact: impl Borrow<Fact>,
    ) -> Result<Uuid> {
        let (id, statement) = self.one(fact.borrow())?;
        transaction.run(statement).await.map_err(|error| self.explained(error))?;
        Ok(id)
    }

    /// Emits facts in their order, in one round trip, and returns their event ids.
    ///
    /// # Errors
    /// Returns the same errors as [`emit`](Self::emit). The text gives the position of an invalid
    /// fact, and no fact is sent.
    pub async fn emit_all(
        &self,
        transaction: impl Transaction,
        facts: &[Fact],
    ) -> Result<Vec<Uuid>> {
        let (ids, statement) = self.many(facts)?;
        if let Some(statement) = statement {
            transaction.run(statement).await.map_err(|error| self.explained(error))?;
        }
        Ok(ids)
    }

    /// Adds a remedy to a server error about the table.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let (Some(table), Some(code)) = (&self.table, error.sqlstate()) else { return error };
        let remedy = match code {
            "42P01" | "3F000" => format!(
                "create it with `factlib setup --outbox-table={table}`, or name the \
                 existing table"
            ),
            "42703" => format!(
                "{table} lacks columns of an outbox table: `factlib setup --outbox-table={table} \
                 --dry-run` shows them"
            ),
            "42501" => format!("grant the user USAGE on the schema of {table} and INSERT on it"),
            _ => return error,
        };
        error.remedy(remedy)
    }

    pub(crate) fn one(&self, fact: &Fact) -> Result<(Uuid, Statement)> {
        Ok((fact.event_id(), self.statement(vec![self.event(fact)?])?))
    }

    pub(crate) fn many(&self, facts: &[Fact]) -> Result<(Vec<Uuid>, Option<Statement>)> {
        let event = |(n, fact)| {
            self.event(fact).map_err(|error| {
                let what = format!("fact {} of {}", n + 1, facts.len());
                Error::new(error.kind(), what).caused_by(error)
            })
        };
        let events = facts.iter().enumerate().map(event).collect::<Result<Vec<_>>>()?;
        let ids = facts.iter().map(Fact::event_id).collect();
        let statement = (!events.is_empty()).then(|| self.statement(events)).transpose()?;
        Ok((ids, statement))
    }

    fn event(&self, fact: &Fact) -> Result<OutboxEvent> {
        let event = fact.to_event()?;
        let length = event.encoded_len();
        for (limit, whose) in [
            (self.max_bytes, "Emitter::max_bytes, set to the broker's limit,"),
            (POSTGRES_MAX_BYTES, "PostgreSQL"),
        ] {
            if length > limit {
                let what = format!("a fact of {length} bytes is too large: {whose} allows {limit}");
                return Err(Error::new(ErrorKind::InvalidFact, what));
            }
        }
        Ok(event)
    }

    fn statement(&self, events: Vec<OutboxEvent>) -> Result<Statement> {
        if let Some(prefix) = &self.prefix
            && (prefix.is_empty() || prefix.contains('\0'))
        {
            let what = format!("{prefix:?} can't be the prefix of a logical message");
            return Err(Error::new(ErrorKind::InvalidFact, what));
        }
        let table = self.table.as_deref().map(statement::quoted).transpose()?;
        match (&self.prefix, table) {
            (Some(prefix), Some(table)) => Statement::rows_and_messages(&table, prefix, events),
            (None, Some(table)) => Statement::rows(&table, events),
            // Every constructor sets a prefix or a table.
            (prefix, None) => {
                Ok(Statement::messages(prefix.as_deref().unwrap_or(DEFAULT_PREFIX), &events))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_t_be_emitted_says_why() {
        let fact = || Fact::new("a", "1", "e");
        let large = fact().payload(vec![0; 100]);
        for (emitter, fact, text) in [
            (
                Emitter::default().max_bytes(10),
                &large,
                "Emitter::max_bytes, set to the broker's limit, allows 10",
            ),
            (Emitter::new(""), &fact(), "\"\" can't be the prefix of a logical message"),
            (
                Emitter::table("a.b.c"),
                &fact(),
                "\"a.b.c\" is no name of a table (give `table` or `schema.table`)",
            ),
            (
                Emitter::table("t"),
                &fact().metadata("tenant", "\0"),
                "has a NUL, which no row can have",
            ),
        ] {
            let error = emitter.one(fact).expect_err(text).to_string();
            assert!(error.ends_with(text), "{error}");
        }
    }
}
