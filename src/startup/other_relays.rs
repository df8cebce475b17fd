//! Finds other relays of the same facts, which have slots of their own and send everything twice.
//!
//! A slot does not tell what is read through it, so a relay's replication connection does, by its
//! `application_name`, unless the connection string sets another.

use tokio_postgres::Client;

use crate::{Result, config::Config, postgres::postgres_error};

/// Length of the longest name that PostgreSQL does not cut (`NAMEDATALEN` - 1).
const MAX_NAME_BYTES: usize = 63;

/// Another relay that reads the same.
#[derive(Clone, Debug)]
pub(crate) struct OtherRelay {
    pub slot: String,
    pub pid: i32,
    /// Client address, or `local`.
    pub from: String,
}

/// The `application_name` of a relay with this configuration. It names what is read: the messages of a
/// prefix, or the tables of a publication.
pub(super) fn reader_name(config: &Config) -> String {
    let settings = &config.postgres;
    match config.outbox_tables().is_empty() {
        true => format!("factlib messages {}", settings.message_prefix),
        false => format!("factlib tables {}", settings.publication),
    }
}

/// Lists running relays that read the same through other slots of this database.
///
/// It can't find a relay with another `application_name`, nor one that reads the same tables through
/// another publication.
pub(crate) async fn other_relays(client: &Client, config: &Config) -> Result<Vec<OtherRelay>> {
    let (slot, name) = (&config.postgres.slot, reader_name(config));
    // The server would store it changed.
    if name.len() > MAX_NAME_BYTES || !name.is_ascii() {
        return Ok(Vec::new());
    }
    let query = "SELECT s.slot_name::text, s.active_pid, coalesce(a.client_addr::text, 'local')
        FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.database = current_database() AND NOT s.temporary AND s.slot_name <> $1
          AND a.application_name = $2
        ORDER BY 1";
    let failed = |error| postgres_error("cannot look for other relays", error);
    let rows = client.query(query, &[slot, &name]).await.map_err(failed)?;
    let relay = |row: &tokio_postgres::Row| {
        Ok(OtherRelay { slot: row.try_get(0)?, pid: row.try_get(1)?, from: row.try_get(2)? })
    };
    rows.iter().map(relay).collect::<Result<_, _>>().map_err(failed)
}

impl std::fmt::Display for OtherRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slot {} (pid {} from {})", self.slot, self.pid, self.from)
    }
}

/// Remedy for another relay of the same events.
pub(crate) const ONE_SLOT: &str = "stop one of the two, as instances of one relay have the same \
                                   postgres.slot, and one of them stands by";
