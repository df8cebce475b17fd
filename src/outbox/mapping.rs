//! Which column of a table is what: resolved once for each description of the table.

use std::sync::Arc;

use super::value::{is_time, oid};
use crate::{
    Error, ErrorKind, Result,
    config::{OutboxPreset, OutboxTable},
};

/// A column: where in the row, and of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub index: usize,
    pub type_oid: u32,
}

/// The columns of an outbox table.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub id: At,
    pub aggregate_type: At,
    pub aggregate_id: At,
    pub event_type: Option<At>,
    pub payload: At,
    pub created_at: Option<At>,
    pub metadata: Option<At>,
    /// With the names of the headers.
    pub headers: Vec<(At, Arc<str>)>,
    /// With the names in the envelope's metadata.
    pub envelope: Vec<(At, Arc<str>)>,
}

impl Mapping {
    /// Finds the columns that `table` names among `columns`: their names and types.
    ///
    /// # Errors
    /// The first that is missing, or of a type that can't be what it is to be.
    pub fn resolve(table: &OutboxTable, columns: &[(String, u32)]) -> Result<Self> {
        let find = |name: &str| {
            let found = columns.iter().enumerate().find(|(_, (column, _))| column == name);
            found.map(|(index, (_, type_oid))| At { index, type_oid: *type_oid })
        };
        let needed = |name: &str| find(name).ok_or_else(|| missing(table, name, columns));
        // What a preset names need not be there; what somebody named must be.
        let optional = |given: &Option<String>, usual: Option<&str>| match given {
            Some(name) => needed(name).map(Some),
            None => Ok(usual.and_then(find)),
        };
        let given = &table.columns;
        let of = |given: &Option<String>, usual| needed(given.as_deref().unwrap_or(usual));
        let mapping = match table.preset {
            OutboxPreset::Factlib => Mapping {
                id: of(&given.id, "id")?,
                aggregate_type: of(&given.aggregate_type, "aggregate_type")?,
                aggregate_id: of(&given.aggregate_id, "aggregate_id")?,
                event_type: Some(of(&given.event_type, "event_type")?),
                payload: of(&given.payload, "payload")?,
                created_at: optional(&given.created_at, Some("created_at"))?,
                metadata: optional(&given.metadata, Some("metadata"))?,
                headers: named(table.header_columns(), needed)?,
                envelope: named(table.envelope_columns(), needed)?,
            },
            OutboxPreset::Debezium => Mapping {
                id: of(&given.id, "id")?,
                aggregate_type: of(&given.aggregate_type, "aggregatetype")?,
                aggregate_id: of(&given.aggregate_id, "aggregateid")?,
                event_type: optional(&given.event_type, Some("type"))?,
                payload: of(&given.payload, "payload")?,
                created_at: optional(&given.created_at, None)?,
                metadata: None,
                headers: named(table.header_columns(), needed)?,
                envelope: Vec::new(),
            },
        };
        let wrong = |at: Option<At>, what: &str, fits: fn(u32) -> bool| match at {
            Some(At { index, type_oid }) if !fits(type_oid) => {
                let name = columns.get(index).map_or("", |(name, _)| name);
                let what = format!("column {name} of outbox table {} is no {what}", table.table);
                Err(Error::new(ErrorKind::PostgresRefused, what))
            }
            _ => Ok(()),
        };
        wrong(mapping.created_at, "timestamptz, timestamp, bigint or integer", is_time)?;
        let is_json = |type_oid| matches!(type_oid, oid::JSON | oid::JSONB);
        wrong(mapping.metadata, "jsonb or json", is_json)?;
        Ok(mapping)
    }

    /// The names of the columns that it takes, of those that it was resolved with.
    pub fn names<'a>(&'a self, columns: &'a [(String, u32)]) -> impl Iterator<Item = &'a str> {
        let Mapping { id, aggregate_type, aggregate_id, event_type, .. } = self;
        [Some(*id), Some(*aggregate_type), Some(*aggregate_id), *event_type, Some(self.payload)]
            .into_iter()
            .chain([self.created_at, self.metadata])
            .flatten()
            .chain(self.headers.iter().chain(&self.envelope).map(|(at, _)| *at))
            .filter_map(|at| columns.get(at.index).map(|(name, _)| name.as_str()))
    }
}

fn named<'a>(
    entries: impl Iterator<Item = (&'a str, &'a str)>,
    needed: impl Fn(&str) -> Result<At>,
) -> Result<Vec<(At, Arc<str>)>> {
    entries.map(|(column, name)| Ok((needed(column)?, name.into()))).collect()
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
        let names: Vec<_> = mapping.names(&there).collect();
        assert_eq!(names, ["id", "aggregatetype", "aggregateid", "payload"]);
    }

    #[test]
    fn what_is_missing_is_named_with_what_there_is() {
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
        assert_eq!(error, "column metadata of outbox table o is no jsonb or json");
        there.last_mut().expect("metadata").1 = oid::JSONB;
        Mapping::resolve(&table, &there).expect("all are there");
    }
}
