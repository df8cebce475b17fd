//! Checks the replication connection, free slots and the publication.

use factlib_postgres::ReplicationClient;
use postgres_protocol::escape::escape_identifier;

use super::{PostgresChecks, column, literal};
use crate::{
    Result,
    outbox::{CatalogTable, Finding, Severity},
    postgres::{managed::setting_remedy, sqlstate},
    startup::publication_spec,
};

impl PostgresChecks<'_> {
    /// Opens a replication connection; none if that fails.
    pub(super) async fn replication(&mut self) -> Result<Option<ReplicationClient>> {
        let limit = self.config.postgres.connect_timeout;
        let user = escape_identifier(self.startup.info.user());
        let client = match self.startup.replication(limit, self.log).await {
            Ok(client) => client,
            Err(error) => {
                let (found, remedy) = match sqlstate(&error) {
                    Some("42501") => {
                        let role = self.startup.info.user();
                        let allow = self.service.map(|service| service.replication(role));
                        let allow =
                            allow.unwrap_or_else(|| format!("ALTER ROLE {user} REPLICATION"));
                        (error.without_remedy(), allow)
                    }
                    _ => {
                        (error.without_remedy(), error.advice().unwrap_or("see pg_hba.conf").into())
                    }
                };
                self.checks.error("replication", found, remedy);
                return Ok(None);
            }
        };
        self.checks.ok("replication", format!("{user} may replicate"));
        let row = self
            .ask(
                "SELECT current_setting('max_wal_senders')::int, count(*)::int FROM pg_stat_replication",
                &[],
            )
            .await?;
        let (max, used): (i32, i32) = (column(&row, 0)?, column(&row, 1)?);
        let found = format!("{used} of {max} in use, including this check's");
        match used < max {
            true => self.checks.ok("WAL senders", found),
            false => self.checks.warning(
                "WAL senders",
                found,
                setting_remedy(self.service, "max_wal_senders", max + 10),
            ),
        }
        Ok(Some(client))
    }

    pub(super) async fn free_slots(&mut self, has_slot: bool) -> Result<()> {
        let row = self
            .ask(
                "SELECT current_setting('max_replication_slots')::int, count(*)::int,
                        min(slot_name::text) FILTER (WHERE NOT active)
                 FROM pg_replication_slots",
                &[],
            )
            .await?;
        let (max, used): (i32, i32) = (column(&row, 0)?, column(&row, 1)?);
        let idle: Option<String> = column(&row, 2)?;
        let found = format!("{used} of {max} in use");
        if has_slot || used < max {
            self.checks.ok("slots", found);
            return Ok(());
        }
        let raise = setting_remedy(self.service, "max_replication_slots", max + 10);
        let remedy = match idle {
            Some(name) => format!(
                "{raise}; or drop one that is not needed: SELECT pg_drop_replication_slot({})",
                literal(&name)
            ),
            None => raise,
        };
        let name = &self.config.postgres.slot;
        self.checks.error("slots", format!("{found}, and slot {name} is not among them"), remedy);
        Ok(())
    }

    /// Checks the publication; each finding becomes a check of its own.
    pub(super) async fn publication(&mut self) -> Result<()> {
        const NAME: &str = "publication";
        let tables = self.config.outbox_tables();
        let published = publication_spec(self.config, &tables);
        let publication = published.publication;
        let catalog = published.read(self.client).await?;
        let there = catalog.publication.is_some();
        let (sql, findings) = match there {
            true => (String::new(), published.check(&catalog)),
            false => published.creation(&catalog),
        };
        let create = self.config.postgres.create;
        let new_tables = catalog.publication.as_ref();
        let new_tables = new_tables.and_then(|there| published.describe_additions(there, create));
        if let Some(found) = new_tables {
            self.checks.ok("new tables", found);
        }
        let errors = findings.iter().filter(|finding| finding.is_error()).count();
        for Finding { severity, problem, remedy, .. } in findings {
            match severity {
                Severity::Warning => self.checks.warning(NAME, problem, remedy),
                Severity::Error => self.checks.error(NAME, problem, remedy),
            }
        }
        if errors > 0 {
            return Ok(());
        }
        if there {
            self.checks.ok(NAME, format!("{publication} exists"));
            return Ok(());
        }
        if !self.config.postgres.create {
            let found = format!("publication {publication} does not exist");
            self.checks.error(NAME, found, format!("run `factlib setup`, or {sql}"));
            return Ok(());
        }
        let is_foreign = |table: &Option<&CatalogTable>| table.is_some_and(|table| !table.owned);
        let known = catalog.tables(&tables);
        if let Some((table, _)) = known.iter().find(|(_, table)| is_foreign(table)) {
            let found = format!(
                "{publication} does not exist, and only the owner of {} can create it",
                table.table
            );
            self.checks.error(NAME, found, format!("as the owner of the tables: {sql}"));
            return Ok(());
        }
        self.checks.ok(NAME, format!("{publication} does not exist; `factlib run` creates it"));
        Ok(())
    }
}
