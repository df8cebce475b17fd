//! Describes an outbox table for `factlib replay`, which reads its rows by SQL: names of the columns
//! in, and an event for each row's values out.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use factlib_postgres::pgoutput::Value;
use tokio_postgres::Client;

use super::{
    mapping::{ColumnRef, Mapping},
    publication::{identifier, resolve_table},
    row::RowContext,
    value::oid,
};
use crate::{Error, ErrorKind, Event, Lsn, Result, config::OutboxTable};

/// An outbox table with its columns resolved.
pub(crate) struct ArchiveTable {
    config: OutboxTable,
    topic_prefix: Option<Arc<str>>,
    mapping: Mapping,
    created_at: ColumnRef,
    columns: Vec<(String, u32)>,
    /// Time at which the table was opened. It stands in for the commit time, which a row read by SQL
    /// does not carry.
    opened_ns: i64,
}

impl ArchiveTable {
    /// Looks the table up in the catalog.
    ///
    /// # Errors
    /// The table does not exist, lacks a column, or has no column with the time of an event.
    pub async fn find(client: &Client, config: OutboxTable) -> Result<Self> {
        let found = resolve_table(client, &config).await?;
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

    /// The table's quoted name for SQL.
    pub fn identifier(&self) -> String {
        identifier(&self.config)
    }

    /// Names of all columns, in the order in which [`event`](Self::event) takes their values.
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

    /// Indexes of the id and of the time among a row's values.
    pub fn id_and_time_indexes(&self) -> (usize, usize) {
        (self.mapping.id.index, self.created_at.index)
    }

    /// Converts a time in Unix microseconds to an SQL expression of the time column's type.
    pub fn time_literal(&self, us: u128) -> String {
        let since_1970 = |epoch: &str| {
            // Older servers overflow when one interval holds all of it.
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

    /// Builds a row's event as the relay would from the WAL, but without a position. A row without a
    /// usable time gets the time at which the table was opened.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] with the reason why the row is not an event.
    pub fn event(&self, values: &[Value<'_>], frames: &Bytes) -> Result<Event> {
        let context = RowContext {
            table: &self.config,
            topic_prefix: self.topic_prefix.as_ref(),
            mapping: &self.mapping,
            commit_time_ns: self.opened_ns,
            frames,
        };
        Ok(context.event_from_values(values, Lsn::ZERO, &mut BytesMut::new())?.event)
    }

    fn name(&self, at: ColumnRef) -> &str {
        self.columns.get(at.index).map_or("", |(name, _)| name)
    }
}
