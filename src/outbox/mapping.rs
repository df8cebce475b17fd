//! Finds the id, the aggregate, the payload and the other parts of an event among a table's columns.
//! Resolved once for each description of the table.

use std::sync::Arc;

use super::{
    connect::{ConnectMapping, FactsByColumn},
    value::{is_time, oid},
};
use crate::{
    Error, ErrorKind, Result,
    config::{OutboxPreset, OutboxTable},
};

/// A column's index in the row and its base type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnRef {
    pub index: usize,
    pub type_oid: u32,
}

/// The columns of an outbox table, by their roles.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub id: ColumnRef,
    pub aggregate_type: ColumnRef,
    pub aggregate_id: ColumnRef,
    pub event_type: Option<ColumnRef>,
    pub payload: ColumnRef,
    pub created_at: Option<ColumnRef>,
    pub metadata: Option<ColumnRef>,
    /// Each with the name of its header.
    pub headers: Vec<(ColumnRef, Arc<str>)>,
    /// Each with its key in the envelope's metadata.
    pub envelope: Vec<(ColumnRef, Arc<str>)>,
    pub partition: Option<ColumnRef>,
    pub trace_context: Option<ColumnRef>,
    /// How the record is converted, if the table sets it.
    pub connect: Option<Box<ConnectMapping>>,
}

impl Mapping {
    /// Finds the columns that `table` configures among `columns`, given as names and base types.
    ///
    /// # Errors
    /// The first column that is missing or has the wrong type.
    pub fn resolve(table: &OutboxTable, columns: &[(String, u32)]) -> Result<Self> {
        let find = |name: &str| {
            let found = columns.iter().enumerate().find(|(_, (column, _))| column == name);
            found.map(|(index, (_, type_oid))| ColumnRef { index, type_oid: *type_oid })
        };
        let required = |name: &str| find(name).ok_or_else(|| missing(table, name, columns));
        // An optional column of the preset may be missing; a configured one may not.
        let optional = |configured: &Option<String>, default: Option<&str>| match configured {
            Some(name) => required(name).map(Some),
            None => Ok(default.and_then(find)),
        };
        let additional = |name: &str| match table.ignore_missing {
            true => Ok(find(name)),
            false => required(name).map(Some),
        };
        let configured = &table.columns;
        let of = |configured: &Option<String>, default| {
            required(configured.as_deref().unwrap_or(default))
        };
        let mapping = match table.preset {
            OutboxPreset::Factlib => Mapping {
                id: of(&configured.id, "id")?,
                aggregate_type: of(&configured.aggregate_type, "aggregate_type")?,
                aggregate_id: of(&configured.aggregate_id, "aggregate_id")?,
                event_type: Some(of(&configured.event_type, "event_type")?),
                payload: of(&configured.payload, "payload")?,
                created_at: optional(&configured.created_at, Some("created_at"))?,
                metadata: optional(&configured.metadata, Some("metadata"))?,
                headers: named(table.header_columns(), additional)?,
                envelope: named(table.envelope_columns(), additional)?,
                partition: optional(&table.partition, None)?,
                trace_context: optional(&table.trace_context, None)?,
                connect: None,
            },
            OutboxPreset::Debezium => Mapping {
                id: of(&configured.id, "id")?,
                aggregate_type: of(&configured.aggregate_type, "aggregatetype")?,
                aggregate_id: of(&configured.aggregate_id, "aggregateid")?,
                event_type: optional(&configured.event_type, Some("type"))?,
                payload: of(&configured.payload, "payload")?,
                created_at: optional(&configured.created_at, None)?,
                metadata: None,
                headers: named(table.header_columns(), additional)?,
                envelope: named(table.envelope_columns(), additional)?,
                partition: optional(&table.partition, None)?,
                trace_context: optional(&table.trace_context, None)?,
                connect: None,
            },
        };
        let wrong = |at: Option<ColumnRef>, what: &str, fits: fn(u32) -> bool| match at {
            Some(ColumnRef { index, type_oid }) if !fits(type_oid) => {
                let name = columns.get(index).map_or("", |(name, _)| name);
                let what =
                    format!("column {name} of outbox table {} is not of type {what}", table.table);
                Err(Error::new(ErrorKind::PostgresRefused, what))
            }
            _ => Ok(()),
        };
        wrong(mapping.created_at, "timestamptz, timestamp, bigint or integer", is_time)?;
        let is_json = |type_oid| matches!(type_oid, oid::JSON | oid::JSONB);
        wrong(mapping.metadata, "jsonb or json", is_json)?;
        wrong(mapping.partition, "integer or smallint", |of| matches!(of, oid::INT4 | oid::INT2))?;
        mapping.with_facts(table, columns, &FactsByColumn::default())
    }

    /// Completes the mapping with facts about the columns.
    ///
    /// # Errors
    /// A column that `outbox.connect` can't convert.
    pub fn with_facts(
        mut self,
        table: &OutboxTable,
        columns: &[(String, u32)],
        facts: &FactsByColumn,
    ) -> Result<Self> {
        self.connect = ConnectMapping::resolve(table, &self, columns, facts)?.map(Box::new);
        Ok(self)
    }

    /// Names of the columns that events are made of. `columns` is the list it was resolved with.
    pub fn column_names<'a>(
        &'a self,
        columns: &'a [(String, u32)],
    ) -> impl Iterator<Item = &'a str> {
        self.columns().filter_map(|at| columns.get(at.index).map(|(name, _)| name.as_str()))
    }

    /// The columns that events are made of.
    pub fn columns(&self) -> impl Iterator<Item = ColumnRef> {
        let Mapping { id, aggregate_type, aggregate_id, event_type, .. } = self;
        [Some(*id), Some(*aggregate_type), Some(*aggregate_id), *event_type, Some(self.payload)]
            .into_iter()
            .chain([self.created_at, self.metadata, self.partition, self.trace_context])
            .flatten()
            .chain(self.headers.iter().chain(&self.envelope).map(|(at, _)| *at))
    }
}

fn named<'a>(
    entries: impl Iterator<Item = (&'a str, &'a str)>,
    find: impl Fn(&str) -> Result<Option<ColumnRef>>,
) -> Result<Vec<(ColumnRef, Arc<str>)>> {
    let found = entries.map(|(column, name)| Ok(find(column)?.map(|at| (at, name.into()))));
    found.filter_map(Result::transpose).collect()
}

fn missing(table: &OutboxTable, column: &str, columns: &[(String, u32)]) -> Error {
    let there: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let what = format!("outbox table {} has no column {column}", table.table);
    let remedy = format!("it has {}; name yours with outbox.columns", there.join(", "));
    Error::new(ErrorKind::PostgresRefused, what).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutboxColumns;

    fn columns(names: &[&str]) -> Vec<(String, u32)> {
        names.iter().map(|name| (name.to_string(), 25)).collect()
    }

    #[test]
    fn the_presets_find_their_columns_in_any_order() {
        let table = OutboxTable::new("o", OutboxPreset::Debezium);
        let there = columns(&["x", "payload", "aggregateid", "id", "aggregatetype"]);
        let mapping = Mapping::resolve(&table, &there).expect("all are there");
        let at = [mapping.id, mapping.aggregate_type, mapping.aggregate_id, mapping.payload];
        assert_eq!(at.map(|at| at.index), [3, 4, 2, 1]);
        assert_eq!(mapping.event_type, None, "Debezium does without it");
        let names: Vec<_> = mapping.column_names(&there).collect();
        assert_eq!(names, ["id", "aggregatetype", "aggregateid", "payload"]);
    }

    #[test]
    fn an_error_names_the_missing_column_and_those_that_exist() {
        let mut table = OutboxTable::new("app.o", OutboxPreset::Factlib);
        table.columns = OutboxColumns { event_type: Some("kind".into()), ..Default::default() };
        let there = columns(&["id", "aggregate_type", "aggregate_id", "event_type", "payload"]);
        let error = Mapping::resolve(&table, &there).expect_err("kind is missing").to_string();
        let text = "outbox table app.o has no column kind (it has id, aggregate_type, \
                    aggregate_id, event_type, payload; name yours with outbox.columns)";
        assert_eq!(error, text);
    }

    #[test]
    fn a_column_of_a_type_that_can_t_be_read_is_refused() {
        let table = OutboxTable::new("o", OutboxPreset::Factlib);
        let mut there =
            columns(&["id", "aggregate_type", "aggregate_id", "event_type", "payload", "metadata"]);
        let error = Mapping::resolve(&table, &there).expect_err("metadata is text").to_string();
        assert_eq!(error, "column metadata of outbox table o is not of type jsonb or json");
        there.last_mut().expect("metadata").1 = oid::JSONB;
        Mapping::resolve(&table, &there).expect("all are there");
    }
}
