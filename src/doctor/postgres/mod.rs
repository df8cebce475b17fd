//! Checks PostgreSQL: the server, the user's privileges, the publication, the slot and the position.

mod access;
mod failover;
mod position;
mod privileges;
mod prospects;
mod standbys;

use std::sync::Arc;

use bytesize::ByteSize;
use factlib_postgres::{Server, Slot};
use slog::Logger;
use tokio_postgres::{Client, Row, types::ToSql};

use super::{Check, Checks};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, CheckpointStore},
    config::Config,
    postgres::{managed::Service, postgres_error, server, sql, sql_session},
    startup::Startup,
};

pub(super) async fn examine(config: &Arc<Config>, log: &Logger) -> Result<Vec<Check>> {
    let startup = Startup::new(config)?;
    let mut checks = Checks::new("postgresql");
    let limit = config.postgres.connect_timeout;
    match sql_session(&startup.info, limit, log).await {
        Ok(client) => {
            let info = &startup.info;
            checks.ok("connection", format!("{} as {}", info.describe(), info.user()));
            let store = startup.store(log);
            // A lock must not hold up all later checks.
            let limit = format!("SET statement_timeout = {}", limit.as_millis());
            sql::run(&client, "cannot ask PostgreSQL", &limit).await?;
            let mut postgres = PostgresChecks {
                config,
                startup: &startup,
                client: &client,
                service: None,
                store,
                log,
                checks,
            };
            if let Err(error) = postgres.run().await {
                // A query itself failed, so the checks after it are missing.
                postgres.checks.failed("queries", &error, "try again");
            }
            checks = postgres.checks;
        }
        Err(error) => {
            checks.failed("connection", &error, "start the server, or correct postgres.url");
        }
    }
    Ok(checks.checks)
}

struct PostgresChecks<'a> {
    config: &'a Config,
    startup: &'a Startup,
    client: &'a Client,
    /// The managed service that runs the server, if it is one that we know.
    service: Option<&'static Service>,
    store: Arc<dyn CheckpointStore>,
    log: &'a Logger,
    checks: Checks,
}

impl PostgresChecks<'_> {
    async fn run(&mut self) -> Result<()> {
        let server = Server::read(self.client).await?;
        let messages = self.config.outbox_tables().is_empty();
        let version = server::check_version(&server, messages).map(|()| server.major().to_string());
        self.checks.result("version", version, "upgrade PostgreSQL");
        let role = server::check_role(&server, self.config);
        let refused = role.is_err();
        let role = role.map(|()| match server.is_in_recovery() {
            true => "the server is a standby, whose primary is known".into(),
            false => "the server is a primary".into(),
        });
        self.checks.result("primary", role, "");
        if refused {
            // Other findings on such a standby would mean nothing.
            return Ok(());
        }
        self.managed_service().await?;
        if server.is_in_recovery() {
            self.feedback().await?;
        }
        let wal_level = server::check_wal_level(&server).map(|()| server.wal_level().into());
        match (&wal_level, self.service) {
            (Err(error), Some(service)) => {
                self.checks.error("wal_level", error.without_remedy(), service.wal_level);
            }
            _ => self.checks.result("wal_level", wal_level, ""),
        }
        let mut replication = self.replication().await?;
        let slot = Slot::read(self.client, &self.config.postgres.slot).await?;
        self.free_slots(slot.is_some()).await?;
        self.publication().await?;
        self.privileges().await?;
        let moving = match &mut replication {
            Some(replication) => self.moving(replication).await?,
            None => None,
        };
        let checkpoint = self.checkpoint(slot.as_ref()).await?;
        if let (Some(mut replication), Some(checkpoint)) = (replication, checkpoint) {
            let of_other = |saved: &Checkpoint| {
                moving.as_ref().is_some_and(|record| record.is_with(saved.system_id))
            };
            let checkpoint = checkpoint.filter(|saved| !of_other(saved));
            self.slot(slot.clone(), checkpoint, &mut replication).await?;
        }
        self.other_relays().await?;
        if slot.is_some_and(|slot| slot.lost.is_none()) {
            self.retained().await?;
        }
        if server.major() >= 13 {
            self.keep_size().await?;
        }
        if server.major() >= 18 {
            self.idle_timeout(server.idle_slot_timeout());
        }
        if !server.is_in_recovery() {
            self.failover(&server).await?;
        }
        self.standbys().await?;
        self.clock().await
    }

    /// Recognises a managed service, whose remedies differ.
    async fn managed_service(&mut self) -> Result<()> {
        let hosts = self.startup.info.describe_hosts();
        self.service = Service::of(self.client, hosts).await?;
        if let Some(Service { name, slots, .. }) = self.service {
            self.checks.ok("service", format!("{name}; of slots: {slots}"));
        }
        Ok(())
    }

    async fn ask(&self, question: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        self.client.query_one(question, parameters).await.map_err(asking)
    }
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
