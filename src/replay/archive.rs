//! Reading a table's rows in their order.

use std::{
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use slog::Logger;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use crate::{
    Error, ErrorKind, Event, Result,
    config::{Config, OutboxTable},
    outbox::ArchiveTable,
    postgres::{self, pgoutput::Value, postgres_error, sql},
};

/// Rows of one FETCH. They come in by and by, so that it says nothing about memory.
const CHUNK: u32 = 1_000;

/// One snapshot for all, and columns written as the replication connection has them. Brokers
/// that are away leave the transaction idle for as long as it takes.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL bytea_output = 'hex';
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;";

/// Which rows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this time or later.
    pub since: Option<SystemTime>,
    /// Before this time.
    pub until: Option<SystemTime>,
    /// Of this aggregate type.
    pub aggregate_type: Option<String>,
    /// Of this aggregate.
    pub aggregate_id: Option<String>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Behind the row with this id.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// A table that is read from its oldest to its newest row.
pub struct Archive {
    client: Client,
    table: ArchiveTable,
    name: String,
    /// How many rows are selected.
    count: u64,
    stream: Option<Pin<Box<SimpleQueryStream>>>,
    /// Rows that the present FETCH gave.
    fetched: u32,
}

/// A row, as the record that the relay makes of it.
pub struct ArchivedRow {
    /// The event's id, by which a replay can go on.
    pub id: String,
    /// When it happened, as PostgreSQL writes it.
    pub created_at: String,
    /// The event, or why the row is none.
    pub event: Result<Event>,
}

impl Archive {
    /// Opens a table and counts what is selected.
    ///
    /// # Errors
    /// A server that can't be reached or does not let us in; a table that is not there or
    /// has no time; [`ErrorKind::Config`] for a row to go on after that is not there.
    pub async fn open(
        config: &Config,
        table: &str,
        selection: &Selection,
        log: &Logger,
    ) -> Result<Self> {
        let client = postgres::connect(&config.postgres, log).await?;
        let name = table.to_owned();
        let table: OutboxTable = config.table_named(table);
        let table = ArchiveTable::find(&client, table).await?;
        sql::run(&client, &format!("cannot read {name}"), BEGIN).await?;
        let mut archive = Archive { client, table, name, count: 0, stream: None, fetched: 0 };
        if let Some(id) = &selection.after {
            archive.check_after(id).await?;
        }
        let chosen = archive.chosen(selection);
        let limit = selection.limit.map(|rows| format!(" LIMIT {rows}")).unwrap_or_default();
        let from = archive.table.identifier();
        let count = format!("SELECT count(*) FROM (SELECT FROM {from}{chosen}{limit}) AS chosen");
        archive.count = archive.number(&count).await?;
        let (time, id) = (archive.time(), escape_identifier(archive.table.id()));
        let columns = archive.table.columns().map(escape_identifier).collect::<Vec<_>>().join(", ");
        let declare = format!(
            "DECLARE factlib_replay NO SCROLL CURSOR FOR
             SELECT {columns} FROM {from}{chosen} ORDER BY {time}, {id}{limit}"
        );
        sql::run(&archive.client, &archive.what(), &declare).await?;
        Ok(archive)
    }

    /// How many rows are selected.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next row; none after the last.
    ///
    /// # Errors
    /// A connection that is lost.
    pub async fn next(&mut self) -> Result<Option<ArchivedRow>> {
        let failed = |what: String| move |error| postgres_error(what, error);
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                empty => {
                    let fetch = format!("FETCH {CHUNK} FROM factlib_replay");
                    let what = format!("cannot read {}", self.name);
                    let stream =
                        self.client.simple_query_raw(&fetch).await.map_err(failed(what))?;
                    self.fetched = 0;
                    empty.insert(Box::pin(stream))
                }
            };
            match stream.next().await.transpose().map_err(failed(self.what()))? {
                Some(SimpleQueryMessage::Row(row)) => {
                    self.fetched += 1;
                    return Ok(Some(self.row(&row)));
                }
                Some(_) => {}
                None => {
                    self.stream = None;
                    if self.fetched < CHUNK {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn row(&self, row: &SimpleQueryRow) -> ArchivedRow {
        let mut frames = BytesMut::new();
        (0..row.len())
            .filter_map(|n| row.get(n))
            .for_each(|text| frames.extend_from_slice(text.as_bytes()));
        let frames: Bytes = frames.freeze();
        let mut rest = &frames[..];
        let mut values = Vec::with_capacity(row.len());
        for n in 0..row.len() {
            values.push(match row.get(n).and_then(|text| rest.split_at_checked(text.len())) {
                Some((text, more)) => {
                    rest = more;
                    Value::Text(text)
                }
                None => Value::Null,
            });
        }
        let text = |at: usize| row.get(at).unwrap_or_default().to_owned();
        let (id, time) = self.table.places();
        let event = self.table.event(&values, &frames);
        ArchivedRow { id: text(id), created_at: text(time), event }
    }

    /// The condition.
    fn chosen(&self, selection: &Selection) -> String {
        let table = &self.table;
        let (time, id) = (self.time(), escape_identifier(table.id()));
        let equals = |column: &str, value: &Option<String>| {
            let value = escape_literal(value.as_deref()?);
            Some(format!("{} = {}", escape_identifier(column), value.trim_start()))
        };
        let instant = |at: SystemTime| {
            let us = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            table.instant(us)
        };
        let after = selection.after.as_deref().map(|after| {
            let from = table.identifier();
            let after = escape_literal(after);
            format!("({time}, {id}) > (SELECT {time}, {id} FROM {from} WHERE {id} = {after})")
        });
        let conditions: Vec<String> = [
            selection.since.map(|at| format!("{time} >= {}", instant(at))),
            selection.until.map(|at| format!("{time} < {}", instant(at))),
            equals(table.aggregate_type(), &selection.aggregate_type),
            equals(table.aggregate_id(), &selection.aggregate_id),
            table.event_type().and_then(|column| equals(column, &selection.event_type)),
            after,
        ]
        .into_iter()
        .flatten()
        .collect();
        match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }

    async fn check_after(&self, id: &str) -> Result<()> {
        let (from, column) = (self.table.identifier(), escape_identifier(self.table.id()));
        let value = escape_literal(id);
        let query = format!("SELECT count(*) FROM {from} WHERE {column} = {value}");
        if self.number(&query).await? == 1 {
            return Ok(());
        }
        let what = format!("{} has no row {id} to go on after", self.name);
        Err(Error::new(ErrorKind::Config, what).remedy("was it removed? --since goes by the time"))
    }

    async fn number(&self, query: &str) -> Result<u64> {
        let answer = self.client.simple_query(query).await;
        let answer = answer.map_err(|error| postgres_error(self.what(), error))?;
        let text = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let number = text.and_then(|text| text.parse().ok());
        number.ok_or_else(|| Error::new(ErrorKind::Protocol, self.what()))
    }

    fn time(&self) -> String {
        escape_identifier(self.table.created_at())
    }

    fn what(&self) -> String {
        format!("cannot read {}", self.name)
    }
}
