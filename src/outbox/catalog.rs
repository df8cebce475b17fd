//! Reads the publication and the configured tables from the server's catalog, in one query.
//!
//! [`super::findings`] judges the answer: at the start, for doctor and for the watcher. It also
//! describes the tables for code that reads them by SQL.

use serde::Deserialize;
use tokio_postgres::{Client, Row};

use crate::{Error, ErrorKind, Lsn, Result, config::OutboxTable, postgres::postgres_error};

const ASKING: &str = "cannot ask PostgreSQL what is published";

/// The catalog at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Catalog {
    version: i32,
    /// The end of the WAL, behind every change that is seen here.
    pub lsn: Lsn,
    /// The server's clock, in Unix microseconds.
    pub at_us: i64,
    /// None where the publication does not exist.
    pub publication: Option<CatalogPublication>,
    /// The configured tables that exist.
    tables: Vec<CatalogTable>,
    /// Tables that are published and not configured.
    pub unread: Vec<UnreadTable>,
}

/// The publication itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogPublication {
    pub all_tables: bool,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    /// None before PostgreSQL 11, which can't publish it.
    pub truncate: Option<bool>,
    pub via_root: bool,
    /// `s` where stored generated columns are published (PostgreSQL 18 on).
    pub generated: String,
    /// Changes when the publication is dropped and created again.
    pub mark: String,
}

/// A configured table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogTable {
    /// Its place among the configured tables, from 1.
    n: usize,
    /// `pg_class.relkind`.
    pub kind: char,
    pub columns: Vec<CatalogColumn>,
    /// The table, and what is below it and differs from an ordinary partition.
    pub members: Vec<Member>,
    /// How it is published under its own name.
    pub published: Option<PublishedTable>,
    /// Some of its partitions are published under their own names.
    pub in_pieces: bool,
    /// The publication names it, and does not only include its schema or all tables.
    pub named: bool,
    /// The parent as which a partition is published.
    pub published_as: Option<String>,
    /// The columns that decide on the partition, at all levels.
    pub partition_key: Vec<String>,
    /// Changes when another table takes the name, or the table leaves the publication; empty
    /// where the publication does not name it.
    pub mark: String,
}

/// A column of a configured table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CatalogColumn {
    pub name: String,
    /// The type that the stream describes the column with; of a domain, the domain.
    #[allow(dead_code, reason = "for whoever maps the stream's types to base types")]
    pub type_oid: u32,
    /// The type below all domains.
    pub base_type_oid: u32,
    /// `pg_attribute.attgenerated`: empty, `s` (stored) or `v` (virtual).
    pub generated: String,
}

/// The table itself, or a partition or child of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Member {
    pub name: String,
    /// It is the configured table.
    pub is_root: bool,
    pub kind: char,
    /// `pg_class.relpersistence`.
    pub persistence: char,
    pub partition: bool,
    /// `pg_class.relreplident`.
    pub identity: char,
    /// The columns by which a published UPDATE or DELETE names a row, where an index says so.
    pub key: Option<Vec<String>>,
    /// Its primary key is DEFERRABLE, and does not count as an identity.
    pub deferrable: bool,
}

/// Columns and rows of a table that are published.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PublishedTable {
    /// None before PostgreSQL 15: all that are not generated.
    pub columns: Option<Vec<String>>,
    /// The row filter, as SQL.
    pub filter: Option<String>,
}

/// A table that is published and not configured.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct UnreadTable {
    pub name: String,
    /// The publication names it; else it only looks like an outbox table.
    pub named: bool,
}

impl Catalog {
    /// Its parameters are the publication and [`parameters`](Self::parameters).
    pub const QUERY: &str = include_str!("catalog.sql");

    /// Asks the server.
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
            let what = "cannot read what PostgreSQL says is published";
            Error::new(ErrorKind::Protocol, what).caused_by(error)
        })
    }

    /// The configured table with this index; none if it does not exist.
    pub fn table(&self, index: usize) -> Option<&CatalogTable> {
        self.tables.iter().find(|table| table.n == index + 1)
    }

    /// A copy with a publication that was created for all these tables.
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
        made.unread.clear();
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

    /// The version before the dot.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }
}

/// Looks up which of these tables are partitioned.
pub(crate) async fn partitioned(client: &Client, tables: &[OutboxTable]) -> Result<Vec<bool>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::read(client, "", tables).await?;
    let is_partitioned = |index| catalog.table(index).is_some_and(|known| known.kind == 'p');
    Ok((0..tables.len()).map(is_partitioned).collect())
}

impl CatalogTable {
    /// Names and base types of the columns.
    pub fn base_columns(&self) -> Vec<(String, u32)> {
        self.columns.iter().map(|column| (column.name.clone(), column.base_type_oid)).collect()
    }
}
