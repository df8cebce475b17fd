//! Reads the publication and the configured tables from the server's catalog, in one query.
//!
//! [`super::findings`] judges the answer: at the start, for doctor and for the watcher. It also
//! describes the tables for code that reads them by SQL.

use std::collections::HashSet;

use serde::Deserialize;
use tokio_postgres::{Client, Row};

use super::{
    binary,
    connect::{ColumnFacts, FactsByColumn},
};
use crate::{Error, ErrorKind, Lsn, Result, config::OutboxTable, postgres::postgres_error};

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
    /// The configured tables that exist.
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
    /// Changes when the publication is dropped and created again.
    pub mark: String,
}

/// A configured table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogTable {
    /// Index among the configured tables, counted from 1.
    n: usize,
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
    pub published_as: Option<String>,
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
    pub name: String,
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
    pub name: String,
    /// True if the publication names it; false if it only has the columns of an outbox table.
    pub named: bool,
}

impl Catalog {
    /// Takes the publication's name and [`parameters`](Self::parameters).
    pub const QUERY: &str = include_str!("catalog.sql");

    /// Queries the server.
    pub async fn read(client: &Client, publication: &str, tables: &[OutboxTable]) -> Result<Self> {
        let (schemas, names) = Catalog::parameters(tables);
        let row = client.query_one(Self::QUERY, &[&publication, &schemas, &names]).await;
        Catalog::of(&row.map_err(|error| postgres_error(ASKING, error))?)
    }

    /// Schemas and names of the tables.
    pub fn parameters(tables: &[OutboxTable]) -> (Vec<&str>, Vec<&str>) {
        tables.iter().map(OutboxTable::qualified).unzip()
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

    /// Returns the configured table with this index; none if it does not exist.
    pub fn table(&self, index: usize) -> Option<&CatalogTable> {
        self.tables.iter().find(|table| table.n == index + 1)
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
            mark: String::new(),
        });
        made.unconfigured.clear();
        for table in &mut made.tables {
            let published = |column: &&CatalogColumn| column.generated.is_empty();
            let names = table.columns.iter().filter(published).map(|column| column.name.clone());
            let permanent =
                table.members.iter().all(|member| !member.is_root || member.persistence == 'p');
            table.published =
                permanent.then(|| PublishedTable { columns: Some(names.collect()), filter: None });
        }
        made
    }

    /// Major version of the server.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }
}

/// Facts about the configured tables that the stream does not carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableFacts {
    /// A flag for each table.
    pub partitioned: Vec<bool>,
    /// Types that are enums, or domains over them.
    pub enums: HashSet<u32>,
    /// True if the types of all columns are known in binary.
    pub known_in_binary: bool,
    /// Facts about each table's columns.
    pub columns: Vec<FactsByColumn>,
}

impl TableFacts {
    /// Queries the server for these tables.
    pub async fn read(client: &Client, tables: &[OutboxTable]) -> Result<Self> {
        if tables.is_empty() {
            return Ok(TableFacts::default());
        }
        let catalog = Catalog::read(client, "", tables).await?;
        let columns = || catalog.tables.iter().flat_map(|table| &table.columns);
        let is_partitioned = |index| catalog.table(index).is_some_and(|known| known.kind == 'p');
        Ok(TableFacts {
            partitioned: (0..tables.len()).map(is_partitioned).collect(),
            enums: columns().filter(|column| column.is_enum).map(|of| of.type_oid).collect(),
            known_in_binary: columns().all(CatalogColumn::is_known_in_binary),
            columns: (0..tables.len())
                .map(|index| catalog.table(index).map(CatalogTable::facts).unwrap_or_default())
                .collect(),
        })
    }
}

impl CatalogColumn {
    fn is_known_in_binary(&self) -> bool {
        self.is_enum || binary::is_known(self.base_type_oid)
    }
}

impl CatalogTable {
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
