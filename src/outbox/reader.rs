//! The outbox tables of one stream: descriptions and changes in, events out.
//!
//! A stream describes a table before its first change and again when it was altered, by
//! an OID; what is not configured is remembered as foreign. A new stream describes all
//! tables anew, so this lives as long as the stream.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use factlib_postgres::pgoutput::{Columns, Tuple, Value};
use slog::{Logger, error, warn};

use super::{
    mapping::Mapping,
    moves::Moves,
    parked::{ParkedRow, as_json},
    row::Rows,
    value::named,
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{ChangePolicy, OutboxTable},
};

/// Times that can't be used are warned of once in so long for each table.
const TIME_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Turns the rows that were inserted into the configured tables into events.
pub(crate) struct OutboxReader {
    tables: Vec<Table>,
    relations: HashMap<u32, Option<Relation>>,
    /// Whom to tell that a configured table is not what it was.
    news: Option<Box<dyn Fn() + Send>>,
    /// Base types of the stream's own types, by their OIDs, where they make a difference.
    base_types: HashMap<u32, u32>,
    moves: Moves,
    log: Logger,
}

struct Table {
    config: OutboxTable,
    topic_prefix: Option<Arc<str>>,
    partitioned: bool,
    /// It was warned of changes already.
    warned: bool,
    unusable_times: UnusableTimes,
}

/// Rows whose time can't be used, since the last warning.
#[derive(Default)]
struct UnusableTimes {
    warned_at: Option<Instant>,
    rows: u64,
}

/// A configured table as the stream described it last.
struct Relation {
    table: usize,
    columns: Vec<(String, u32)>,
    /// Where it can't be told which column is what, every row is refused.
    mapping: Result<Mapping>,
}

/// A change that an outbox table should not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Update,
    Delete,
    Truncate,
}

impl OutboxReader {
    /// `partitioned` says which of the tables are.
    pub fn new(tables: Vec<OutboxTable>, partitioned: &[bool], log: Logger) -> Self {
        let table = |(index, config): (usize, OutboxTable)| Table {
            topic_prefix: config.topic_prefix().map(Into::into),
            config,
            partitioned: partitioned.get(index).is_some_and(|partitioned| *partitioned),
            warned: false,
            unusable_times: UnusableTimes::default(),
        };
        OutboxReader {
            tables: tables.into_iter().enumerate().map(table).collect(),
            relations: HashMap::new(),
            news: None,
            base_types: HashMap::new(),
            moves: Moves::default(),
            log,
        }
    }

    /// Calls `news` whenever a configured table is not what it was.
    pub fn on_news(mut self, news: impl Fn() + Send + 'static) -> Self {
        self.news = Some(Box::new(news));
        self
    }

    /// A type was described that is not built in. For a domain, the stream has its OID and the
    /// name of the type below it.
    pub fn type_described(&mut self, oid: u32, namespace: &str, name: &str) {
        match named(name).filter(|_| namespace.is_empty()) {
            Some(base) => self.base_types.insert(oid, base),
            None => self.base_types.remove(&oid),
        };
    }

    /// A table was described, for the first time or again.
    pub fn described(&mut self, oid: u32, schema: &str, name: &str, columns: Columns<'_>) {
        let configured =
            self.tables.iter().position(|table| table.config.qualified() == (schema, name));
        let relation = configured.and_then(|index| {
            let base = |oid: u32| self.base_types.get(&oid).copied().unwrap_or(oid);
            let columns: Vec<_> = columns
                .iter()
                .map(|column| (column.name.to_owned(), base(column.type_oid)))
                .collect();
            let mapping = Mapping::resolve(&self.tables.get(index)?.config, &columns);
            Some(Relation { table: index, columns, mapping })
        });
        if self.is_news(oid, schema, name, relation.as_ref())
            && let Some(news) = &self.news
        {
            news();
        }
        self.relations.insert(oid, relation);
    }

    /// True where a configured table has other columns than before, where another table has its
    /// name, or where it has another name, under which its rows are not sent.
    fn is_news(&self, oid: u32, schema: &str, name: &str, now: Option<&Relation>) -> bool {
        match (self.relations.get(&oid).and_then(Option::as_ref), now) {
            (Some(before), Some(now)) => before.columns != now.columns,
            (Some(before), None) => {
                let table = self.tables.get(before.table).map(|table| &table.config.table);
                error!(self.log, "an outbox table was renamed: its rows are not sent any more";
                    "table" => table, "name" => format!("{schema}.{name}"), "oid" => oid);
                true
            }
            (None, Some(now)) => {
                let mut others = self.relations.values().flatten();
                others.any(|other| other.table == now.table)
            }
            (None, None) => false,
        }
    }

    /// The event that an inserted row is; none where the table is not configured.
    ///
    /// What is wrong with the row itself makes an event that is refused.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a table that was not described.
    pub fn inserted(
        &mut self,
        oid: u32,
        row: Tuple<'_>,
        lsn: Lsn,
        commit_time_ns: i64,
        frames: &Bytes,
    ) -> Result<Option<Event>> {
        let Some((relation, table)) = self.relation(oid)? else { return Ok(None) };
        let read = relation.mapping.as_ref().map_err(Clone::clone).and_then(|mapping| {
            let rows = Rows {
                table: &table.config,
                topic_prefix: table.topic_prefix.as_ref(),
                mapping,
                commit_time_ns,
                frames,
            };
            rows.event(row, lsn)
        });
        Ok(Some(match read {
            Ok(read) => {
                let index = relation.table;
                if let Some(why) = read.unusable_time {
                    self.time_is_unusable(index, &why, lsn);
                }
                read.event
            }
            Err(error) => {
                let what = format!("the row of {} at {lsn} is no event", table.config.table);
                let error = Error::new(ErrorKind::RecordRefused, what).caused_by(error);
                let header = ParkedRow::header(&table.config, &relation.columns, commit_time_ns);
                Event::malformed_row(as_json(&relation.columns, row), header, lsn, error)
            }
        }))
    }

    fn time_is_unusable(&mut self, index: usize, why: &str, lsn: Lsn) {
        let Some(Table { config, unusable_times, .. }) = self.tables.get_mut(index) else { return };
        unusable_times.rows += 1;
        if unusable_times.warned_at.is_some_and(|at| at.elapsed() < TIME_WARNING_INTERVAL) {
            return;
        }
        warn!(self.log, "the time of a row can't be used: it is sent with that of its commit";
            "table" => &config.table, "time" => why, "lsn" => %lsn, "rows" => unusable_times.rows);
        *unusable_times = UnusableTimes { warned_at: Some(Instant::now()), rows: 0 };
    }

    /// True for an inserted row that has come from another partition: no event, but an UPDATE.
    ///
    /// # Errors
    /// As [`inserted`](Self::inserted).
    pub fn moved(&mut self, oid: u32, row: Tuple<'_>) -> Result<bool> {
        let id = self.relation(oid)?.and_then(|(relation, table)| relation.id(table, row));
        Ok(id.is_some_and(|(index, id)| self.moves.inserted(index, id)))
    }

    /// A row was deleted, which may be the first half of a move: what the table's policy says
    /// once it is known to be none. There is nothing to say without `lsn`.
    ///
    /// # Errors
    /// As [`changed`](Self::changed).
    pub fn deleted(&mut self, oid: u32, old: Tuple<'_>, lsn: Option<Lsn>) -> Result<()> {
        let found = self.relation(oid)?;
        let Some((relation, table)) = found else { return Ok(()) };
        let (index, delete) = match relation.id(table, old) {
            Some((index, id)) => (index, self.moves.deleted(index, id, lsn)),
            None => (relation.table, lsn),
        };
        delete.map_or(Ok(()), |lsn| self.table_changed(index, Change::Delete, lsn))
    }

    /// The transaction ends.
    ///
    /// # Errors
    /// As [`changed`](Self::changed).
    pub fn ended(&mut self) -> Result<()> {
        let deleted = self.moves.end();
        deleted
            .into_iter()
            .try_for_each(|(index, lsn)| self.table_changed(index, Change::Delete, lsn))
    }

    /// The stream ended inside of a transaction, which comes again.
    pub fn interrupted(&mut self) {
        self.moves = Moves::default();
    }

    /// A row was changed: what the table's policy says.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] where that is to end the relay;
    /// [`ErrorKind::Protocol`] for a table that was not described.
    pub fn changed(&mut self, oid: u32, change: Change, lsn: Lsn) -> Result<()> {
        let Some((Relation { table, .. }, _)) = self.relation(oid)? else { return Ok(()) };
        self.table_changed(*table, change, lsn)
    }

    fn table_changed(&mut self, index: usize, change: Change, lsn: Lsn) -> Result<()> {
        let Some(table) = self.tables.get_mut(index) else { return Ok(()) };
        let name = &table.config.table;
        let (policy, setting, done) = match change {
            Change::Update => (table.config.on_update, "on_update", "updated"),
            Change::Delete => (table.config.on_delete, "on_delete", "deleted"),
            Change::Truncate => (table.config.on_delete, "on_delete", "truncated"),
        };
        match policy {
            ChangePolicy::Ignore => {}
            ChangePolicy::Warn if table.warned => {}
            ChangePolicy::Warn => {
                warn!(self.log, "rows of an outbox table are changed, which sends nothing";
                    "table" => name, "change" => done, "lsn" => %lsn);
                table.warned = true;
            }
            ChangePolicy::Stop => {
                let what = format!("rows of outbox table {name} were {done} at {lsn}");
                let remedy = format!("outbox.{setting} = \"ignore\" or \"warn\" reads on");
                return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
            }
        }
        Ok(())
    }

    fn relation(&self, oid: u32) -> Result<Option<(&Relation, &Table)>> {
        let Some(relation) = self.relations.get(&oid) else {
            let what = format!("a change of table {oid}, which was not described before");
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        Ok(relation.as_ref().and_then(|found| Some((found, self.tables.get(found.table)?))))
    }
}

impl Relation {
    /// The table's index and the id of the row, if rows of the table may move.
    fn id<'a>(&self, table: &Table, row: Tuple<'a>) -> Option<(usize, &'a [u8])> {
        let mapping = self.mapping.as_ref().ok().filter(|_| table.partitioned)?;
        match row.values().nth(mapping.id.index) {
            Some(Value::Text(id) | Value::Binary(id)) => Some((self.table, id)),
            _ => None,
        }
    }
}
