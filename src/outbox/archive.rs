//! A table whose rows are events, for whoever reads it by SQL.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use factlib_postgres::pgoutput::Value;
use tokio_postgres::Client;

use super::{
    mapping::{At, Mapping},
    publication::{find, identifier},
    row::Rows,
    value::oid,
};
use crate::{Error, ErrorKind, Event, Lsn, Result, config::OutboxTable};

/// A table and what its columns are.
pub(crate) struct ArchiveTable {
    config: OutboxTable,
    topic_prefix: Option<Arc<str>>,
    mapping: Mapping,
    created_at: At,
    columns: Vec<(String, u32)>,
    /// The time at which the table was opened; it replaces the time of the commit, which a row does
    /// not have.
    opened_ns: i64,
}

impl ArchiveTable {
    /// Looks the table up.
    ///
    /// # Errors
    /// One that is missing, lacks a column, or has none that says when a fact happened.
    pub async fn find(client: &Client, config: OutboxTable) -> Result<Self> {
        let found = find(client, &config).await?;
        let created_at = found.mapping.created_at.ok_or_else(|| {
            let what =
                format!("table {} has no column that says when a fact happened", config.table);
            Error::new(ErrorKind::Config, what).remedy("name one with outbox.columns.created_at")
        })?;
        let topic_prefix = config.topic_prefix().map(Into::into);
        let (mapping, columns) = (found.mapping, found.columns);
        let opened = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let opened_ns = i64::try_from(opened.as_nanos()).unwrap_or(i64::MAX);
        Ok(ArchiveTable { config, topic_prefix, mapping, created_at, columns, opened_ns })
    }

    /// Its name in SQL.
    pub fn identifier(&self) -> String {
        identifier(&self.config)
    }

    /// All columns, in the order in which [`event`](Self::event) takes their values.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    pub fn id(&self) -> &str {
        self.name(self.mapping.id)
    }

    pub fn created_at(&self) -> &str {
        self.name(self.created_at)
    }

    pub fn aggregate_type(&self) -> &str {
        self.name(self.mapping.aggregate_type)
    }

    pub fn aggregate_id(&self) -> &str {
        self.name(self.mapping.aggregate_id)
    }

    pub fn event_type(&self) -> Option<&str> {
        self.mapping.event_type.map(|at| self.name(at))
    }

    /// Where among the values the id and the time are.
    pub fn places(&self) -> (usize, usize) {
        (self.mapping.id.index, self.created_at.index)
    }

    /// A time, given in Unix microseconds, as the column of times has it.
    pub fn instant(&self, us: u128) -> String {
        let since_1970 = |epoch: &str| {
            // All of it in one interval is more than older servers read as a number.
            let (seconds, us) = (us / 1_000_000, us % 1_000_000);
            format!(
                "({epoch} 'epoch' + interval '1 second' * {seconds} + interval '{us} microseconds')"
            )
        };
        match self.created_at.type_oid {
            oid::INT8 | oid::INT4 => {
                let per_second = u128::from(self.config.created_at_unit.per_second());
                (us * per_second / 1_000_000).to_string()
            }
            oid::TIMESTAMP => since_1970("timestamp"),
            _ => since_1970("timestamptz"),
        }
    }

    /// The event that a row is, as the relay reads it from the WAL, but for its position, and for
    /// the commit's time where the row has none that can be used.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: why it is none.
    pub fn event(&self, values: &[Value<'_>], frames: &Bytes) -> Result<Event> {
        let rows = Rows {
            table: &self.config,
            topic_prefix: self.topic_prefix.as_ref(),
            mapping: &self.mapping,
            commit_time_ns: self.opened_ns,
            frames,
        };
        Ok(rows.event_of(values, Lsn::ZERO)?.event)
    }

    fn name(&self, at: At) -> &str {
        self.columns.get(at.index).map_or("", |(name, _)| name)
    }
}
