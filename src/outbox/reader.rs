//! The outbox tables of one stream: descriptions and changes in, events out.
//!
//! A stream describes a table before its first change and again when it was altered, by
//! an OID; what is not configured is remembered as foreign. A new stream describes all
//! tables anew, so this lives as long as the stream.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use slog::{Logger, error, warn};

use super::{
    mapping::Mapping,
    row::{Rows, as_json},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{ChangePolicy, OutboxTable},
    postgres::pgoutput::{Columns, Tuple},
};

/// Turns the rows that were inserted into the configured tables into events.
pub(crate) struct OutboxReader {
    tables: Vec<Table>,
    relations: HashMap<u32, Option<Relation>>,
    /// Whom to tell that a configured table is not what it was.
    news: Option<Box<dyn Fn() + Send>>,
    log: Logger,
}

struct Table {
    config: OutboxTable,
    topic_prefix: Option<Arc<str>>,
    /// It was warned of changes already.
    warned: bool,
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
    pub fn new(tables: Vec<OutboxTable>, log: Logger) -> Self {
        let table = |config: OutboxTable| {
            let topic_prefix = config.topic_prefix().map(Into::into);
            Table { config, topic_prefix, warned: false }
        };
        OutboxReader {
            tables: tables.into_iter().map(table).collect(),
            relations: HashMap::new(),
            news: None,
            log,
        }
    }

    /// Calls `news` whenever a configured table is not what it was.
    pub fn on_news(mut self, news: impl Fn() + Send + 'static) -> Self {
        self.news = Some(Box::new(news));
        self
    }

    /// A table was described, for the first time or again.
    pub fn described(&mut self, oid: u32, schema: &str, name: &str, columns: Columns<'_>) {
        let configured =
            self.tables.iter().position(|table| table.config.qualified() == (schema, name));
        let relation = configured.and_then(|index| {
            let columns: Vec<_> =
                columns.iter().map(|column| (column.name.to_owned(), column.type_oid)).collect();
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
        &self,
        oid: u32,
        row: Tuple<'_>,
        lsn: Lsn,
        commit_time_ns: i64,
        frames: &Bytes,
    ) -> Result<Option<Event>> {
        let Some((relation, table)) = self.relation(oid)? else { return Ok(None) };
        let event = relation.mapping.as_ref().map_err(Clone::clone).and_then(|mapping| {
            let rows = Rows {
                preset: table.config.preset,
                topic_prefix: table.topic_prefix.as_ref(),
                mapping,
                commit_time_ns,
                frames,
            };
            rows.event(row, lsn)
        });
        Ok(Some(event.unwrap_or_else(|error| {
            let what = format!("the row of {} at {lsn} is no event", table.config.table);
            let error = Error::new(ErrorKind::RecordRefused, what).caused_by(error);
            Event::malformed(as_json(&relation.columns, row), lsn, error)
        })))
    }

    /// A row was changed: what the table's policy says.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] where that is to end the relay;
    /// [`ErrorKind::Protocol`] for a table that was not described.
    pub fn changed(&mut self, oid: u32, change: Change, lsn: Lsn) -> Result<()> {
        let Some((relation, table)) = self.relation(oid)? else { return Ok(()) };
        let (index, name) = (relation.table, &table.config.table);
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
                if let Some(table) = self.tables.get_mut(index) {
                    table.warned = true;
                }
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
