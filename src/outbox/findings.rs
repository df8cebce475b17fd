//! Judges the catalog: what keeps rows of the configured tables from being sent, and what the
//! publication does to those who write there. Pure; the start, doctor and the watcher share it.

use postgres_protocol::escape::escape_identifier;

use super::{
    catalog::{Catalog, CatalogColumn, CatalogPublication, CatalogTable, Member, PublishedTable},
    mapping::Mapping,
    partitions::objection,
    publication::{Published, identifier},
};
use crate::{
    Error, ErrorKind,
    config::{ChangePolicy, OutboxPreset, OutboxTable},
};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Worth a look; every configured row is sent.
    Warning,
    /// A first start is refused, and a running relay is unhealthy.
    Error,
}

/// Something about the publication or about one table, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The table, as it is configured; none where it is about the publication.
    pub table: Option<String>,
    pub severity: Severity,
    /// Rows that are committed while it lasts are not sent, and never will be.
    pub loses: bool,
    pub what: String,
    pub remedy: String,
}

impl Finding {
    /// Turns the finding into the error of a start that is refused.
    pub fn into_error(self) -> Error {
        Error::new(ErrorKind::PostgresRefused, self.what).remedy(self.remedy)
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Published<'_> {
    /// All findings: those of the publication, then table by table, then tables that are not read.
    pub fn judge(&self, catalog: &Catalog) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        let Some(publication) = &catalog.publication else {
            let what = format!("publication {} does not exist", self.publication);
            // Without tables, what is read are messages: they need it to connect, no more.
            let loses = !self.tables.is_empty();
            findings.add(None, loses, what, self.create_sql());
            return findings.0;
        };
        for (index, table) in self.tables.iter().enumerate() {
            let Some(known) = catalog.table(index) else {
                let (what, remedy) = missing(table);
                findings.add(Some(table), true, what, remedy);
                continue;
            };
            let one = OneTable { all: self, catalog, publication, table, known };
            one.judge(&mut findings);
        }
        // Where messages are read, no table is.
        for unread in catalog.unread.iter().filter(|_| !self.tables.is_empty()) {
            let (name, publication) = (&unread.name, self.publication);
            let what = format!(
                "publication {publication} publishes {name}, which no [[outbox]] names: its rows are not sent"
            );
            let mut remedy = format!("add [[outbox]] with table = \"{name}\"");
            if unread.named {
                remedy += &format!(
                    ", or ALTER PUBLICATION {} DROP TABLE {}",
                    escape_identifier(publication),
                    quoted(name)
                );
            }
            let (table, severity) = (Some(name.clone()), Severity::Warning);
            findings.0.push(Finding { table, severity, loses: false, what, remedy });
        }
        findings.0
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, table: Option<&OutboxTable>, loses: bool, what: String, remedy: String) {
        let table = table.map(|table| table.table.clone());
        self.0.push(Finding { table, severity: Severity::Error, loses, what, remedy });
    }
}

/// Text and remedy for a configured table that does not exist.
pub(super) fn missing(table: &OutboxTable) -> (String, String) {
    let remedy = match table.preset {
        OutboxPreset::Factlib => {
            "create it (docs/outbox-tables.md has the statement), or correct outbox.table"
        }
        OutboxPreset::Debezium => "create it, or correct outbox.table",
    };
    (format!("outbox table {} does not exist", table.table), remedy.into())
}

/// Text and remedy for a name that belongs to something else than a table; none for a table.
pub(super) fn other_kind(table: &OutboxTable, kind: char) -> Option<(String, String)> {
    let (name, kind) = (
        &table.table,
        match kind {
            'r' | 'p' => return None,
            'v' => "a view",
            'm' => "a materialized view",
            'f' => "a foreign table",
            _ => "no table",
        },
    );
    let what = format!("outbox table {name} is {kind}: only rows of tables are in the WAL");
    Some((what, "name the table behind it in outbox.table".into()))
}

/// One configured table that exists.
struct OneTable<'a> {
    all: &'a Published<'a>,
    catalog: &'a Catalog,
    publication: &'a CatalogPublication,
    table: &'a OutboxTable,
    known: &'a CatalogTable,
}

impl OneTable<'_> {
    fn judge(&self, findings: &mut Findings) {
        if let Some((what, remedy)) = other_kind(self.table, self.known.kind) {
            return findings.add(Some(self.table), true, what, remedy);
        }
        self.storage(findings);
        match &self.known.published {
            None => self.unpublished(findings),
            Some(published) => {
                self.operations(findings);
                self.moves(findings);
                self.identity(published, findings);
                self.row_filter(published, findings);
            }
        }
        self.columns(findings);
    }

    /// Rows that never reach the WAL, or reach it under another name.
    fn storage(&self, findings: &mut Findings) {
        let name = &self.table.table;
        let major = self.catalog.major();
        if self.known.kind == 'p' && major < 13 {
            let what = format!(
                "outbox table {name} is partitioned, which PostgreSQL {major} can't publish as a whole"
            );
            let remedy =
                "upgrade to PostgreSQL 13 or later, or name each partition in an [[outbox]]";
            return findings.add(Some(self.table), true, what, remedy.into());
        }
        for member in &self.known.members {
            let (of, shown) = (&member.name, quoted(&member.name));
            let part = match (member.is_root, member.partition) {
                (true, _) => format!("outbox table {name}"),
                (_, true) => format!("partition {of} of outbox table {name}"),
                (_, false) => format!("table {of}, a child of outbox table {name},"),
            };
            let (what, remedy) = match member {
                Member { kind: 'f', partition, .. } => (
                    format!("{part} is a foreign table: its rows are not in this server's WAL"),
                    match partition {
                        true => format!(
                            "ALTER TABLE {} DETACH PARTITION {shown}, and keep its rows here",
                            identifier(self.table)
                        ),
                        false => self.no_inherit(&shown),
                    },
                ),
                Member { kind: 'r', persistence, .. } if *persistence != 'p' => (
                    format!("{part} is UNLOGGED: its rows are not in the WAL"),
                    format!("ALTER TABLE {shown} SET LOGGED"),
                ),
                Member { is_root: false, partition: false, .. } if !self.is_configured(of) => (
                    format!(
                        "{part} is not configured: the rows that are inserted into it are not sent"
                    ),
                    format!("name it in an [[outbox]] of its own, or {}", self.no_inherit(&shown)),
                ),
                _ => continue,
            };
            findings.add(Some(self.table), true, what, remedy);
        }
    }

    fn no_inherit(&self, child: &str) -> String {
        format!("ALTER TABLE {child} NO INHERIT {}", identifier(self.table))
    }

    fn is_configured(&self, name: &str) -> bool {
        let parts = name.split_once('.');
        self.all.tables.iter().any(|table| parts == Some(table.qualified()))
    }

    /// It is not in the publication under its own name.
    fn unpublished(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.all.publication);
        let of_members = |member: &Member| member.is_root && member.persistence != 'p';
        if self.known.members.iter().any(of_members) {
            // Said already, and to be mended first.
            return;
        }
        let partitioned = self.known.kind == 'p';
        if let Some(parent) = &self.known.published_as {
            let what = format!(
                "outbox table {name} is a partition, and publication {publication} publishes its rows as those of {parent}"
            );
            let remedy = format!("set outbox.table = \"{parent}\"");
            return findings.add(Some(self.table), true, what, remedy);
        }
        let via_root = "SET (publish_via_partition_root = true)";
        let is_there = self.known.in_pieces || self.known.named || self.publication.all_tables;
        if partitioned && is_there {
            let what = format!(
                "publication {publication} does not have outbox table {name}, which is partitioned, as a whole"
            );
            return findings.add(Some(self.table), true, what, self.alter(via_root));
        }
        let what = format!("publication {publication} does not have outbox table {name}");
        let mut remedy = self.alter(&format!("ADD TABLE {}", identifier(self.table)));
        if partitioned && !self.publication.via_root {
            remedy = format!("{}; {remedy}", self.alter(via_root));
        }
        findings.add(Some(self.table), true, what, remedy);
    }

    /// INSERT has to be published, and the changes of which a policy other than `ignore` tells.
    fn operations(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.all.publication);
        let remedy = || self.publish_all();
        if !self.publication.insert {
            let what = format!("publication {publication} does not publish INSERT of {name}");
            findings.add(Some(self.table), true, what, remedy());
        }
        let (on_update, on_delete) = (self.table.on_update, self.table.on_delete);
        let truncate = self.publication.truncate.unwrap_or(true);
        for (operation, published, setting, policy) in [
            ("UPDATE", self.publication.update, "on_update", on_update),
            ("DELETE", self.publication.delete, "on_delete", on_delete),
            ("TRUNCATE", truncate, "on_delete", on_delete),
        ] {
            let (severity, policy) = match policy {
                _ if published => continue,
                ChangePolicy::Ignore => continue,
                ChangePolicy::Warn => (Severity::Warning, "warn"),
                ChangePolicy::Stop => (Severity::Error, "stop"),
            };
            let what = format!(
                "publication {publication} does not publish {operation} of {name}, so outbox.{setting} = \"{policy}\" has no effect"
            );
            let (table, remedy) = (Some(name.clone()), remedy());
            findings.0.push(Finding { table, severity, loses: false, what, remedy });
        }
    }

    fn publish_all(&self) -> String {
        let rows_move = self.all.rows_move(self.catalog);
        let (major, present) = (self.catalog.major(), Some(self.publication));
        let operations = self.all.operations(major, rows_move, present);
        self.alter(&format!("SET (publish = '{operations}')"))
    }

    /// A row that moves to another partition is a DELETE and an INSERT.
    fn moves(&self, findings: &mut Findings) {
        let Some((what, publishing_mends)) = objection(self.table, self.known, self.publication)
        else {
            return;
        };
        let remedy = match publishing_mends {
            true => self.publish_all(),
            false => "give it a primary key that has the id and the partition key, or REPLICA IDENTITY FULL with all its partitions".into(),
        };
        findings.add(Some(self.table), false, what, remedy);
    }

    /// PostgreSQL refuses a published UPDATE or DELETE that can't name its row: the one that
    /// fails is the application.
    fn identity(&self, published: &PublishedTable, findings: &mut Findings) {
        let CatalogPublication { update, delete, .. } = *self.publication;
        if !update && !delete {
            return;
        }
        let changes = match (update, delete) {
            (true, true) => "UPDATE and DELETE",
            (true, false) => "UPDATE",
            _ => "DELETE",
        };
        let own = |member: &&Member| member.kind == 'r' && (member.is_root || member.partition);
        for member in self.known.members.iter().filter(own) {
            let name = match member.is_root {
                true => format!("outbox table {}", self.table.table),
                false => format!("partition {} of outbox table {}", member.name, self.table.table),
            };
            let lacks = match (member.identity, &member.key) {
                ('f', _) => self.unpublished_identity(member, published).map(|column| {
                    format!("REPLICA IDENTITY FULL and an unpublished column {column}")
                }),
                (_, Some(_)) => self
                    .unpublished_identity(member, published)
                    .map(|column| format!("an unpublished column {column} in its key")),
                ('n', None) => Some("REPLICA IDENTITY NOTHING".into()),
                ('i', None) => Some("a replica identity whose index does not count".into()),
                (_, None) if member.deferrable => Some("a DEFERRABLE primary key".into()),
                (_, None) => Some("no primary key".into()),
            };
            let Some(lacks) = lacks else { continue };
            let publication = self.all.publication;
            let what = format!(
                "{name} has {lacks}: where publication {publication} publishes {changes}, PostgreSQL refuses {changes} of its rows"
            );
            let shown = quoted(&member.name);
            let insert_only = match self.publication.mark.is_empty() {
                true => String::new(),
                false => format!(" and {}", self.alter("SET (publish = 'insert')")),
            };
            let remedy = format!(
                "set outbox.on_update and outbox.on_delete to \"ignore\"{insert_only}, or give it a primary key that is not DEFERRABLE and published, or ALTER TABLE {shown} REPLICA IDENTITY FULL"
            );
            findings.add(Some(self.table), false, what, remedy);
        }
    }

    /// The first column of the identity that a list of columns leaves out.
    fn unpublished_identity(&self, member: &Member, published: &PublishedTable) -> Option<String> {
        let list = published.columns.as_ref()?;
        let is_missing = |name: &&String| !list.contains(name);
        match (member.identity, &member.key) {
            ('f', _) => {
                // Before PostgreSQL 18, generated columns are no part of a row that is published.
                let counts = |column: &&CatalogColumn| {
                    column.generated.is_empty() || self.catalog.major() >= 18
                };
                let columns = self.known.columns.iter().filter(counts);
                columns.map(|column| &column.name).find(is_missing).cloned()
            }
            (_, key) => key.iter().flatten().find(is_missing).cloned(),
        }
    }

    fn row_filter(&self, published: &PublishedTable, findings: &mut Findings) {
        let Some(filter) = published.filter.as_ref().filter(|_| !self.all.accept_row_filter) else {
            return;
        };
        let (name, publication) = (&self.table.table, self.all.publication);
        let what = format!(
            "publication {publication} has a row filter on {name}: rows that do not match {filter} are not sent"
        );
        let remedy =
            format!("{}; or accept it: postgres.accept_row_filter = true", self.add_again());
        findings.add(Some(self.table), true, what, remedy);
    }

    /// Each column that is read has to be there, of a type that can be read, and published.
    fn columns(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.all.publication);
        let columns = self.known.base_columns();
        let mapping = match Mapping::resolve(self.table, &columns) {
            Ok(mapping) => mapping,
            Err(error) => {
                let remedy = error.advice().unwrap_or("correct outbox.columns").to_owned();
                return findings.add(Some(self.table), false, error.without_remedy(), remedy);
            }
        };
        let Some(published) = &self.known.published else { return };
        let mut said: Vec<&str> = Vec::new();
        for column in mapping.names(&columns) {
            let known = self.known.columns.iter().find(|known| known.name == column);
            let generated = known.map_or("", |known| known.generated.as_str());
            let is_published = match &published.columns {
                Some(list) => list.iter().any(|listed| listed == column),
                None => generated.is_empty(),
            };
            if is_published || said.contains(&column) {
                continue;
            }
            said.push(column);
            let (what, remedy) = match generated {
                "" => (
                    format!("publication {publication} does not publish column {column} of {name}"),
                    self.add_again(),
                ),
                stored => (
                    format!(
                        "column {column} of outbox table {name} is generated, and publication {publication} does not publish it"
                    ),
                    self.generated_remedy(column, stored),
                ),
            };
            findings.add(Some(self.table), false, what, remedy);
        }
    }

    fn generated_remedy(&self, column: &str, generated: &str) -> String {
        let (table, column) = (identifier(self.table), escape_identifier(column));
        let ordinary = format!(
            "make it an ordinary column that the application fills: ALTER TABLE {table} ALTER COLUMN {column} DROP EXPRESSION"
        );
        match (generated, self.catalog.major()) {
            ("s", 18..) if self.publication.generated != "s" => {
                format!("{}, or {ordinary}", self.alter("SET (publish_generated_columns = stored)"))
            }
            ("s", 18..) => format!("{}, or {ordinary}", self.add_again()),
            ("s", _) => format!("{ordinary}; PostgreSQL 18 can publish it"),
            _ => "a virtual column is never published: make it STORED or an ordinary column".into(),
        }
    }

    /// Takes the table out and in again, without its list of columns and its filter. In one
    /// transaction, so that no row is missed; SET TABLE would take all other tables out.
    fn add_again(&self) -> String {
        let table = identifier(self.table);
        format!(
            "BEGIN; {}; {}; COMMIT",
            self.alter(&format!("DROP TABLE {table}")),
            self.alter(&format!("ADD TABLE {table}"))
        )
    }

    fn alter(&self, change: &str) -> String {
        format!("ALTER PUBLICATION {} {change}", escape_identifier(self.all.publication))
    }
}

/// `schema.name` of the catalog as SQL takes it.
fn quoted(name: &str) -> String {
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    format!("{}.{}", escape_identifier(schema), escape_identifier(name))
}
