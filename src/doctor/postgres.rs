//! PostgreSQL: the server, what we may do there, the slot and the position.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytesize::ByteSize;
use postgres_protocol::escape::escape_identifier;
use slog::Logger;
use tokio_postgres::{Client, Row, types::ToSql};

use super::{Check, Checks};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::{Checkpoint, CheckpointStore},
    config::{Config, RefusalPolicy, StoreKind},
    outbox::publication::Published,
    postgres::{
        Reconnecting, postgres_error,
        replication::ReplicationClient,
        retention::Retention,
        slot::{Server, Slot, publication_exists},
        sql, sqlstate,
    },
    startup::Startup,
};

/// What clocks may differ by.
const CLOCKS: Duration = Duration::from_secs(1);

/// What the relay does with its own tables.
const RIGHTS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

pub(super) async fn examine(config: &Arc<Config>, log: &Logger) -> Result<Vec<Check>> {
    let startup = Startup::new(config)?;
    let mut checks = Checks::of("postgresql");
    let limit = config.postgres.connect_timeout;
    match sql::connect(&startup.info, limit, log).await {
        Ok(client) => {
            let info = &startup.info;
            checks.ok("connection", format!("{} as {}", info.describe(), info.user()));
            let store = startup.store(log);
            let mut here =
                Postgres { config, startup: &startup, client: &client, store, log, checks };
            if let Err(error) = here.all().await {
                // A question itself failed: what comes after it is not known.
                here.checks.failed("questions", &error, "try again");
            }
            checks = here.checks;
        }
        Err(error) => {
            checks.failed("connection", &error, "start the server, or correct postgres.url");
        }
    }
    Ok(checks.checks)
}

struct Postgres<'a> {
    config: &'a Config,
    startup: &'a Startup,
    client: &'a Client,
    store: Arc<dyn CheckpointStore>,
    log: &'a Logger,
    checks: Checks,
}

impl Postgres<'_> {
    async fn all(&mut self) -> Result<()> {
        let server = Server::read(self.client).await?;
        let messages = self.config.outbox_tables().is_empty();
        let version = server.check_version(messages).map(|()| server.major().to_string());
        self.checks.result("version", version, "upgrade PostgreSQL");
        let primary = server.check_primary();
        let on_standby = primary.is_err();
        let primary = primary.map(|()| "the server is a primary".into());
        self.checks.result("primary", primary, "");
        if on_standby {
            // Nothing else that is read here would count.
            return Ok(());
        }
        let wal_level = server.check_wal_level().map(|()| "logical".into());
        self.checks.result("wal_level", wal_level, "");
        let replication = self.replication().await?;
        let slot = Slot::read(self.client, &self.config.postgres.slot).await?;
        self.free_slots(slot.is_some()).await?;
        self.publication().await?;
        self.privileges().await?;
        let checkpoint = self.checkpoint(slot.as_ref()).await?;
        if let (Some(mut replication), Some(checkpoint)) = (replication, checkpoint) {
            self.slot(slot.clone(), checkpoint, &mut replication).await?;
        }
        if slot.is_some_and(|slot| slot.lost.is_none()) {
            self.retained().await?;
        }
        if server.major() >= 13 {
            self.keep_size().await?;
        }
        if server.major() >= 17 {
            self.failover().await?;
        }
        self.clock().await
    }

    /// None where there is no replication connection to be had.
    async fn replication(&mut self) -> Result<Option<ReplicationClient>> {
        let limit = self.config.postgres.connect_timeout;
        let user = escape_identifier(self.startup.info.user());
        let client = match self.startup.replication(limit, self.log).await {
            Ok(client) => client,
            Err(error) => {
                let (found, remedy) = match sqlstate(&error) {
                    Some("42501") => (error.story(), format!("ALTER ROLE {user} REPLICATION")),
                    _ => (error.story(), error.advice().unwrap_or("see pg_hba.conf").into()),
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
        let found = format!("{used} of {max} in use, with the one of this check");
        match used < max {
            true => self.checks.ok("WAL senders", found),
            false => self.checks.warning(
                "WAL senders",
                found,
                format!("ALTER SYSTEM SET max_wal_senders = {}; restart PostgreSQL", max + 10),
            ),
        }
        Ok(Some(client))
    }

    async fn free_slots(&mut self, has_slot: bool) -> Result<()> {
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
        let raise =
            format!("ALTER SYSTEM SET max_replication_slots = {}; restart PostgreSQL", max + 10);
        let remedy = match idle {
            Some(name) => format!(
                "{raise}; or drop one that nobody needs: SELECT pg_drop_replication_slot({})",
                literal(&name)
            ),
            None => raise,
        };
        self.checks.error("slots", format!("{found}, and ours is not among them"), remedy);
        Ok(())
    }

    async fn publication(&mut self) -> Result<()> {
        const NAME: &str = "publication";
        let publication = &self.config.postgres.publication;
        let tables = self.config.outbox_tables();
        let there = publication_exists(self.client, publication).await?;
        if there || !self.config.postgres.create {
            let checked = self.startup.publication(self.client, false, self.log).await;
            let found = checked.map(|_| format!("{publication} is there"));
            self.checks.result(NAME, found, "run `factlib setup`");
            return Ok(());
        }
        if !tables.is_empty() {
            let published = Published { publication, tables: &tables };
            let sql = match published.creation(self.client).await {
                Ok(sql) => sql,
                Err(error) => {
                    self.checks.failed(NAME, &error, "correct [[outbox]]");
                    return Ok(());
                }
            };
            for table in &tables {
                let (schema, name) = table.qualified();
                let row = self
                    .ask(
                        "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c
                         JOIN pg_namespace n ON n.oid = c.relnamespace
                         WHERE n.nspname = $1 AND c.relname = $2",
                        &[&schema, &name],
                    )
                    .await?;
                if !column::<bool>(&row, 0)? {
                    let found = format!(
                        "{publication} is not there, and only the owner of {} creates it",
                        table.table
                    );
                    self.checks.error(NAME, found, format!("as the owner of the tables: {sql}"));
                    return Ok(());
                }
            }
        }
        self.checks.ok(NAME, format!("{publication} is not there; `factlib run` creates it"));
        Ok(())
    }

    /// The tables of ours in the database that is read.
    fn tables(&self) -> Vec<&'static str> {
        let mut tables = Vec::new();
        if self.config.checkpoint.store == StoreKind::Postgres {
            tables.push("factlib.checkpoints");
        }
        if self.config.dead_letter.policy == RefusalPolicy::DeadLetter {
            tables.extend(["factlib.dead_letters", "factlib.redriven"]);
        }
        tables
    }

    /// What may be missing is granted; what is missing may be created.
    async fn privileges(&mut self) -> Result<()> {
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
            // By oid, which needs no USAGE of the schema.
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
            true => self.checks.ok("privileges", format!("{user} has what it takes")),
            false => {
                let found = format!("{user} lacks {} of them", grants.len());
                self.checks.error("privileges", found, grants.join("; "));
            }
        }
        Ok(())
    }

    /// None where it can't be read; what it says is held against the slot elsewhere.
    async fn checkpoint(&mut self, slot: Option<&Slot>) -> Result<Option<Option<Checkpoint>>> {
        const NAME: &str = "checkpoint store";
        let store = self.store.describe();
        let created = self.config.postgres.create;
        if self.config.checkpoint.store == StoreKind::Postgres {
            let row = self
                .ask(
                    "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'checkpoints'
                            AND relnamespace = to_regnamespace('factlib'))",
                    &[],
                )
                .await?;
            let there: bool = column(&row, 0)?;
            if !there && created {
                self.checks.ok(NAME, format!("{store} is not there; `factlib run` creates it"));
                return Ok(Some(None));
            }
        }
        if self.config.checkpoint.store == StoreKind::File
            && let Err(error) = self.writable()
        {
            self.checks.failed(NAME, &error, "set checkpoint.path to a file in a folder of ours");
            return Ok(None);
        }
        let checkpoint = match self.store.load(&self.config.postgres.slot).await {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.checks.failed(NAME, &error, "run `factlib setup`");
                return Ok(None);
            }
        };
        let found = match (&checkpoint, slot) {
            (None, _) => format!("{store}: no position yet"),
            (Some(saved), Some(slot)) if saved.lsn >= slot.confirmed => format!(
                "{store}: {}, {} ahead of the slot",
                saved.lsn,
                size(saved.lsn.distance_from(slot.confirmed))
            ),
            (Some(saved), _) => format!("{store}: {}", saved.lsn),
        };
        self.checks.ok(NAME, found);
        Ok(Some(checkpoint))
    }

    /// Its folder takes a new file.
    fn writable(&self) -> Result<()> {
        let path = &self.config.checkpoint.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| {
            let what = format!("cannot write into {}", folder.display());
            Error::new(ErrorKind::CheckpointUnavailable, what)
                .caused_by(std::io::Error::from(error))
        })
    }

    async fn slot(
        &mut self,
        slot: Option<Slot>,
        checkpoint: Option<Checkpoint>,
        replication: &mut ReplicationClient,
    ) -> Result<()> {
        const NAME: &str = "slot";
        let name = &self.config.postgres.slot;
        if slot.is_none() && checkpoint.is_none() && self.config.postgres.create {
            self.checks.ok(NAME, format!("{name} is not there; `factlib run` creates it"));
            return Ok(());
        }
        let there = slot.is_some();
        let judged =
            self.startup.judge(replication, slot, checkpoint, &*self.store, self.log).await;
        let start = match judged {
            Ok(start) => start.lsn,
            Err(error) => {
                self.checks.failed(NAME, &error, "run `factlib setup`");
                return Ok(());
            }
        };
        let row = self
            .client
            .query_opt(
                "SELECT s.active_pid, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'local')
                 FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
                 WHERE s.slot_name = $1 AND s.active",
                &[name],
            )
            .await
            .map_err(asking)?;
        match row.filter(|_| there) {
            None => self.checks.ok(NAME, format!("{name}: reading starts at {start}")),
            Some(row) => {
                let (pid, program, from): (i32, String, String) =
                    (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
                let found = format!(
                    "{name} is read by {program} from {from} (pid {pid}); another instance stands by \
                     until that ends"
                );
                let end = format!(
                    "nothing if that is your relay, else SELECT pg_terminate_backend({pid})"
                );
                self.checks.warning(NAME, found, end);
            }
        }
        Ok(())
    }

    async fn retained(&mut self) -> Result<()> {
        const NAME: &str = "retained WAL";
        let settings = &self.config.postgres;
        let (info, log) = (self.startup.info.clone(), self.log.clone());
        let server = Reconnecting::new(info, settings.connect_timeout, log);
        let Some(kept) = Retention::read(&server, &settings.slot).await? else { return Ok(()) };
        let mut found = size(kept.bytes());
        if let Some(left) = kept.safe_wal_size {
            let left = u64::try_from(left).unwrap_or_default();
            found += &format!(", and {} until the slot is given up", size(left));
        }
        let near = kept.wal_status == "unreserved";
        if !near && kept.bytes() < settings.retained_wal_warning.as_u64() {
            self.checks.ok(NAME, found);
            return Ok(());
        }
        let remedy = match kept.oldest {
            Some(open) => format!("end transaction {} ({}): {}", open.xid, open.owner, open.ending),
            None => "start the relay, or give the slot up: factlib slot drop".into(),
        };
        self.checks.warning(NAME, found, remedy);
        Ok(())
    }

    async fn keep_size(&mut self) -> Result<()> {
        const NAME: &str = "max_slot_wal_keep_size";
        let row = self
            .ask(
                "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
                &[],
            )
            .await?;
        let megabytes: i64 = column(&row, 0)?;
        let Ok(megabytes) = u64::try_from(megabytes) else {
            self.checks.ok(NAME, "no limit: in an outage, WAL is kept until the disk is full");
            return Ok(());
        };
        let (limit, warning) =
            (megabytes << 20, self.config.postgres.retained_wal_warning.as_u64());
        if limit > warning {
            self.checks.ok(NAME, format!("{}: with more, the slot is lost", size(limit)));
            return Ok(());
        }
        let found = format!(
            "{}: the slot is lost before postgres.retained_wal_warning ({}) is reached",
            size(limit),
            size(warning)
        );
        let raise = (warning >> 20).max(1) * 10;
        let remedy = format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{raise}MB'; SELECT pg_reload_conf()"
        );
        self.checks.warning(NAME, found, remedy);
        Ok(())
    }

    /// From PostgreSQL 17 on, a slot can follow to a standby.
    async fn failover(&mut self) -> Result<()> {
        const NAME: &str = "failover";
        let name = &self.config.postgres.slot;
        let row = self
            .ask(
                "SELECT count(*) FILTER (WHERE slot_type = 'physical') > 0,
                        bool_or(failover) FILTER (WHERE slot_name = $1)
                 FROM pg_replication_slots",
                &[name],
            )
            .await?;
        let (standbys, follows): (bool, Option<bool>) = (column(&row, 0)?, column(&row, 1)?);
        match (standbys, follows) {
            (_, Some(true)) => self.checks.ok(
                NAME,
                format!("{name} follows to standbys that set sync_replication_slots = on"),
            ),
            (false, _) => self.checks.ok(NAME, "no standby has a slot here"),
            (true, None) => self.checks.warning(
                NAME,
                "there are standbys, and a slot that factlib creates does not follow to them",
                format!(
                    "SELECT pg_create_logical_replication_slot({}, 'pgoutput', failover => true)",
                    literal(name)
                ),
            ),
            (true, Some(false)) => self.checks.warning(
                NAME,
                format!("{name} does not follow to a standby: after a failover it is gone"),
                format!(
                    "in psql with replication=database: ALTER_REPLICATION_SLOT {} (FAILOVER true); \
                     and on the standbys sync_replication_slots = on",
                    escape_identifier(name)
                ),
            ),
        }
        Ok(())
    }

    async fn clock(&mut self) -> Result<()> {
        let before = SystemTime::now();
        let row = self.ask("SELECT extract(epoch FROM clock_timestamp())::float8", &[]).await?;
        let trip = before.elapsed().unwrap_or_default();
        let ours = before.duration_since(UNIX_EPOCH).unwrap_or_default() + trip / 2;
        let apart = column::<f64>(&row, 0)? - ours.as_secs_f64();
        let found = format!("{:.3} s from PostgreSQL's", apart.abs());
        match differ(apart, trip) {
            false => self.checks.ok("clock", found),
            true => self.checks.warning(
                "clock",
                found,
                "synchronise both by NTP: on each host, timedatectl set-ntp true",
            ),
        }
        Ok(())
    }

    async fn ask(&self, question: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        self.client.query_one(question, parameters).await.map_err(asking)
    }
}

/// More than the way there and back explains.
fn differ(apart_seconds: f64, trip: Duration) -> bool {
    apart_seconds.abs() > (CLOCKS + trip / 2).as_secs_f64()
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(asking)
}

fn asking(error: tokio_postgres::Error) -> Error {
    postgres_error("cannot ask PostgreSQL", error)
}

fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text).trim_start().to_owned()
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_a_second_and_by_what_the_way_takes() {
        let trip = Duration::from_millis(400);
        assert!(!differ(0.0, trip) && !differ(1.1, trip) && !differ(-1.1, trip));
        assert!(differ(1.3, trip) && differ(-1.3, trip));
    }
}
