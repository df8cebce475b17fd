//! Checks before the stream starts that the outbox tables, their columns and the publication exist,
//! and creates the publication if that is wanted.

use factlib_postgres::publication;
use postgres_protocol::escape::escape_identifier;
use slog::{Logger, info};
use tokio_postgres::Client;

use super::{
    catalog::{Catalog, CatalogPublication},
    findings::{Finding, missing, not_a_table},
    mapping::Mapping,
    partitions::moving_column,
};
use crate::{
    Error, ErrorKind, Result,
    config::{ChangePolicy, OutboxTable},
    postgres::postgres_error,
};

/// The first version of PostgreSQL that can publish TRUNCATE.
const OLDEST_WITH_TRUNCATE: i32 = 11;

/// The configured tables, and the publication that has to include them.
#[derive(Clone, Copy)]
pub(crate) struct PublicationSpec<'a> {
    pub publication: &'a str,
    pub tables: &'a [OutboxTable],
    /// `postgres.accept_row_filter`.
    pub accept_row_filter: bool,
}

/// The findings on which a start is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefuseOn {
    /// Any error: nothing was read yet, so a typo is more likely than a change.
    AnyFinding,
    /// An error of the publication, or errors of all tables. Otherwise the tables without an error
    /// are read, and the watcher reports the findings.
    EveryTable,
    /// Nothing: this process has read before, and the watcher reports the findings.
    Nothing,
}

/// A configured table's columns in the database, and their roles.
pub(super) struct ResolvedTable {
    pub(super) columns: Vec<(String, u32)>,
    pub(super) mapping: Mapping,
}

impl PublicationSpec<'_> {
    /// SQL that creates the publication, on PostgreSQL 11 or later.
    pub fn create_sql(&self) -> String {
        self.create_sql_for(self.tables, None, OLDEST_WITH_TRUNCATE)
    }

    fn create_sql_for(
        &self,
        tables: &[OutboxTable],
        catalog: Option<&Catalog>,
        major: i32,
    ) -> String {
        if self.tables.is_empty() {
            return publication::create_sql(self.publication);
        }
        let deletes = catalog.is_some_and(|catalog| self.rows_move(catalog));
        let mut options = format!("publish = '{}'", self.operations(major, deletes, None));
        let is_partitioned =
            |catalog: &Catalog, index| catalog.table(index).is_some_and(|known| known.kind == 'p');
        if catalog.is_some_and(|catalog| {
            (0..self.tables.len()).any(|index| is_partitioned(catalog, index))
        }) {
            options += ", publish_via_partition_root = true";
        }
        let name = escape_identifier(self.publication);
        let tables: Vec<_> = tables.iter().map(identifier).collect();
        match tables.is_empty() {
            true => format!("CREATE PUBLICATION {name} WITH ({options})"),
            false => {
                format!(
                    "CREATE PUBLICATION {name} FOR TABLE {} WITH ({options})",
                    tables.join(", ")
                )
            }
        }
    }

    /// True if rows of a table can move to another partition.
    pub(super) fn rows_move(&self, catalog: &Catalog) -> bool {
        let mut tables = self.tables.iter().enumerate();
        tables.any(|(index, table)| {
            catalog.table(index).is_some_and(|known| moving_column(table, known).is_some())
        })
    }

    /// Operations to publish: INSERT, those with a policy, DELETE if rows can move, and those that
    /// are published already. No more, as UPDATE fails on a published table without a primary key.
    pub(super) fn operations(
        &self,
        major: i32,
        rows_move: bool,
        present: Option<&CatalogPublication>,
    ) -> String {
        let any = |policy: fn(&OutboxTable) -> ChangePolicy| {
            self.tables.iter().any(|table| policy(table) != ChangePolicy::Ignore)
        };
        let is = |flag: fn(&CatalogPublication) -> bool| present.is_some_and(flag);
        let mut operations = vec!["insert"];
        if any(|table| table.on_update) || is(|present| present.update) {
            operations.push("update");
        }
        let deletes = any(|table| table.on_delete);
        if deletes || rows_move || is(|present| present.delete) {
            operations.push("delete");
        }
        let truncates = deletes || is(|present| present.truncate == Some(true));
        if truncates && major >= OLDEST_WITH_TRUNCATE {
            operations.push("truncate");
        }
        operations.join(", ")
    }

    /// Reads the catalog.
    pub async fn read(&self, client: &Client) -> Result<Catalog> {
        Catalog::read(client, self.publication, self.tables).await
    }

    /// Returns the catalog as it would be after creating the publication.
    fn as_created(&self, catalog: &Catalog) -> Catalog {
        let operations = self.operations(catalog.major(), self.rows_move(catalog), None);
        let has = |operation| operations.split(", ").any(|other| other == operation);
        catalog.with_publication(has("update"), has("delete"), has("truncate"))
    }

    /// SQL that would create the publication, and the problems that would remain.
    pub fn creation(&self, catalog: &Catalog) -> (String, Vec<Finding>) {
        let findings = self.check(&self.as_created(catalog));
        let is_good = |table: &&OutboxTable| {
            let mut errors = findings.iter().filter(|finding| finding.is_error());
            !errors.any(|error| error.table.as_ref() == Some(&table.table))
        };
        let good: Vec<_> = self.tables.iter().filter(is_good).cloned().collect();
        // A table with an error can only be added once that is corrected.
        (self.create_sql_for(&good, Some(catalog), catalog.major()), findings)
    }

    /// Checks the tables and the publication, and creates the publication if it is missing and
    /// `create` is set. Returns true if it was missing, and the findings on which it did not refuse.
    pub async fn prepare(
        &self,
        client: &Client,
        create: bool,
        refuse: RefuseOn,
        log: &Logger,
    ) -> Result<(bool, Vec<Finding>)> {
        let mut catalog = self.read(client).await?;
        let missing = catalog.publication.is_none();
        if missing {
            let (sql, findings) = self.creation(&catalog);
            self.refuse(&findings, refuse)?;
            let what = format!("publication {} does not exist", self.publication);
            if !create {
                let remedy = format!("run `factlib setup`, or {sql}");
                return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
            }
            client.batch_execute(&sql).await.map_err(|error| {
                let what = format!("cannot create publication {}", self.publication);
                let failed = postgres_error(what, error);
                match failed.is_transient() || self.tables.is_empty() {
                    true => failed,
                    false => failed.remedy(format!("run as the owner of the tables: {sql}")),
                }
            })?;
            info!(log, "publication created"; "publication" => self.publication);
            catalog = self.read(client).await?;
        }
        let findings = self.check(&catalog);
        self.refuse(&findings, refuse)?;
        Ok((missing, findings))
    }

    fn refuse(&self, findings: &[Finding], refuse: RefuseOn) -> Result<()> {
        let mut errors = findings.iter().filter(|finding| finding.is_error());
        let is_bad = |table: &OutboxTable| {
            let mut errors = findings.iter().filter(|finding| finding.is_error());
            errors.any(|error| error.table.as_ref() == Some(&table.table))
        };
        let refused = match refuse {
            RefuseOn::AnyFinding => errors.next(),
            RefuseOn::EveryTable if self.tables.iter().all(is_bad) => errors.next(),
            RefuseOn::EveryTable => errors.find(|error| error.table.is_none()),
            RefuseOn::Nothing => None,
        };
        refused.map_or(Ok(()), |finding| Err(finding.clone().into_error()))
    }
}

/// Looks up a table's columns.
pub(super) async fn resolve_table(client: &Client, table: &OutboxTable) -> Result<ResolvedTable> {
    let catalog = Catalog::read(client, "", std::slice::from_ref(table)).await?;
    let refused = |(what, remedy): (String, String)| {
        Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy))
    };
    let Some(known) = catalog.table(0) else { return refused(missing(table)) };
    if let Some(other) = not_a_table(table, known.kind) {
        return refused(other);
    }
    let columns = known.base_columns();
    let mapping = Mapping::resolve(table, &columns)?;
    let mapping = mapping.with_facts(table, &columns, &known.facts())?;
    Ok(ResolvedTable { columns, mapping })
}

/// Quotes a table's name for SQL.
pub(super) fn identifier(table: &OutboxTable) -> String {
    let (schema, name) = table.qualified();
    format!("{}.{}", escape_identifier(schema), escape_identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutboxPreset;

    #[test]
    fn only_operations_with_a_policy_are_published() {
        let mut table = OutboxTable::new("app.\"o", OutboxPreset::Debezium);
        let sql = |table: &OutboxTable| {
            let tables = [table.clone(), OutboxTable { table: "p".into(), ..table.clone() }];
            PublicationSpec { publication: "f", tables: &tables, accept_row_filter: false }
                .create_sql()
        };
        let head = "CREATE PUBLICATION \"f\" FOR TABLE \"app\".\"\"\"o\", \"public\".\"p\"";
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, update')"));
        table.on_update = ChangePolicy::Ignore;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert')"));
        table.on_delete = ChangePolicy::Stop;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, delete, truncate')"));
    }
}
