//! Reads the publication and the configured tables from the server's catalog, in one query.
//!
//! [`super::findings`] judges the answer: at the start, for doctor and for the watcher. It also
//! describes the tables for code that reads them by SQL.

use std::collections::HashSet;

use serde::Deserialize;
use tokio_postgres::{Client, Row, types::ToSql};

use super::{
    binary,
    connect::{ColumnFacts, FactsByColumn},
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    config::{OutboxTable, TableName},
    postgres::postgres_error,
};

const ASKING: &str = "cannot read the publication from the catalog";

/// The catalog at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Catalog {
    version: i32,
    /// The end of the WAL, behind every change that is seen here.
    pub lsn: Lsn,
    /// The server's clock, in Unix microseconds.
    pub at_us: i64,
    /// None if the publication does not exist.
    pub publication: Option<CatalogPublication>,
    /// The configured tables that exist, and those that match a pattern.
    tables: Vec<CatalogTable>,
    /// PublicationSpec tables that the configuration does not name.
    pub unconfigured: Vec<UnconfiguredTable>,
}

/// The publication itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogPublication {
    pub all_tables: bool,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    /// None before PostgreSQL 11, where TRUNCATE can't be published.
    pub truncate: Option<bool>,
    pub via_root: bool,
    /// `s` if stored generated columns are published (PostgreSQL 18 and later).
    pub generated: String,
    /// True if this user has the rights of its owner, who may add tables.
    #[serde(default)]
    pub owned: bool,
    /// Changes when the publication is dropped and created again.
    pub mark: String,
}

/// A configured table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogTable {
    /// Index of its `[[outbox]]`, counted from 1.
    n: usize,
    pub name: TableName,
    /// True if this user has the rights of its owner.
    #[serde(default)]
    pub owned: bool,
    /// `pg_class.relkind`.
    pub kind: char,
    pub columns: Vec<CatalogColumn>,
    /// The table itself, and those partitions and children that need a look.
    pub members: Vec<Member>,
    /// Columns and row filter under the table's own name; none if it is not published so.
    pub published: Option<PublishedTable>,
    /// True if partitions of it are published under their own names.
    pub partitions_published: bool,
    /// True if the publication names it; false if it only includes its schema or all tables.
    pub named: bool,
    /// The parent under whose name this partition is published.
    pub published_as: Option<TableName>,
    /// True if it was added to the publication by a later transaction than the one that created it.
    #[serde(default)]
    pub added_later: bool,
    /// Columns of the partition key, at all levels.
    pub partition_key: Vec<String>,
    /// Changes when another table takes the name, or the table leaves the publication; empty
    /// where the publication does not name it.
    pub mark: String,
}

/// A column of a configured table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogColumn {
    pub name: String,
    /// The type itself, which may be a domain.
    type_oid: u32,
    /// The base type, below all domains.
    pub base_type_oid: u32,
    /// True if the base type is an enum.
    #[serde(default)]
    is_enum: bool,
    /// `pg_attribute.atttypmod`.
    #[serde(default = "no_modifier")]
    modifier: i32,
    #[serde(default)]
    not_null: bool,
    /// `pg_attribute.attgenerated`: empty, `s` (stored) or `v` (virtual).
    pub generated: String,
}

/// The modifier of a type that has none.
fn no_modifier() -> i32 {
    -1
}

/// The table itself, or a partition or child of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Member {
    pub name: TableName,
    /// True for the configured table itself.
    pub is_root: bool,
    pub kind: char,
    /// `pg_class.relpersistence`.
    pub persistence: char,
    pub partition: bool,
    /// `pg_class.relreplident`.
    pub identity: char,
    /// Columns of the index by which a published UPDATE or DELETE names a row.
    pub key: Option<Vec<String>>,
    /// True if its primary key is DEFERRABLE, which can't be a replica identity.
    pub deferrable: bool,
}

/// The published columns and rows of a table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PublishedTable {
    /// None before PostgreSQL 15, which publishes all columns that are not generated.
    pub columns: Option<Vec<String>>,
    /// The row filter, as SQL.
    pub filter: Option<String>,
}

/// A published table that the configuration does not name.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct UnconfiguredTable {
    pub name: TableName,
    /// True if the publication names it; false if it only has the columns of an outbox table.
    pub named: bool,
}

impl Catalog {
    /// Takes the publication's name and [`parameters`](Self::parameters).
    pub const QUERY: &str = include_str!("catalog.sql");

    /// Queries the server.
    pub async fn read(client: &Client, publication: &str, tables: &[OutboxTable]) -> Result<Self> {
        let tables = Catalog::parameters(tables);
        let row = client.query_one(Self::QUERY, &tables.with(&publication)).await;
        Catalog::of(&row.map_err(|error| postgres_error(ASKING, error))?)
    }

    /// The parameters that stand for the configured tables.
    pub fn parameters(tables: &[OutboxTable]) -> TableParameters {
        let mut parameters = TableParameters::default();
        for table in tables {
            let pattern = table.pattern();
            let (schema, name) = match pattern.exact() {
                Some(TableName { schema, name }) => (schema, name),
                None => pattern.like(),
            };
            parameters.are_patterns.push(pattern.exact().is_none());
            parameters.schemas.push(schema);
            parameters.names.push(name);
        }
        parameters
    }

    /// Reads the answer, one JSON text.
    pub fn of(row: &Row) -> Result<Self> {
        Catalog::parse(row.try_get(0).map_err(|error| postgres_error(ASKING, error))?)
    }

    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| {
            let what = "cannot read the catalog of publications";
            Error::new(ErrorKind::Protocol, what).caused_by(error)
        })
    }

    /// Lists the tables that `configured` stands for, each with an entry of its own. A table that is
    /// named is there also if it does not exist. Of the patterns that match a table, the first counts.
    pub fn tables(&self, configured: &[OutboxTable]) -> Vec<(OutboxTable, Option<&CatalogTable>)> {
        let mut taken: HashSet<_> = configured.iter().filter_map(OutboxTable::name).collect();
        let mut tables = Vec::new();
        for (index, entry) in configured.iter().enumerate() {
            let mut found = self.tables.iter().filter(|table| table.n == index + 1);
            if !entry.is_pattern() {
                tables.push((entry.clone(), found.next()));
                continue;
            }
            for table in found.filter(|table| taken.insert(table.name.clone())) {
                let alone = OutboxTable { table: table.name.to_string(), ..entry.clone() };
                tables.push((alone, Some(table)));
            }
        }
        tables
    }

    /// The entries of [`tables`](Self::tables).
    pub fn outbox_tables(&self, configured: &[OutboxTable]) -> Vec<OutboxTable> {
        self.tables(configured).into_iter().map(|(entry, _)| entry).collect()
    }

    /// Returns a copy in which a publication of all these tables exists.
    pub(super) fn with_publication(&self, update: bool, delete: bool, truncate: bool) -> Self {
        let mut made = self.clone();
        made.publication = Some(CatalogPublication {
            all_tables: false,
            insert: true,
            update,
            delete,
            truncate: Some(truncate),
            via_root: true,
            generated: "n".into(),
            owned: true,
            mark: String::new(),
        });
        made.unconfigured.clear();
        made.tables.iter_mut().for_each(CatalogTable::publish);
        made
    }

    /// Returns a copy in which the publication has these tables as well.
    pub(super) fn with_tables(&self, names: &HashSet<&TableName>) -> Self {
        let mut made = self.clone();
        let added = made.tables.iter_mut().filter(|table| names.contains(&table.name));
        added.for_each(CatalogTable::publish);
        made
    }

    /// Major version of the server.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }
}

/// Parameters of [`Catalog::QUERY`]: a value for each configured table.
#[derive(Default)]
pub(crate) struct TableParameters {
    are_patterns: Vec<bool>,
    schemas: Vec<String>,
    names: Vec<String>,
}

impl TableParameters {
    /// All parameters of the query.
    pub fn with<'a>(&'a self, publication: &'a &str) -> [&'a (dyn ToSql + Sync); 4] {
        [publication, &self.are_patterns, &self.schemas, &self.names]
    }
}

/// Facts about the outbox tables that the stream does not carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableFacts {
    /// The tables that were named or match a pattern.
    pub tables: Vec<KnownTable>,
    /// Types that are enums, or domains over them.
    pub enums: HashSet<u32>,
    /// True if the types of all columns are known in binary.
    pub known_in_binary: bool,
}

/// An outbox table, and facts about it that the stream does not carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownTable {
    pub config: OutboxTable,
    pub partitioned: bool,
    pub columns: FactsByColumn,
}

impl TableFacts {
    /// Queries the server for these tables.
    pub async fn read(client: &Client, tables: &[OutboxTable]) -> Result<Self> {
        if tables.is_empty() {
            return Ok(TableFacts::default());
        }
        Ok(TableFacts::of(&Catalog::read(client, "", tables).await?, tables))
    }

    /// The facts in a catalog that was read for these tables.
    pub fn of(catalog: &Catalog, tables: &[OutboxTable]) -> Self {
        let columns = || catalog.tables.iter().flat_map(|table| &table.columns);
        let known = |(config, there): (OutboxTable, Option<&CatalogTable>)| KnownTable {
            partitioned: there.is_some_and(|there| there.kind == 'p'),
            columns: there.map(CatalogTable::facts).unwrap_or_default(),
            config,
        };
        TableFacts {
            tables: catalog.tables(tables).into_iter().map(known).collect(),
            enums: columns().filter(|column| column.is_enum).map(|of| of.type_oid).collect(),
            known_in_binary: columns().all(CatalogColumn::is_known_in_binary),
        }
    }
}

impl KnownTable {
    /// A table of which the catalog says nothing.
    pub fn new(config: OutboxTable) -> Self {
        KnownTable { config, partitioned: false, columns: FactsByColumn::default() }
    }
}

impl CatalogColumn {
    fn is_known_in_binary(&self) -> bool {
        self.is_enum || binary::is_known(self.base_type_oid)
    }
}

impl CatalogTable {
    /// Changes it as if it were published with all its rows.
    fn publish(&mut self) {
        let published = |column: &&CatalogColumn| column.generated.is_empty();
        let names = self.columns.iter().filter(published).map(|column| column.name.clone());
        let permanent =
            self.members.iter().all(|member| !member.is_root || member.persistence == 'p');
        self.published =
            permanent.then(|| PublishedTable { columns: Some(names.collect()), filter: None });
    }

    /// Facts about the columns.
    pub fn facts(&self) -> FactsByColumn {
        let fact = |of: &CatalogColumn| {
            let CatalogColumn { modifier, not_null, .. } = *of;
            (of.name.clone(), ColumnFacts { modifier, not_null })
        };
        self.columns.iter().map(fact).collect()
    }

    /// Names and base types of the columns.
    pub fn base_columns(&self) -> Vec<(String, u32)> {
        self.columns.iter().map(|column| (column.name.clone(), column.base_type_oid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutboxPreset;

    #[test]
    fn a_table_that_is_named_wins_over_patterns_and_the_first_pattern_over_later_ones() {
        let table = |n: usize, schema: &str, name: &str| {
            serde_json::json!({
                "n": n, "name": [schema, name], "kind": "r", "columns": [], "members": [],
                "published": null, "partitions_published": false, "named": false,
                "published_as": null, "partition_key": [], "mark": "",
            })
        };
        let tables = [
            table(1, "t_a", "o"),
            table(1, "t_b", "o"),
            table(1, "t.c", "o\""),
            table(2, "t_b", "o"),
            table(3, "t_a", "o"),
            table(3, "x", "o"),
        ];
        let json = serde_json::json!({
            "version": 180_000, "lsn": "0/1", "at_us": 1, "publication": null, "tables": tables,
            "unconfigured": [],
        });
        let catalog = Catalog::parse(&json.to_string()).expect("a catalog");
        let entry = |table: &str, prefix: &str| OutboxTable {
            topic_prefix: Some(prefix.into()),
            ..OutboxTable::new(table, OutboxPreset::Factlib)
        };
        let configured = [
            entry("t*.o*", "all"),
            entry("t_b.o", "b"),
            entry("*.o", "any"),
            entry("gone", "gone"),
        ];
        let found = catalog.tables(&configured);
        let found: Vec<_> = found
            .iter()
            .map(|(entry, known)| (&*entry.table, entry.topic_prefix().unwrap(), known.is_some()))
            .collect();
        let expected = [
            ("t_a.o", "all", true),
            ("\"t.c\".\"o\"\"\"", "all", true),
            ("t_b.o", "b", true),
            ("x.o", "any", true),
            ("gone", "gone", false),
        ];
        assert_eq!(found, expected);
        let of = |schema: &str| OutboxTable::of_name(&configured, &TableName::new(schema, "o"));
        let prefix = |schema: &str| of(schema).and_then(|entry| entry.topic_prefix);
        assert_eq!(prefix("t_b").as_deref(), Some("b"));
        assert_eq!(prefix("t_z").as_deref(), Some("all"));
        assert_eq!(prefix("z").as_deref(), Some("any"));
    }
}
