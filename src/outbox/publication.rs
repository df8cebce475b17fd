//! What has to be there before outbox tables are read: the tables, their columns, and a
//! publication that has them.

use postgres_protocol::escape::escape_identifier;
use slog::{Logger, info, warn};
use tokio_postgres::Client;

use super::{catalog::Catalog, mapping::Mapping};
use crate::{
    Error, ErrorKind, Result,
    config::{ChangePolicy, OutboxPreset, OutboxTable},
    postgres::{postgres_error, slot::publication_exists},
};

const PUBLISHED: &str = "\
SELECT p.pubinsert, p.pubupdate, p.pubdelete,
       t.tablename IS NOT NULL,
       ARRAY(SELECT jsonb_array_elements_text(to_jsonb(t) -> 'attnames'))
FROM pg_publication p
LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3
WHERE p.pubname = $1";

/// The tables of a configuration, and the publication that is to have them.
pub(crate) struct Published<'a> {
    pub publication: &'a str,
    pub tables: &'a [OutboxTable],
}

/// A configured table as the database has it.
pub(super) struct Found {
    partitioned: bool,
    /// It has nothing by which a published UPDATE or DELETE could name a row.
    anonymous: bool,
    pub(super) columns: Vec<(String, u32)>,
    pub(super) mapping: Mapping,
}

impl Published<'_> {
    /// The statement that creates the publication.
    pub fn create_sql(&self) -> String {
        self.create_sql_for(false)
    }

    fn create_sql_for(&self, partitioned: bool) -> String {
        let tables: Vec<_> = self.tables.iter().map(identifier).collect();
        let mut options = format!("publish = '{}'", self.operations());
        if partitioned {
            options += ", publish_via_partition_root = true";
        }
        let name = escape_identifier(self.publication);
        format!("CREATE PUBLICATION {name} FOR TABLE {} WITH ({options})", tables.join(", "))
    }

    /// Inserts, and what somebody wants to know of: UPDATE fails on a published table
    /// without a primary key, so nothing is published that nobody asked for.
    fn operations(&self) -> String {
        let any = |policy: fn(&OutboxTable) -> ChangePolicy| {
            self.tables.iter().any(|table| policy(table) != ChangePolicy::Ignore)
        };
        let mut operations = vec!["insert"];
        if any(|table| table.on_update) {
            operations.push("update");
        }
        if any(|table| table.on_delete) {
            // PostgreSQL 10 has no "truncate" to publish.
            operations.push("delete");
        }
        operations.join(", ")
    }

    /// The statement that would create the publication, of tables that are checked for that.
    pub async fn creation(&self, client: &Client) -> Result<String> {
        let mut found = Vec::with_capacity(self.tables.len());
        for table in self.tables {
            found.push(find(client, table).await?);
        }
        self.check_identities(&found)?;
        Ok(self.create_sql_for(found.iter().any(|found| found.partitioned)))
    }

    /// Checks tables and publication; creates the publication if it is missing and that is wanted.
    pub async fn prepare(&self, client: &Client, create: bool, log: &Logger) -> Result<bool> {
        let mut found = Vec::with_capacity(self.tables.len());
        for table in self.tables {
            found.push(find(client, table).await?);
        }
        let missing = !publication_exists(client, self.publication).await?;
        if missing {
            let sql = self.create_sql_for(found.iter().any(|found| found.partitioned));
            let what = format!("publication {} does not exist", self.publication);
            if !create {
                let remedy = format!("run `factlib setup`, or {sql}");
                return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
            }
            self.check_identities(&found)?;
            client.batch_execute(&sql).await.map_err(|error| {
                let what = format!("cannot create publication {}", self.publication);
                let failed = postgres_error(what, error);
                match failed.is_transient() {
                    true => failed,
                    false => failed.remedy(format!("run as the owner of the tables: {sql}")),
                }
            })?;
            info!(log, "publication created"; "publication" => self.publication);
        }
        for (table, found) in self.tables.iter().zip(&found) {
            self.check(client, table, found, log).await?;
        }
        Ok(missing)
    }

    /// Once it publishes UPDATE, such a table refuses it, and whoever writes there fails.
    fn check_identities(&self, found: &[Found]) -> Result<()> {
        let operations = self.operations();
        if operations == "insert" {
            return Ok(());
        }
        let anonymous = self.tables.iter().zip(found).find(|(_, found)| found.anonymous);
        let Some((table, _)) = anonymous else { return Ok(()) };
        let name = &table.table;
        let what = format!(
            "outbox table {name} has no primary key: published with {operations}, it would refuse UPDATE and DELETE"
        );
        let remedy =
            "set outbox.on_update and outbox.on_delete to \"ignore\", or give it a primary key";
        Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy))
    }

    async fn check(
        &self,
        client: &Client,
        table: &OutboxTable,
        found: &Found,
        log: &Logger,
    ) -> Result<()> {
        let (schema, name) = table.qualified();
        let publication = self.publication;
        let failed =
            |error| postgres_error(format!("cannot look up publication {publication}"), error);
        let row =
            client.query_one(PUBLISHED, &[&publication, &schema, &name]).await.map_err(failed)?;
        let read = || -> Result<_, tokio_postgres::Error> {
            let operations: [bool; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
            Ok((operations, row.try_get(3)?, row.try_get::<_, Vec<String>>(4)?))
        };
        let ([insert, update, delete], has_table, columns): (_, bool, _) =
            read().map_err(failed)?;
        let refused = |what: String, change: String| {
            let remedy = format!("ALTER PUBLICATION {} {change}", escape_identifier(publication));
            Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy))
        };
        let shown = &table.table;
        if !has_table && found.partitioned {
            let what = format!(
                "publication {publication} does not have outbox table {shown}, which is partitioned, as a whole"
            );
            return refused(what, "SET (publish_via_partition_root = true)".into());
        }
        if !has_table {
            let what = format!("publication {publication} does not have outbox table {shown}");
            return refused(what, format!("ADD TABLE {}", identifier(table)));
        }
        let wanted = |policy| policy == ChangePolicy::Stop;
        let lacks =
            !insert || !update && wanted(table.on_update) || !delete && wanted(table.on_delete);
        if lacks {
            let what =
                format!("publication {publication} does not publish all that is read of {shown}");
            return refused(what, format!("SET (publish = '{}')", self.operations()));
        }
        if !update && table.on_update == ChangePolicy::Warn
            || !delete && table.on_delete == ChangePolicy::Warn
        {
            warn!(log, "changes of an outbox table that would be warned of are not published";
                "table" => shown, "publication" => publication);
        }
        // PostgreSQL 15 on: all columns, or a list of some.
        let unpublished = found
            .mapping
            .names(&found.columns)
            .find(|name| !columns.is_empty() && !columns.iter().any(|column| column == name));
        if let Some(column) = unpublished {
            let what =
                format!("publication {publication} does not publish column {column} of {shown}");
            return refused(what, format!("SET TABLE {}", identifier(table)));
        }
        Ok(())
    }
}

pub(super) async fn find(client: &Client, table: &OutboxTable) -> Result<Found> {
    let catalog = Catalog::read(client, "", std::slice::from_ref(table)).await?;
    let known = catalog.table(0).filter(|known| matches!(known.kind, 'r' | 'p'));
    let Some(known) = known else {
        let what = format!("outbox table {} does not exist", table.table);
        let remedy = match table.preset {
            OutboxPreset::Factlib => {
                "create it (docs/outbox-tables.md has the statement), or correct outbox.table"
            }
            OutboxPreset::Debezium => "create it, or correct outbox.table",
        };
        return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
    };
    let partitioned = known.kind == 'p';
    let anonymous = known
        .members
        .iter()
        .any(|member| member.is_root && member.identity != 'f' && member.key.is_none());
    let columns = known.base_columns();
    let mapping = Mapping::resolve(table, &columns)?;
    Ok(Found { partitioned, anonymous, columns, mapping })
}

pub(super) fn identifier(table: &OutboxTable) -> String {
    let (schema, name) = table.qualified();
    format!("{}.{}", escape_identifier(schema), escape_identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_wants_to_know_of_is_published() {
        let mut table = OutboxTable::new("app.\"o", OutboxPreset::Debezium);
        let sql = |table: &OutboxTable| {
            let tables = [table.clone(), OutboxTable { table: "p".into(), ..table.clone() }];
            Published { publication: "f", tables: &tables }.create_sql()
        };
        let head = "CREATE PUBLICATION \"f\" FOR TABLE \"app\".\"\"\"o\", \"public\".\"p\"";
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, update')"));
        table.on_update = ChangePolicy::Ignore;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert')"));
        table.on_delete = ChangePolicy::Stop;
        assert_eq!(sql(&table), format!("{head} WITH (publish = 'insert, delete')"));
    }
}
