//! Decodes the changes of outbox tables in one stream: table descriptions and rows in, events out.
//!
//! A stream describes a table, by its OID, before the table's first change and again after an
//! ALTER. Tables that are not configured are remembered as such. A table that matches a pattern may
//! be new: its facts are to be looked up first ([`OutboxReader::unknown`]), or else it is read
//! without them. A new stream describes all tables again, so a reader lives as long as its stream.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use factlib_postgres::pgoutput::{Columns, Tuple, Value};
use foldhash::fast::RandomState;
use slog::{Logger, error, warn};

use super::{
    binary,
    catalog::{KnownTable, TableFacts},
    connect::FactsByColumn,
    mapping::Mapping,
    parked::{ParkedRow, as_json},
    partition_moves::PartitionMoves,
    row::RowContext,
    value::{base_type_oid, oid},
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    config::{ChangePolicy, OutboxTable, TableName},
};

/// Minimum time between two warnings of unusable times in one table.
const TIME_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Turns rows that are inserted into the configured tables into events.
pub(crate) struct OutboxReader {
    configured: Vec<OutboxTable>,
    tables: Vec<Table>,
    relations: HashMap<u32, Option<Relation>, RandomState>,
    /// Called when a configured table was altered, replaced or renamed.
    on_table_change: Option<Box<dyn Fn() + Send>>,
    /// Base types of domains by OID, where the base type matters. An enum counts as text.
    base_types: HashMap<u32, u32>,
    /// Set when a value comes whose text can't be written from its binary format.
    needs_text: Arc<AtomicBool>,
    moves: PartitionMoves,
    log: Logger,
}

struct Table {
    name: TableName,
    config: OutboxTable,
    topic_prefix: Option<Arc<str>>,
    columns: FactsByColumn,
    partitioned: bool,
    /// True once a warning of changes was logged.
    warned: bool,
    unusable_times: UnusableTimes,
}

impl From<KnownTable> for Table {
    fn from(KnownTable { config, partitioned, columns }: KnownTable) -> Self {
        Table {
            name: config.qualified(),
            topic_prefix: config.topic_prefix().map(Into::into),
            config,
            columns,
            partitioned,
            warned: false,
            unusable_times: UnusableTimes::default(),
        }
    }
}

/// RowContext with an unusable time since the last warning.
#[derive(Default)]
struct UnusableTimes {
    warned_at: Option<Instant>,
    rows: u64,
}

/// The stream's last description of a configured table.
struct Relation {
    table: usize,
    columns: Vec<(String, u32)>,
    /// Every row is refused if this is an error.
    mapping: Result<Mapping>,
    /// Indexes of the columns whose types are not known in binary.
    text_only: Vec<usize>,
}

/// A change that an outbox table should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Update,
    Delete,
    Truncate,
}

impl OutboxReader {
    /// Reads the configured tables, of which the catalog has these facts.
    pub fn new(configured: Vec<OutboxTable>, facts: TableFacts, log: Logger) -> Self {
        let mut reader = OutboxReader {
            configured,
            tables: Vec::new(),
            relations: HashMap::default(),
            on_table_change: None,
            base_types: HashMap::new(),
            needs_text: Arc::default(),
            moves: PartitionMoves::default(),
            log,
        };
        reader.learn(facts);
        reader
    }

    /// The entry of a table that matches a pattern and of which it knows nothing; none for others.
    pub fn unknown(&self, schema: &str, name: &str) -> Option<OutboxTable> {
        let name = TableName::new(schema, name);
        match self.index(&name) {
            Some(_) => None,
            None => OutboxTable::of_name(&self.configured, &name),
        }
    }

    /// Takes the facts of further tables in.
    pub fn learn(&mut self, facts: TableFacts) {
        self.base_types.extend(facts.enums.iter().map(|of_enum| (*of_enum, oid::TEXT)));
        for table in facts.tables {
            if self.index(&table.config.qualified()).is_none() {
                self.tables.push(table.into());
            }
        }
    }

    fn index(&self, name: &TableName) -> Option<usize> {
        self.tables.iter().position(|table| table.name == *name)
    }

    /// Calls `notify` whenever a configured table was altered, replaced or renamed.
    pub fn on_table_change(mut self, notify: impl Fn() + Send + 'static) -> Self {
        self.on_table_change = Some(Box::new(notify));
        self
    }

    /// Sets the flag by which it says that the stream has to come in text.
    pub fn needs_text(self, needs_text: Arc<AtomicBool>) -> Self {
        OutboxReader { needs_text, ..self }
    }

    /// Takes in the description of a type that is not built in. For a domain, it has the domain's
    /// OID and the name of the base type.
    pub fn type_described(&mut self, oid: u32, namespace: &str, name: &str) {
        if let Some(base) = base_type_oid(name).filter(|_| namespace.is_empty()) {
            self.base_types.insert(oid, base);
        }
    }

    /// Takes in the description of a table, the first one or a new one.
    pub fn described(&mut self, oid: u32, schema: &str, name: &str, columns: Columns<'_>) {
        let table = TableName::new(schema, name);
        let index = self.index(&table).or_else(|| {
            let entry = OutboxTable::of_name(&self.configured, &table)?;
            self.tables.push(KnownTable::new(entry).into());
            self.tables.len().checked_sub(1)
        });
        let relation = index.and_then(|index| {
            let base = |oid: u32| self.base_types.get(&oid).copied().unwrap_or(oid);
            let columns: Vec<_> = columns
                .iter()
                .map(|column| (column.name.to_owned(), base(column.type_oid)))
                .collect();
            let Table { config, columns: facts, .. } = self.tables.get(index)?;
            let mapping = Mapping::resolve(config, &columns);
            let mapping = mapping.and_then(|found| found.with_facts(config, &columns, facts));
            let text_only = columns.iter().enumerate();
            let text_only = text_only.filter(|(_, (_, type_oid))| !binary::is_known(*type_oid));
            let text_only = text_only.map(|(index, _)| index).collect();
            Some(Relation { table: index, columns, mapping, text_only })
        });
        if self.has_changed(oid, schema, name, relation.as_ref())
            && let Some(notify) = &self.on_table_change
        {
            notify();
        }
        self.relations.insert(oid, relation);
    }

    /// True if a configured table has other columns than before, if another table took its name, or
    /// if it was renamed, after which its rows are not sent.
    fn has_changed(&self, oid: u32, schema: &str, name: &str, now: Option<&Relation>) -> bool {
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

    /// Turns an inserted row into an event; none if the table is not configured. A row that can't be
    /// read becomes an event that is refused. Values that are made of a row go to `made_values`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a table that was not described, and for a value in binary whose
    /// text is needed and can't be written. The latter sets the flag of
    /// [`needs_text`](Self::needs_text).
    pub fn inserted(
        &mut self,
        oid: u32,
        row: Tuple<'_>,
        lsn: Lsn,
        commit_time_ns: i64,
        frames: &Bytes,
        made_values: &mut BytesMut,
    ) -> Result<Option<Event>> {
        let Some((relation, table)) = self.relation(oid)? else { return Ok(None) };
        let read = relation.mapping.as_ref().map_err(Clone::clone).and_then(|mapping| {
            let context = RowContext {
                table: &table.config,
                topic_prefix: table.topic_prefix.as_ref(),
                mapping,
                commit_time_ns,
                frames,
            };
            context.event(row, lsn, made_values)
        });
        if let Some(column) = relation.needs_text(row, read.is_ok()) {
            self.needs_text.store(true, Relaxed);
            let what = format!(
                "column {column} of outbox table {} is of a type that is read as text only; the \
                 stream begins again in text",
                table.config.table
            );
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        Ok(Some(match read {
            Ok(read) => {
                let index = relation.table;
                if let Some(why) = read.unusable_time {
                    self.warn_of_unusable_time(index, &why, lsn);
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

    fn warn_of_unusable_time(&mut self, index: usize, why: &str, lsn: Lsn) {
        let Some(Table { config, unusable_times, .. }) = self.tables.get_mut(index) else { return };
        unusable_times.rows += 1;
        if unusable_times.warned_at.is_some_and(|at| at.elapsed() < TIME_WARNING_INTERVAL) {
            return;
        }
        warn!(self.log, "the time of a row can't be used; the commit time replaces it";
            "table" => &config.table, "time" => why, "lsn" => %lsn, "rows" => unusable_times.rows);
        *unusable_times = UnusableTimes { warned_at: Some(Instant::now()), rows: 0 };
    }

    /// Returns true if an inserted row came from another partition: an UPDATE and not an event.
    ///
    /// # Errors
    /// As [`inserted`](Self::inserted).
    pub fn moved(&mut self, oid: u32, row: Tuple<'_>) -> Result<bool> {
        let id = self.relation(oid)?.and_then(|(relation, table)| relation.id(table, row));
        Ok(id.is_some_and(|(index, id)| self.moves.inserted(index, id)))
    }

    /// Takes a DELETE in, which may be the first half of a move; applies the table's policy once it
    /// turns out not to be one. Without `lsn`, there is nothing to report.
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
        delete.map_or(Ok(()), |lsn| self.apply_policy(index, Change::Delete, lsn))
    }

    /// Ends the transaction.
    ///
    /// # Errors
    /// As [`changed`](Self::changed).
    pub fn ended(&mut self) -> Result<()> {
        let deleted = self.moves.end();
        deleted
            .into_iter()
            .try_for_each(|(index, lsn)| self.apply_policy(index, Change::Delete, lsn))
    }

    /// Forgets a transaction that the end of the stream cut off; it will come again.
    pub fn interrupted(&mut self) {
        self.moves = PartitionMoves::default();
    }

    /// Applies the table's policy to a change.
    ///
    /// # Errors
    /// [`ErrorKind::PostgresRefused`] if the policy is to stop;
    /// [`ErrorKind::Protocol`] for a table that was not described.
    pub fn changed(&mut self, oid: u32, change: Change, lsn: Lsn) -> Result<()> {
        let Some((Relation { table, .. }, _)) = self.relation(oid)? else { return Ok(()) };
        self.apply_policy(*table, change, lsn)
    }

    fn apply_policy(&mut self, index: usize, change: Change, lsn: Lsn) -> Result<()> {
        let Some(table) = self.tables.get_mut(index) else { return Ok(()) };
        let name = &table.config.table;
        let (policy, setting, done) = match change {
            Change::Update => (table.config.on_update, "on_update", "updated"),
            Change::Delete => (table.config.on_delete, "on_delete", "deleted"),
            Change::Truncate => (table.config.on_delete, "on_delete", "truncated"),
        };
        match policy {
            ChangePolicy::Ignore => {}
            ChangePolicy::Warn | ChangePolicy::Error if table.warned => {}
            ChangePolicy::Warn => {
                warn!(self.log, "rows of an outbox table were changed; changes are not sent";
                    "table" => name, "change" => done, "lsn" => %lsn);
                table.warned = true;
            }
            ChangePolicy::Error => {
                error!(self.log, "rows of an outbox table were changed; changes are not sent";
                    "table" => name, "change" => done, "lsn" => %lsn);
                table.warned = true;
            }
            ChangePolicy::Stop => {
                let what = format!("rows of outbox table {name} were {done} at {lsn}");
                let remedy = format!("set outbox.{setting} to \"ignore\" or \"warn\" to read on");
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
    /// Returns the table's index and the row's id if the table is partitioned.
    fn id<'a>(&self, table: &Table, row: Tuple<'a>) -> Option<(usize, &'a [u8])> {
        let mapping = self.mapping.as_ref().ok().filter(|_| table.partitioned)?;
        match row.values().nth(mapping.id.index) {
            Some(Value::Text(id) | Value::Binary(id) | Value::Unconvertible(id)) => {
                Some((self.table, id))
            }
            _ => None,
        }
    }

    /// Finds a column whose value came in binary, and whose text is needed and not known. An event
    /// needs the mapped columns, a refused row all of them.
    fn needs_text(&self, row: Tuple<'_>, is_event: bool) -> Option<&str> {
        let needed = self.text_only.iter().find(|index| {
            let is_mapped = |mapping: &Mapping| mapping.columns().any(|at| at.index == **index);
            (!is_event || self.mapping.as_ref().is_ok_and(is_mapped))
                && matches!(row.values().nth(**index), Some(Value::Binary(_)))
        })?;
        self.columns.get(*needed).map(|(name, _)| name.as_str())
    }
}
