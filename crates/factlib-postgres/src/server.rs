//! Reads the settings of a server that matter for replication.

use std::time::Duration;

use tokio_postgres::Client;

use crate::{Result, error::postgres_error};

/// The settings of a server that matter for replication.
#[derive(Clone, Debug)]
pub struct Server {
    version: i32,
    wal_level: String,
    in_recovery: bool,
    /// Silence after which the server ends a replication connection; none for never.
    wal_sender_timeout: Option<Duration>,
}

impl Server {
    const QUERY: &str = "\
        SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
               pg_is_in_recovery(),
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')";

    /// Reads the settings.
    pub async fn read(client: &Client) -> Result<Self> {
        let message = "cannot read the server's settings";
        let row = client
            .query_one(Self::QUERY, &[])
            .await
            .map_err(|error| postgres_error(message, error))?;
        let read = || -> Result<Self, tokio_postgres::Error> {
            let timeout_ms = row.try_get::<_, Option<i64>>(3)?.unwrap_or(0);
            Ok(Server {
                version: row.try_get(0)?,
                wal_level: row.try_get(1)?,
                in_recovery: row.try_get(2)?,
                wal_sender_timeout: u64::try_from(timeout_ms)
                    .ok()
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis),
            })
        };
        read().map_err(|error| postgres_error(message, error))
    }

    /// True if a publication also applies to changes that are older than it (PostgreSQL 18 on).
    /// Before, it has to exist at the time of the change.
    pub fn applies_publications_retroactively(&self) -> bool {
        self.version >= 18_00_00
    }

    /// The major version, such as 15.
    pub fn major(&self) -> i32 {
        self.version / 10_000
    }

    /// The version as a number, such as 150004 for 15.4.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// The `wal_level`, which has to be `logical`.
    pub fn wal_level(&self) -> &str {
        &self.wal_level
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
