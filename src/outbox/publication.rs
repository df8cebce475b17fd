//! Checks before the stream starts that the outbox tables, their columns and the publication exist,
//! and creates the publication if that is wanted.

use std::collections::HashSet;

use factlib_postgres::publication;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use slog::{Logger, info, warn};
use tokio_postgres::{Client, error::SqlState};

use super::{
    catalog::{Catalog, CatalogPublication, CatalogTable},
    findings::{Finding, missing, not_a_table},
    mapping::Mapping,
    partitions::moving_column,
    unpublished::{earlier_rows, replay_command},
};
use crate::{
    Error, ErrorKind, Result,
    config::{ChangePolicy, OutboxTable, TableName},
    postgres::postgres_error,
};

/// The first version of PostgreSQL that can publish TRUNCATE.
const OLDEST_WITH_TRUNCATE: i32 = 11;

/// The first version of PostgreSQL that can publish partitioned tables as a whole.
const OLDEST_VIA_ROOT: i32 = 13;

/// True if rows were ever inserted into table $2 of schema $1 or its partitions, as far as its files
/// tell: also if they were deleted again, and of transactions that have not ended. And the time, in
/// Unix microseconds.
pub(crate) const HAS_ROWS: &str = "\
WITH RECURSIVE family AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = $1::text::name AND c.relname = $2::text::name
    UNION
    SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
SELECT coalesce(bool_or(pg_relation_size(oid) > 0), false),
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM family";

/// The configured tables, and the publication that has to include them.
#[derive(Clone, Copy)]
pub(crate) struct PublicationSpec<'a> {
    pub publication: &'a str,
    /// The `[[outbox]]`, of which some may be patterns.
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
    /// SQL that creates the publication, on PostgreSQL 11 or later; if there are patterns, on 13 or
    /// later.
    pub fn create_sql(&self) -> String {
        let (patterns, named): (Vec<_>, Vec<_>) =
            self.tables.iter().cloned().partition(OutboxTable::is_pattern);
        let mut sql = self.create_sql_for(&named, None, OLDEST_WITH_TRUNCATE);
        if !patterns.is_empty() {
            sql = format!("{sql};\n{}", self.add_matching_sql(&patterns));
        }
        sql
    }

    /// SQL that creates the publication with the tables of this catalog.
    pub(super) fn create_sql_in(&self, catalog: &Catalog) -> String {
        let tables = catalog.outbox_tables(self.tables);
        self.create_sql_for(&tables, Some(catalog), catalog.major())
    }

    /// SQL that adds a table.
    pub(super) fn add_sql(&self, table: &TableName) -> String {
        let publication = escape_identifier(self.publication);
        format!("ALTER PUBLICATION {publication} ADD TABLE {}", table.identifier())
    }

    /// SQL that adds the tables that match these patterns, for where the catalog can't be asked.
    fn add_matching_sql(&self, patterns: &[OutboxTable]) -> String {
        let literal = |text: &str| escape_literal(text).trim_start().to_owned();
        let matching = patterns.iter().map(|entry| {
            let (schema, name) = entry.pattern().like();
            format!("(s.nspname LIKE {} AND c.relname LIKE {})", literal(&schema), literal(&name))
        });
        format!(
            "DO $factlib$ DECLARE found regclass; BEGIN
    FOR found IN
        SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND s.nspname !~ '^pg_'
          AND s.nspname <> 'information_schema'
          AND ({})
          AND c.oid NOT IN (
              SELECT r.prrelid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
              WHERE p.pubname = {name})
    LOOP EXECUTE format('ALTER PUBLICATION %I ADD TABLE %s', {name}, found); END LOOP;
END $factlib$",
            matching.collect::<Vec<_>>().join(" OR "),
            name = literal(self.publication),
        )
    }

    /// True if a pattern stands for this table, and no entry names it.
    pub(super) fn is_by_pattern(&self, table: &TableName) -> bool {
        !self.tables.iter().any(|entry| entry.name().as_ref() == Some(table))
    }

    /// Says who adds a new table that matches a pattern to the publication; none without a pattern.
    pub fn describe_additions(
        &self,
        publication: &CatalogPublication,
        create: bool,
    ) -> Option<String> {
        let pattern = self.tables.iter().find(|entry| entry.is_pattern())?;
        let of = &pattern.table;
        let name = escape_identifier(self.publication);
        Some(if publication.all_tables {
            format!("{name} has new tables that match {of} as soon as they exist")
        } else if publication.owned && create {
            format!(
                "factlib adds new tables that match {of} to {name}, if it has the rights of their owner"
            )
        } else {
            format!(
                "who creates a table that matches {of} has to add it: ALTER PUBLICATION {name} ADD TABLE …"
            )
        })
    }

    /// Lists the tables that match a pattern, are not in the publication, and that this user may add
    /// without a problem, each with the SQL.
    pub fn additions(&self, catalog: &Catalog) -> Vec<(TableName, String)> {
        let is_owner = |of: &&CatalogPublication| of.owned;
        let Some(publication) = catalog.publication.as_ref().filter(is_owner) else {
            return Vec::new();
        };
        let can_be_added = |table: &&CatalogTable| {
            let published = table.published.is_some() || table.partitions_published || table.named;
            let whole = table.kind != 'p' || publication.via_root;
            table.owned && !published && whole && self.is_by_pattern(&table.name)
        };
        let known = catalog.tables(self.tables).into_iter().filter_map(|(_, known)| known);
        let mut names: HashSet<_> = known.filter(can_be_added).map(|table| &table.name).collect();
        if names.is_empty() {
            return Vec::new();
        }
        // It may, for example, make the application's UPDATE fail.
        let findings = self.check(&catalog.with_tables(&names));
        let errors = findings.iter().filter(|finding| finding.is_error());
        let bad: HashSet<_> = errors.filter_map(|error| error.table.as_deref()).collect();
        names.retain(|name| !bad.contains(&*name.to_string()));
        names.into_iter().map(|name| (name.clone(), self.add_sql(name))).collect()
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
        let any_is_partitioned = catalog.is_some_and(|catalog| {
            let mut tables = catalog.tables(self.tables).into_iter();
            tables.any(|(_, known)| known.is_some_and(|known| known.kind == 'p'))
        });
        // A table that matches a pattern later may be partitioned.
        let any_may_be = self.tables.iter().any(OutboxTable::is_pattern)
            && catalog.is_none_or(|catalog| catalog.major() >= OLDEST_VIA_ROOT);
        if any_is_partitioned || any_may_be {
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
        catalog
            .tables(self.tables)
            .iter()
            .any(|(table, known)| known.is_some_and(|known| moving_column(table, known).is_some()))
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
        let tables = catalog.outbox_tables(self.tables);
        let good: Vec<_> = tables.iter().filter(is_good).cloned().collect();
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
            self.refuse(&catalog, &findings, refuse)?;
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
        } else if create && refuse != RefuseOn::Nothing && self.add(client, &catalog, log).await? {
            catalog = self.read(client).await?;
        }
        let findings = self.check(&catalog);
        self.refuse(&catalog, &findings, refuse)?;
        Ok((missing, findings))
    }

    /// Adds the tables that match a pattern and are not in the publication. Returns true if there
    /// were any.
    async fn add(&self, client: &Client, catalog: &Catalog, log: &Logger) -> Result<bool> {
        let additions = self.additions(catalog);
        for (table, sql) in &additions {
            let failed = |error| {
                let what = format!("cannot add {table} to publication {}", self.publication);
                postgres_error(what, error)
            };
            if let Err(error) = client.batch_execute(sql).await {
                if !is_settled(error.code()) {
                    // The table is a finding.
                    warn!(log, "an outbox table can't be added to the publication";
                        "table" => %table, "error" => %failed(error));
                }
                continue;
            }
            info!(log, "an outbox table was added to the publication"; "table" => %table);
            let row = client.query_one(HAS_ROWS, &[&table.schema, &table.name]).await;
            let row = row.map_err(failed)?;
            if row.try_get(0).map_err(failed)? {
                let until_us = row.try_get(1).map_err(failed)?;
                let command = replay_command(&table.to_string(), None, until_us);
                warn!(log, "rows of an outbox table were not published, or not all of them";
                    "table" => %table, "reason" => earlier_rows(&table.to_string()),
                    "remedy" => command);
            }
        }
        Ok(!additions.is_empty())
    }

    fn refuse(&self, catalog: &Catalog, findings: &[Finding], refuse: RefuseOn) -> Result<()> {
        let tables = catalog.outbox_tables(self.tables);
        let mut errors = findings.iter().filter(|finding| finding.is_error());
        let is_bad = |table: &OutboxTable| {
            let mut errors = findings.iter().filter(|finding| finding.is_error());
            errors.any(|error| error.table.as_ref() == Some(&table.table))
        };
        let refused = match refuse {
            RefuseOn::AnyFinding => errors.next(),
            RefuseOn::EveryTable if !tables.is_empty() && tables.iter().all(is_bad) => {
                errors.next()
            }
            RefuseOn::EveryTable => errors.find(|error| error.table.is_none()),
            RefuseOn::Nothing => None,
        };
        refused.map_or(Ok(()), |finding| Err(finding.clone().into_error()))
    }
}

/// True of an error after which a table has not to be added any more: it was dropped, or somebody
/// else has added it.
pub(crate) fn is_settled(code: Option<&SqlState>) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::DUPLICATE_OBJECT]
        .iter()
        .any(|settled| code == Some(settled))
}

/// Looks up a table's columns.
pub(super) async fn resolve_table(client: &Client, table: &OutboxTable) -> Result<ResolvedTable> {
    if table.is_pattern() {
        let what = format!("{} is a pattern of tables, and one table is needed", table.table);
        return Err(Error::new(ErrorKind::Config, what).remedy("name one, as schema.table"));
    }
    let catalog = Catalog::read(client, "", std::slice::from_ref(table)).await?;
    let refused = |(what, remedy): (String, String)| {
        Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy))
    };
    let tables = catalog.tables(std::slice::from_ref(table));
    let Some(known) = tables.first().and_then(|(_, known)| *known) else {
        return refused(missing(table));
    };
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
    table.qualified().identifier()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutboxPreset;

    #[test]
    fn only_operations_with_a_policy_are_published() {
        let mut table = OutboxTable::new("app.o\"", OutboxPreset::Debezium);
        let sql = |table: &OutboxTable| {
            let tables = [table.clone(), OutboxTable { table: "p".into(), ..table.clone() }];
            PublicationSpec { publication: "f", tables: &tables, accept_row_filter: false }
                .create_sql()
        };
        let head = "CREATE PUBLICATION \"f\" FOR TABLE \"app\".\"o\"\"\", \"public\".\"p\"";
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, update')"));
        table.on_update = ChangePolicy::Ignore;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert')"));
        table.on_delete = ChangePolicy::Stop;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, delete, truncate')"));
    }
}
