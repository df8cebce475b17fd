//! Reads a table's rows in order, as events.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use factlib_postgres::{Encoding, RawRow, RowSession, TEXT_SETTINGS, pgoutput::Value};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use slog::Logger;

use crate::{
    Error, ErrorKind, Event, Result,
    config::{Config, OutboxTable},
    outbox::ArchiveTable,
    postgres::{self, logged, postgres_error, read_encoding},
};

/// Rows of one FETCH. They are streamed, so this does not determine memory.
const CHUNK: u32 = 1_000;

/// Begins a transaction with one snapshot for all rows. It may stay idle as long as an outage of Kafka
/// lasts. Rows that a security policy hides from this user are an error, and not skipped.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL row_security = off;
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;";

/// Selects the rows to replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// Rows of this time or later.
    pub since: Option<SystemTime>,
    /// Rows before this time.
    pub until: Option<SystemTime>,
    /// The row with this id.
    pub id: Option<String>,
    /// Rows of this aggregate type.
    pub aggregate_type: Option<String>,
    /// Rows of this aggregate.
    pub aggregate_id: Option<String>,
    /// Rows of this event type.
    pub event_type: Option<String>,
    /// Rows after the one with this id.
    pub after: Option<String>,
    /// Maximum number of rows.
    pub limit: Option<u64>,
}

/// A table, read from its oldest to its newest row.
pub struct Archive {
    session: RowSession,
    encoding: Encoding,
    table: ArchiveTable,
    name: String,
    /// Number of selected rows.
    count: u64,
    /// Rows returned by the present FETCH; none between two.
    fetched: Option<u32>,
}

/// A row and its event.
#[non_exhaustive]
pub struct ArchivedRow {
    /// The event's id, after which a replay can continue.
    pub id: String,
    /// The row's time, as PostgreSQL writes it.
    pub created_at: String,
    /// The event, or the reason why the row is not one.
    pub event: Result<Event>,
}

impl Archive {
    /// Opens a table and counts the selected rows.
    ///
    /// # Errors
    /// The server can't be reached or refuses the user; the table does not exist or has no time column;
    /// [`ErrorKind::Config`] if the row to continue after does not exist.
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
        let encoding = read_encoding(&client, log).await?;
        drop(client);
        let settings = &config.postgres;
        let info = settings.connect_info()?;
        let session = RowSession::connect(&logged(&info, log), settings.connect_timeout).await?;
        let mut archive = Archive { session, encoding, table, name, count: 0, fetched: None };
        archive.run(BEGIN).await?;
        if let Some(id) = &selection.after {
            archive.check_after(id).await?;
        }
        let chosen = archive.where_clause(selection);
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
        archive.run(&declare).await?;
        // From here on, the session writes values in the same format as for the relay.
        archive.run(&set_text_settings()).await?;
        let encoding = archive.encoding.client_encoding();
        archive.run(&format!("SET LOCAL client_encoding = '{encoding}'")).await?;
        Ok(archive)
    }

    /// Number of selected rows.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the next row; none after the last. Do not call it again after that.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn next(&mut self) -> Result<Option<ArchivedRow>> {
        let what = self.what();
        loop {
            let fetched = match self.fetched {
                Some(fetched) => fetched,
                None => {
                    self.session.send(&format!("FETCH {CHUNK} FROM factlib_replay")).await?;
                    0
                }
            };
            match self.session.next(&what).await? {
                Some(row) => {
                    self.fetched = Some(fetched + 1);
                    return Ok(Some(self.row(&row)));
                }
                None => {
                    self.fetched = None;
                    if fetched < CHUNK {
                        self.session.end().await;
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn row(&self, row: &RawRow) -> ArchivedRow {
        let texts: Vec<_> = row.iter().map(|value| Some(self.text(value.as_ref()?))).collect();
        // The values are slices of one buffer, as in the stream.
        let mut frames = BytesMut::new();
        texts.iter().flatten().for_each(|text| frames.extend_from_slice(text.bytes()));
        let frames = frames.freeze();
        let mut rest = &frames[..];
        let mut values = Vec::with_capacity(texts.len());
        for text in &texts {
            let length = text.as_ref().map_or(0, |text| text.bytes().len());
            let (bytes, behind) = rest.split_at_checked(length).unwrap_or_default();
            rest = behind;
            values.push(match text {
                Some(Text::AsIs(_) | Text::Converted(_)) => Value::Text(bytes),
                Some(Text::Bytes(_)) => Value::Unconvertible(bytes),
                None => Value::Null,
            });
        }
        let text = |at: usize| {
            let text = texts.get(at).and_then(Option::as_ref).map(Text::bytes);
            String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
        };
        let (id, time) = self.table.id_and_time_indexes();
        let event = self.table.event(&values, &frames);
        ArchivedRow { id: text(id), created_at: text(time), event }
    }

    fn text<'a>(&self, value: &'a [u8]) -> Text<'a> {
        match self.encoding.table() {
            Some(table) => table.utf8(value).map_or(Text::Bytes(value), Text::Converted),
            None => Text::AsIs(value),
        }
    }

    /// Builds the WHERE clause.
    fn where_clause(&self, selection: &Selection) -> String {
        let table = &self.table;
        let (time, id) = (self.time(), escape_identifier(table.id()));
        let equals = |column: &str, value: &Option<String>| {
            let value = escape_literal(value.as_deref()?);
            Some(format!("{} = {}", escape_identifier(column), value.trim_start()))
        };
        let instant = |at: SystemTime| {
            let us = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            table.time_literal(us)
        };
        let after = selection.after.as_deref().map(|after| {
            let from = table.identifier();
            let after = escape_literal(after);
            format!("({time}, {id}) > (SELECT {time}, {id} FROM {from} WHERE {id} = {after})")
        });
        let conditions: Vec<String> = [
            selection.since.map(|at| format!("{time} >= {}", instant(at))),
            selection.until.map(|at| format!("{time} < {}", instant(at))),
            equals(table.id(), &selection.id),
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

    async fn check_after(&mut self, id: &str) -> Result<()> {
        let (from, column) = (self.table.identifier(), escape_identifier(self.table.id()));
        let value = escape_literal(id);
        let query = format!("SELECT count(*) FROM {from} WHERE {column} = {value}");
        if self.number(&query).await? == 1 {
            return Ok(());
        }
        let what = format!("{} has no row {id} to go on after", self.name);
        Err(Error::new(ErrorKind::Config, what).remedy("was it removed? --since goes by the time"))
    }

    async fn number(&mut self, query: &str) -> Result<u64> {
        let what = self.what();
        let number = self.session.value(query, &what).await?.and_then(|text| text.parse().ok());
        number.ok_or_else(|| Error::new(ErrorKind::Protocol, what))
    }

    async fn run(&mut self, statements: &str) -> Result<()> {
        let what = self.what();
        Ok(self.session.run(statements, &what).await?)
    }

    fn time(&self) -> String {
        escape_identifier(self.table.created_at())
    }

    fn what(&self) -> String {
        format!("cannot read {}", self.name)
    }
}

/// Rows that are looked up at once by their ids.
const LOOK_UP: usize = 10_000;

/// Returns those of the ids that a row of the table has.
///
/// # Errors
/// As [`Archive::open`].
pub(crate) async fn ids_among(
    config: &Config,
    table: &str,
    ids: &[&str],
    log: &Logger,
) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let client = postgres::connect(&config.postgres, log).await?;
    let archive = ArchiveTable::find(&client, config.table_named(table)).await?;
    let (id, from) = (escape_identifier(archive.id()), archive.identifier());
    let query = format!("SELECT {id}::text FROM {from} WHERE {id}::text = ANY($1)");
    for ids in ids.chunks(LOOK_UP) {
        let failed = |error| postgres_error(format!("cannot look up rows of {table}"), error);
        let rows = client.query(&query, &[&ids]).await.map_err(failed)?;
        found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    Ok(found)
}

/// A value as the server wrote it, converted to UTF-8 if necessary.
enum Text<'a> {
    AsIs(&'a [u8]),
    Converted(String),
    /// Bytes that are not valid characters.
    Bytes(&'a [u8]),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::AsIs(bytes) | Text::Bytes(bytes) => bytes,
            Text::Converted(text) => text.as_bytes(),
        }
    }
}

/// A query that sets until the transaction's end how values are written.
fn set_text_settings() -> String {
    let call =
        |(name, value): &(&str, &str)| format!("pg_catalog.set_config('{name}', '{value}', true)");
    format!("SELECT {}", TEXT_SETTINGS.iter().map(call).collect::<Vec<_>>().join(", "))
}
