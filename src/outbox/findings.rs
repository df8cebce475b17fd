//! Lists the problems in a catalog: rows of the configured tables that would not be sent, and changes
//! of the application that the publication makes fail. Pure; the start, doctor and the watcher share it.

use postgres_protocol::escape::escape_identifier;

use super::{
    catalog::{Catalog, CatalogColumn, CatalogPublication, CatalogTable, Member, PublishedTable},
    mapping::Mapping,
    partitions::move_problem,
    publication::PublicationSpec,
};
use crate::{
    Error, ErrorKind,
    config::{ChangePolicy, OutboxPreset, OutboxTable, TableName},
};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Worth a look; all rows of the configured tables are sent.
    Warning,
    /// Refuses a first start, and makes a running relay unhealthy.
    Error,
}

/// A problem of the publication or of one table, and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The table's configured name; none for a problem of the publication.
    pub table: Option<String>,
    pub severity: Severity,
    /// True if rows that are committed while the problem lasts are never sent.
    pub loses_rows: bool,
    pub problem: String,
    pub remedy: String,
}

impl Finding {
    /// Turns the finding into the error of a start that is refused.
    pub fn into_error(self) -> Error {
        Error::new(ErrorKind::PostgresRefused, self.problem).remedy(self.remedy)
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl PublicationSpec<'_> {
    /// Lists the findings: the publication's, then each table's, then published tables that are not
    /// configured.
    pub fn check(&self, catalog: &Catalog) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        let Some(publication) = &catalog.publication else {
            let problem = format!("publication {} does not exist", self.publication);
            // Without outbox tables, the relay reads messages and needs the publication only to connect.
            let loses_rows = !self.tables.is_empty();
            findings.add(None, loses_rows, problem, self.create_sql_in(catalog));
            return findings.0;
        };
        let tables = catalog.tables(self.tables);
        for (table, known) in &tables {
            let Some(known) = known else {
                let (problem, remedy) = missing(table);
                findings.add(Some(table), true, problem, remedy);
                continue;
            };
            let one = TableCheck { spec: self, catalog, publication, table, known };
            one.run(&mut findings);
        }
        let matches = |entry: &OutboxTable| {
            let pattern = entry.pattern();
            tables.iter().any(|(table, _)| pattern.matches(&table.qualified()))
        };
        for entry in self.tables.iter().filter(|entry| entry.is_pattern() && !matches(entry)) {
            let problem = format!("outbox.table = {:?} matches no table", entry.table);
            let remedy = "create one, or correct the pattern".into();
            let (table, severity) = (Some(entry.table.clone()), Severity::Warning);
            findings.0.push(Finding { table, severity, loses_rows: false, problem, remedy });
        }
        // A relay of messages reads no table.
        for table in catalog.unconfigured.iter().filter(|_| !self.tables.is_empty()) {
            let (name, publication) = (&table.name, self.publication);
            let problem = format!(
                "publication {publication} publishes {name}, which no [[outbox]] names: its rows are not sent"
            );
            let mut remedy = format!("add [[outbox]] with table = \"{name}\"");
            if table.named {
                remedy += &format!(
                    ", or ALTER PUBLICATION {} DROP TABLE {}",
                    escape_identifier(publication),
                    name.identifier()
                );
            }
            let (table, severity) = (Some(name.to_string()), Severity::Warning);
            findings.0.push(Finding { table, severity, loses_rows: false, problem, remedy });
        }
        findings.0
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        table: Option<&OutboxTable>,
        loses_rows: bool,
        problem: String,
        remedy: String,
    ) {
        let table = table.map(|table| table.table.clone());
        self.0.push(Finding { table, severity: Severity::Error, loses_rows, problem, remedy });
    }
}

/// Text and remedy for a configured table that does not exist.
pub(super) fn missing(table: &OutboxTable) -> (String, String) {
    let name = &table.table;
    let remedy = match table.preset {
        OutboxPreset::Factlib => format!(
            "`factlib setup --outbox-table={name}` creates one of factlib's shape; or correct \
             outbox.table"
        ),
        OutboxPreset::Debezium => "create it, or correct outbox.table".into(),
    };
    (format!("outbox table {name} does not exist"), remedy)
}

/// Text and remedy for a configured name that is not a table; none for a table.
pub(super) fn not_a_table(table: &OutboxTable, kind: char) -> Option<(String, String)> {
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
    let problem = format!("outbox table {name} is {kind}: only rows of tables are in the WAL");
    Some((problem, "name the table behind it in outbox.table".into()))
}

/// Checks one configured table that exists.
struct TableCheck<'a> {
    spec: &'a PublicationSpec<'a>,
    catalog: &'a Catalog,
    publication: &'a CatalogPublication,
    table: &'a OutboxTable,
    known: &'a CatalogTable,
}

impl TableCheck<'_> {
    fn run(&self, findings: &mut Findings) {
        if let Some((problem, remedy)) = not_a_table(self.table, self.known.kind) {
            return findings.add(Some(self.table), true, problem, remedy);
        }
        self.check_storage(findings);
        match &self.known.published {
            None => self.report_unpublished(findings),
            Some(published) => {
                self.check_operations(findings);
                self.check_moves(findings);
                self.check_identity(published, findings);
                self.check_row_filter(published, findings);
            }
        }
        self.check_columns(findings);
    }

    /// Finds rows that never reach the WAL, or reach it under another table's name.
    fn check_storage(&self, findings: &mut Findings) {
        let name = &self.table.table;
        let major = self.catalog.major();
        if self.known.kind == 'p' && major < 13 {
            let problem = format!(
                "outbox table {name} is partitioned, which PostgreSQL {major} can't publish as a whole"
            );
            let remedy =
                "upgrade to PostgreSQL 13 or later, or name each partition in an [[outbox]]";
            return findings.add(Some(self.table), true, problem, remedy.into());
        }
        for member in &self.known.members {
            let (of, shown) = (&member.name, member.name.identifier());
            let part = match (member.is_root, member.partition) {
                (true, _) => format!("outbox table {name}"),
                (_, true) => format!("partition {of} of outbox table {name}"),
                (_, false) => format!("table {of}, a child of outbox table {name},"),
            };
            let (problem, remedy) = match member {
                Member { kind: 'f', partition, .. } => (
                    format!("{part} is a foreign table: its rows are not in this server's WAL"),
                    match partition {
                        true => format!(
                            "ALTER TABLE {} DETACH PARTITION {shown}, and keep its rows here",
                            self.identifier()
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
            findings.add(Some(self.table), true, problem, remedy);
        }
    }

    fn no_inherit(&self, child: &str) -> String {
        format!("ALTER TABLE {child} NO INHERIT {}", self.identifier())
    }

    fn is_configured(&self, name: &TableName) -> bool {
        OutboxTable::of_name(self.spec.tables, name).is_some()
    }

    /// The table's name, quoted for SQL.
    fn identifier(&self) -> String {
        self.known.name.identifier()
    }

    /// Explains why the table is not in the publication under its own name.
    fn report_unpublished(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.spec.publication);
        let of_members = |member: &Member| member.is_root && member.persistence != 'p';
        if self.known.members.iter().any(of_members) {
            // Reported already; it has to be corrected first.
            return;
        }
        let partitioned = self.known.kind == 'p';
        if let Some(parent) = &self.known.published_as {
            let problem = format!(
                "outbox table {name} is a partition, and publication {publication} publishes its rows as those of {parent}"
            );
            let remedy = format!("set outbox.table = \"{parent}\"");
            return findings.add(Some(self.table), true, problem, remedy);
        }
        let via_root = "SET (publish_via_partition_root = true)";
        let is_there =
            self.known.partitions_published || self.known.named || self.publication.all_tables;
        if partitioned && is_there {
            let problem = format!(
                "publication {publication} does not have outbox table {name}, which is partitioned, as a whole"
            );
            return findings.add(Some(self.table), true, problem, self.alter(via_root));
        }
        let problem = format!("publication {publication} does not have outbox table {name}");
        let mut remedy = self.spec.add_sql(&self.known.name);
        if partitioned && !self.publication.via_root {
            remedy = format!("{}; {remedy}", self.alter(via_root));
        }
        let may_add = self.known.owned && self.publication.owned;
        if self.spec.is_by_pattern(&self.known.name) && !may_add {
            remedy = format!("as the owner of the table and of the publication: {remedy}");
        }
        findings.add(Some(self.table), true, problem, remedy);
    }

    /// Checks that INSERT is published, and the changes that have a policy other than `ignore`.
    fn check_operations(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.spec.publication);
        let remedy = || self.publish_all();
        if !self.publication.insert {
            let problem = format!("publication {publication} does not publish INSERT of {name}");
            findings.add(Some(self.table), true, problem, remedy());
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
                ChangePolicy::Error => (Severity::Warning, "error"),
                ChangePolicy::Stop => (Severity::Error, "stop"),
            };
            let problem = format!(
                "publication {publication} does not publish {operation} of {name}, so outbox.{setting} = \"{policy}\" has no effect"
            );
            let (table, remedy) = (Some(name.clone()), remedy());
            findings.0.push(Finding { table, severity, loses_rows: false, problem, remedy });
        }
    }

    fn publish_all(&self) -> String {
        let rows_move = self.spec.rows_move(self.catalog);
        let (major, present) = (self.catalog.major(), Some(self.publication));
        let operations = self.spec.operations(major, rows_move, present);
        self.alter(&format!("SET (publish = '{operations}')"))
    }

    /// Checks that a row's move to another partition can be recognized.
    fn check_moves(&self, findings: &mut Findings) {
        let Some((problem, publish_delete_helps)) =
            move_problem(self.table, self.known, self.publication)
        else {
            return;
        };
        let remedy = match publish_delete_helps {
            true => self.publish_all(),
            false => "give it a primary key that has the id and the partition key, or REPLICA IDENTITY FULL with all its partitions".into(),
        };
        findings.add(Some(self.table), false, problem, remedy);
    }

    /// Checks that published UPDATEs and DELETEs can name their row. PostgreSQL refuses them
    /// otherwise, which fails the application.
    fn check_identity(&self, published: &PublishedTable, findings: &mut Findings) {
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
            let publication = self.spec.publication;
            let problem = format!(
                "{name} has {lacks}: where publication {publication} publishes {changes}, PostgreSQL refuses {changes} of its rows"
            );
            let shown = member.name.identifier();
            let insert_only = match self.publication.mark.is_empty() {
                true => String::new(),
                false => format!(" and {}", self.alter("SET (publish = 'insert')")),
            };
            let remedy = format!(
                "set outbox.on_update and outbox.on_delete to \"ignore\"{insert_only}, or give it a primary key that is not DEFERRABLE and published, or ALTER TABLE {shown} REPLICA IDENTITY FULL"
            );
            findings.add(Some(self.table), false, problem, remedy);
        }
    }

    /// Returns the first column of the replica identity that the column list leaves out.
    fn unpublished_identity(&self, member: &Member, published: &PublishedTable) -> Option<String> {
        let list = published.columns.as_ref()?;
        let is_missing = |name: &&String| !list.contains(name);
        match (member.identity, &member.key) {
            ('f', _) => {
                // Before PostgreSQL 18, a published row has no generated columns.
                let counts = |column: &&CatalogColumn| {
                    column.generated.is_empty() || self.catalog.major() >= 18
                };
                let columns = self.known.columns.iter().filter(counts);
                columns.map(|column| &column.name).find(is_missing).cloned()
            }
            (_, key) => key.iter().flatten().find(is_missing).cloned(),
        }
    }

    fn check_row_filter(&self, published: &PublishedTable, findings: &mut Findings) {
        let Some(filter) = published.filter.as_ref().filter(|_| !self.spec.accept_row_filter)
        else {
            return;
        };
        let (name, publication) = (&self.table.table, self.spec.publication);
        let problem = format!(
            "publication {publication} has a row filter on {name}: rows that do not match {filter} are not sent"
        );
        let remedy =
            format!("{}; or accept it: postgres.accept_row_filter = true", self.add_again());
        findings.add(Some(self.table), true, problem, remedy);
    }

    /// Checks that each column that is read exists, has a readable type and is published.
    fn check_columns(&self, findings: &mut Findings) {
        let (name, publication) = (&self.table.table, self.spec.publication);
        let columns = self.known.base_columns();
        let mapping = match Mapping::resolve(self.table, &columns) {
            Ok(mapping) => mapping,
            Err(error) => {
                let remedy = error.advice().unwrap_or("correct outbox.columns").to_owned();
                return findings.add(Some(self.table), false, error.without_remedy(), remedy);
            }
        };
        let Some(published) = &self.known.published else { return };
        let mut reported: Vec<&str> = Vec::new();
        for column in mapping.column_names(&columns) {
            let known = self.known.columns.iter().find(|known| known.name == column);
            let generated = known.map_or("", |known| known.generated.as_str());
            let is_published = match &published.columns {
                Some(list) => list.iter().any(|listed| listed == column),
                None => generated.is_empty(),
            };
            if is_published || reported.contains(&column) {
                continue;
            }
            reported.push(column);
            let (problem, remedy) = match generated {
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
            findings.add(Some(self.table), false, problem, remedy);
        }
    }

    fn generated_remedy(&self, column: &str, generated: &str) -> String {
        let (table, column) = (self.identifier(), escape_identifier(column));
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

    /// SQL that drops the table from the publication and adds it without its column list and filter.
    /// One transaction, so that no row is missed; SET TABLE would remove all other tables.
    fn add_again(&self) -> String {
        let table = self.identifier();
        format!(
            "BEGIN; {}; {}; COMMIT",
            self.alter(&format!("DROP TABLE {table}")),
            self.alter(&format!("ADD TABLE {table}"))
        )
    }

    fn alter(&self, change: &str) -> String {
        format!("ALTER PUBLICATION {} {change}", escape_identifier(self.spec.publication))
    }
}
