//! Finds the server process that reads a slot, and ends it if it is left over from our own lost
//! connection.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factlib_postgres::Backend;
use slog::{Logger, info, warn};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::postgres_error;
use crate::{Error, ErrorKind, Result};

/// Time within which a terminated server process ends, if it can.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two checks of the slot; no event says that it is free.
const CHECK_PAUSE: Duration = Duration::from_millis(50);
/// Seconds without a report after which a reader counts as gone or stuck; by default, the server ends
/// its connection after this time (`wal_sender_timeout`).
const SILENT_SECONDS: f64 = 60.0;

/// SQL for the start time of the process in `pg_stat_activity a`, as in [`Backend`].
pub(super) const STARTED: &str =
    "(pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))";

/// The server process that reads the slot for this relay, or did until the connection was lost. It
/// distinguishes our own lost connection from another instance that reads the slot.
#[derive(Debug, Default)]
pub(crate) struct OwnBackend(Mutex<Option<Backend>>);

impl OwnBackend {
    /// Records the server process of the connection that is about to read.
    pub fn set(&self, backend: &Backend) {
        *self.lock() = Some(backend.clone());
    }

    /// Records that the connection has ended in order.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// That process; none before the first, and after the connection has ended in order.
    pub fn get(&self) -> Option<Backend> {
        self.lock().clone()
    }

    /// True if `backend` is that process.
    pub fn is(&self, backend: &Backend) -> bool {
        self.lock().as_ref() == Some(backend)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Backend>> {
        // No code panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server process that a slot is active for, with its client.
pub(crate) struct SlotReader {
    pub backend: Backend,
    /// Program and address of its client, if they are visible to us.
    client: String,
    /// True if its client has not reported for `SILENT_SECONDS`.
    silent: bool,
}

impl SlotReader {
    /// Finds the process that reads the slot now.
    pub async fn of(client: &Client, slot: &str) -> Result<Option<Self>> {
        // Through JSON, because reply_time came with version 12.
        let query = format!(
            "SELECT s.active_pid, {STARTED},
                    concat_ws(' from ', nullif(a.application_name, ''), a.client_addr::text),
                    coalesce(extract(epoch FROM now() - (to_jsonb(r) ->> 'reply_time')::timestamptz)
                             > {SILENT_SECONDS}, false)
             FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
             LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
             WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL"
        );
        let failed = |error| postgres_error(format!("cannot look up slot {slot}"), error);
        let Some(row) = client.query_opt(&query, &[&slot]).await.map_err(failed)? else {
            return Ok(None);
        };
        let read = || -> Result<Self, tokio_postgres::Error> {
            let (pid, started): (i32, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            let backend = Backend { pid, started: started.unwrap_or_default() };
            Ok(SlotReader { backend, client: row.try_get(2)?, silent: row.try_get(3)? })
        };
        read().map(Some).map_err(failed)
    }

    /// Returns the error for an instance that wants the slot which this process reads.
    pub fn in_use(&self, slot: &str) -> Error {
        let pid = self.backend.pid;
        let client = match self.client.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.client),
        };
        if self.silent {
            // Not a working instance: standing by for it would be pointless.
            let message = format!(
                "slot {slot} is active for PID {pid}{client}, whose client has not reported for more \
                 than {SILENT_SECONDS} s"
            );
            return Error::new(ErrorKind::PostgresUnavailable, message).remedy(format!(
                "if that client has gone, run SELECT pg_terminate_backend({pid})"
            ));
        }
        Error::new(ErrorKind::SlotInUse, format!("slot {slot} is active for PID {pid}{client}"))
    }

    /// Ends this process, which belongs to our own lost connection, and waits until the slot is free.
    pub async fn end(&self, client: &Client, slot: &str, log: &Logger) -> Result<()> {
        let pid = self.backend.pid;
        let held = || {
            format!(
                "slot {slot} is held by PID {pid}, the server process of our own lost connection"
            )
        };
        info!(log, "ending the server process of our lost connection";
            "slot" => slot, "pid" => pid);
        let ended = client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await;
        ended.map_err(|error| {
            Error::new(ErrorKind::PostgresUnavailable, held() + ", which may not be ended")
                .remedy(format!("as superuser, run SELECT pg_terminate_backend({pid})"))
                .caused_by(error)
        })?;
        let until = Instant::now() + END_LIMIT;
        loop {
            match SlotReader::of(client, slot).await? {
                None => return Ok(()),
                Some(other) if other.backend != self.backend => return Err(other.in_use(slot)),
                Some(_) if Instant::now() < until => sleep(CHECK_PAUSE).await,
                Some(_) => {
                    warn!(log, "the server process of our lost connection does not end";
                        "slot" => slot, "pid" => pid);
                    let remedy = format!(
                        "look at process {pid} on PostgreSQL's host: is it stopped, or does it \
                         wait for a disk?"
                    );
                    return Err(Error::new(
                        ErrorKind::PostgresUnavailable,
                        held() + ", which was told to end and has not ended",
                    )
                    .remedy(remedy));
                }
            }
        }
    }
}
