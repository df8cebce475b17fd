//! Finds privileges that the user lacks, and the GRANTs that give them.

use postgres_protocol::escape::escape_identifier;

use super::{PostgresChecks, asking, column};
use crate::{
    Result,
    config::{ReceiptStore, RefusalPolicy, StoreKind},
};

/// Privileges on the relay's own tables.
const RIGHTS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

impl PostgresChecks<'_> {
    /// Checks the privileges on existing tables, and those to create missing ones.
    pub(super) async fn privileges(&mut self) -> Result<()> {
        let user = escape_identifier(self.startup.info.user());
        let publication = &self.config.postgres.publication;
        let row = self
            .ask(
                "SELECT to_regnamespace('factlib') IS NOT NULL,
                        coalesce(has_schema_privilege(to_regnamespace('factlib'), 'USAGE'), false),
                        coalesce(has_schema_privilege(to_regnamespace('factlib'), 'CREATE'), false),
                        has_database_privilege(current_database(), 'CREATE'),
                        EXISTS (SELECT FROM pg_publication WHERE pubname = $1)",
                &[&publication],
            )
            .await?;
        let flag = |index| column::<bool>(&row, index);
        let (schema, usage, create_tables) = (flag(0)?, flag(1)?, flag(2)?);
        let (create, published) = (flag(3)?, flag(4)?);
        let creates = self.config.postgres.create;
        let mut grants = Vec::new();
        let mut missing = false;
        for table in self.tables() {
            // By OID, which works without USAGE on the schema.
            let row = self
                .client
                .query_opt(
                    "SELECT array_agg(r ORDER BY n) FILTER (WHERE NOT has_table_privilege(c.oid, r))
                     FROM pg_class c CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS rights(r, n)
                     WHERE c.relnamespace = to_regnamespace('factlib') AND 'factlib.' || c.relname = $1
                     GROUP BY c.oid",
                    &[&table, &RIGHTS.as_slice()],
                )
                .await
                .map_err(asking)?;
            match row {
                None => missing = true,
                Some(row) => {
                    if let Some(rights) = column::<Option<Vec<String>>>(&row, 0)? {
                        let rights = rights.join(", ");
                        grants.push(format!("GRANT {rights} ON {table} TO {user}"));
                    }
                }
            }
        }
        if schema && !usage && !self.tables().is_empty() {
            grants.push(format!("GRANT USAGE ON SCHEMA factlib TO {user}"));
        }
        if creates && missing && schema && !create_tables {
            grants.push(format!("GRANT CREATE ON SCHEMA factlib TO {user}"));
        }
        if creates && !create && (!published || missing && !schema) {
            let database = escape_identifier(self.startup.info.dbname());
            grants.push(format!("GRANT CREATE ON DATABASE {database} TO {user}"));
        }
        match grants.is_empty() {
            true => self.checks.ok("privileges", format!("{user} has all that are needed")),
            false => {
                let found = format!("{user} lacks privileges");
                self.checks.error("privileges", found, grants.join("; "));
            }
        }
        Ok(())
    }

    /// The relay's own tables that this configuration uses.
    fn tables(&self) -> Vec<&'static str> {
        let mut tables = Vec::new();
        if self.config.checkpoint.store == StoreKind::Postgres {
            tables.extend(["factlib.checkpoints", "factlib.topic_partitions"]);
        }
        let policy = self.config.dead_letter.policy;
        if policy.parks() {
            tables.extend(["factlib.dead_letters", "factlib.redriven"]);
        }
        if self.config.receipts.store == ReceiptStore::Table {
            tables.push("factlib.receipts");
        }
        if policy == RefusalPolicy::HoldAggregate {
            tables.push("factlib.held_events");
        }
        tables
    }
}
