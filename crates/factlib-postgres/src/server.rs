//! Reads the settings of a server that matter for replication.

use std::time::Duration;

use tokio_postgres::Client;

use crate::{Result, error::postgres_error};

/// The settings of a server that matter for replication.
#[derive(Clone, Debug)]
pub struct Server {
    version: i32,
    wal_level: String,
    /// The level in effect, from PostgreSQL 19 on.
    effective_wal_level: Option<String>,
    in_recovery: bool,
    /// Silence after which the server ends a replication connection; none for never.
    wal_sender_timeout: Option<Duration>,
    /// Time without a reader after which a slot is invalidated; none for never.
    idle_slot_timeout: Option<Duration>,
}

impl Server {
    const QUERY: &str = "\
        SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
               pg_is_in_recovery(),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'),
               current_setting('effective_wal_level', true),
               (SELECT setting::bigint FROM pg_settings
                WHERE name = 'idle_replication_slot_timeout')";

    /// Reads the settings.
    pub async fn read(client: &Client) -> Result<Self> {
        let message = "cannot read the server's settings";
        let row = client
            .query_one(Self::QUERY, &[])
            .await
            .map_err(|error| postgres_error(message, error))?;
        let read = || -> Result<Self, tokio_postgres::Error> {
            let positive = |column| -> Result<Option<u64>, tokio_postgres::Error> {
                let number: Option<i64> = row.try_get(column)?;
                Ok(number.and_then(|number| number.try_into().ok()).filter(|number| *number > 0))
            };
            Ok(Server {
                version: row.try_get(0)?,
                wal_level: row.try_get(1)?,
                in_recovery: row.try_get(2)?,
                effective_wal_level: row.try_get(4)?,
                wal_sender_timeout: positive(3)?.map(Duration::from_millis),
                idle_slot_timeout: positive(5)?.map(Duration::from_secs),
            })
        };
        read().map_err(|error| postgres_error(message, error))
    }

    /// True if a publication also applies to changes that are older than it (PostgreSQL 18 on).
    /// Before, it has to exist at the time of the change.
    pub fn applies_publications_retroactively(&self) -> bool {
        self.version >= 18_00_00
    }

    /// True if standbys can keep copies of slots (PostgreSQL 17 on).
    pub fn has_failover_slots(&self) -> bool {
        self.version >= 17_00_00
    }

    /// The major version, such as 15.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }

    /// The version as a number, such as 150004 for 15.4.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// The setting `wal_level`.
    pub fn wal_level(&self) -> &str {
        &self.wal_level
    }

    /// True if the WAL can be decoded, or will be once the first logical slot exists: `wal_level` is
    /// `logical`. From PostgreSQL 19 on, `replica` is enough on a primary, and a standby needs
    /// `effective_wal_level` to be `logical`, which follows its primary.
    pub fn has_logical_wal(&self) -> bool {
        match &self.effective_wal_level {
            Some(effective) if self.in_recovery => effective == "logical",
            Some(_) => matches!(self.wal_level.as_str(), "replica" | "logical"),
            None => self.wal_level == "logical",
        }
    }

    /// Time without a reader after which the server invalidates a slot
    /// (`idle_replication_slot_timeout`, PostgreSQL 18 on); none for never.
    pub fn idle_slot_timeout(&self) -> Option<Duration> {
        self.idle_slot_timeout
    }

    /// True for a standby.
    pub fn is_in_recovery(&self) -> bool {
        self.in_recovery
    }

    /// Silence after which the server ends a replication connection; none for never.
    pub fn wal_sender_timeout(&self) -> Option<Duration> {
        self.wal_sender_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_19_on_replica_is_enough_on_a_primary() {
        let server = |wal_level: &str, effective: Option<&str>, in_recovery| Server {
            version: 0,
            wal_level: wal_level.into(),
            effective_wal_level: effective.map(Into::into),
            in_recovery,
            wal_sender_timeout: None,
            idle_slot_timeout: None,
        };
        for (wal_level, effective, in_recovery, expected) in [
            ("logical", None, false, true),
            ("replica", None, false, false),
            ("replica", Some("replica"), false, true),
            ("minimal", Some("minimal"), false, false),
            ("logical", Some("replica"), true, false),
            ("replica", Some("logical"), true, true),
        ] {
            let server = server(wal_level, effective, in_recovery);
            assert_eq!(server.has_logical_wal(), expected, "{server:?}");
        }
    }
}
