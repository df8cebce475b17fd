//! `factlib setup`: creates what the relay needs in the database, and says what was there.

use std::{fmt, sync::Arc};

use factlib_postgres::{Slot, publication};
use postgres_protocol::escape::escape_literal;
use slog::Logger;

use super::{MoveRecord, Startup, kafka, prepare::StartOptions, publication_spec};
use crate::{
    Lsn, Result,
    checkpoint::{CREATE_TABLE, CREATE_TOPIC_PARTITIONS},
    config::{Config, ReceiptStore, RefusalPolicy, StoreKind},
    dead_letter,
    postgres::sql_session,
    receipts,
};

/// Result of [`setup`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetupReport {
    /// True if the publication was created.
    pub publication_created: bool,
    /// True if the slot was created.
    pub slot_created: bool,
    /// Position at which reading starts.
    pub start: Lsn,
    publication: String,
    slot: String,
    /// Why the slot was invalidated that the new one replaces.
    replaced: Option<String>,
    store: String,
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = |created| if created { "created" } else { "exists" };
        writeln!(f, "publication {}: {}", self.publication, outcome(self.publication_created))?;
        write!(f, "slot {}: {}", self.slot, outcome(self.slot_created))?;
        match &self.replaced {
            Some(reason) => writeln!(f, ", in place of the invalidated one ({reason})")?,
            None => writeln!(f)?,
        }
        writeln!(f, "checkpoint store: {}", self.store)?;
        write!(f, "reading starts at {}", self.start)
    }
}

/// Creates the publication, the slot and the tables if they are missing, and checks that the relay
/// can start. With `accept_position`, an unusable checkpoint is discarded, an unusable slot is
/// replaced, and reading starts at the slot's own position.
///
/// # Errors
/// An error of the server, with its remedy; nothing is retried.
pub async fn setup(config: &Config, accept_position: bool, log: &Logger) -> Result<SetupReport> {
    config.validate()?;
    let startup = Startup::new(&Arc::new(config.clone()))?;
    let store = startup.store(log);
    let limit = config.postgres.connect_timeout;
    let client = sql_session(&startup.info, limit, log).await?;
    let name = &config.postgres.slot;
    let publication_created = !publication::exists(&client, &config.postgres.publication).await?;
    let before = Slot::read(&client, name).await?;
    let slot_existed = before.is_some();
    let replaced = before.and_then(|slot| slot.lost).filter(|_| accept_position);
    let options =
        StartOptions { create: true, accept: accept_position, cluster: None, attended: true };
    let start = startup.prepare_with(&client, &*store, options, limit, &|_| {}, log).await?;
    startup.enable_failover(&client, limit, log).await?;
    if let Some(table) = startup.topic_partitions(log) {
        table.create().await?;
    }
    if config.dead_letter.policy.parks() {
        startup.dead_letter_table(log).create().await?;
    }
    if config.receipts.store == ReceiptStore::Table {
        startup.receipt_table(log).create().await?;
    }
    if let Some(held) = startup.held_events(log) {
        held.create().await?;
    }
    if accept_position {
        // Last, so that an error before this leaves the refusal in force.
        if startup.config.is_exactly_once() {
            kafka::forget(&startup.config, start.from.system_id, log).await?;
        }
        store.remove(name).await?;
        MoveRecord::remove(&client, start.from.system_id, name).await?;
    }
    Ok(SetupReport {
        publication_created,
        slot_created: !slot_existed || replaced.is_some(),
        start: start.from.lsn,
        publication: config.postgres.publication.clone(),
        slot: name.clone(),
        replaced,
        store: store.describe(),
    })
}

/// SQL that [`setup`] would run, for an administrator.
pub fn setup_sql(config: &Config) -> String {
    let slot = escape_literal(&config.postgres.slot);
    let mut sql = format!(
        "{};\nSELECT pg_create_logical_replication_slot({}, 'pgoutput');\n",
        publication_spec(config, &config.outbox_tables()).create_sql(),
        slot.trim_start(),
    );
    if config.checkpoint.store == StoreKind::Postgres {
        sql.push_str(CREATE_TABLE);
        sql.push_str(CREATE_TOPIC_PARTITIONS);
    }
    if config.dead_letter.policy.parks() {
        sql.push_str(dead_letter::CREATE_TABLES);
    }
    if config.receipts.store == ReceiptStore::Table {
        sql.push_str(receipts::CREATE_TABLE);
    }
    if config.dead_letter.policy == RefusalPolicy::HoldAggregate {
        sql.push_str(dead_letter::CREATE_HELD_EVENTS);
    }
    sql
}
