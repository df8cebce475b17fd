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

/// Time within which a server process that was told to end has ended, if it can.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks at the slot: nothing signals that it is free.
const LOOK: Duration = Duration::from_millis(50);
/// A reader that has not reported for this long is gone or stands still: by default, the server
/// would have ended its connection (`wal_sender_timeout`).
const SILENT_SECONDS: f64 = 60.0;

/// SQL for the time at which the process of `pg_stat_activity a` began, as [`Backend`] has it.
const STARTED: &str =
    "(pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))";

/// The server process that reads the slot for this process, or did until the connection was lost.
/// It tells our own lost connection from another instance that reads the slot.
#[derive(Debug, Default)]
pub(crate) struct OwnBackend(Mutex<Option<Backend>>);

impl OwnBackend {
    /// Notes the connection that is about to read.
    pub fn is(&self, backend: &Backend) {
        *self.lock() = Some(backend.clone());
    }

    /// Notes that the connection has ended in order.
    pub fn ended(&self) {
        *self.lock() = None;
    }

    /// True if `backend` is that process.
    pub fn was(&self, backend: &Backend) -> bool {
        self.lock().as_ref() == Some(backend)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Backend>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server process that a slot is active for.
pub(crate) struct SlotReader {
    pub backend: Backend,
    /// Program and address of its client, where these may be seen.
    who: String,
    /// Its client has not reported for `SILENT_SECONDS`.
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
            Ok(SlotReader { backend, who: row.try_get(2)?, silent: row.try_get(3)? })
        };
        read().map(Some).map_err(failed)
    }

    /// The error of another instance that wants the slot.
    pub fn in_use(&self, slot: &str) -> Error {
        let pid = self.backend.pid;
        let who = match self.who.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.who),
        };
        if self.silent {
            // No instance that works: to stand by behind it would be to wait for nothing.
            let what = format!(
                "slot {slot} is active for PID {pid}{who}, whose client has not reported for more \
                 than {SILENT_SECONDS} s"
            );
            return Error::new(ErrorKind::PostgresUnavailable, what).remedy(format!(
                "if that client has gone, run SELECT pg_terminate_backend({pid})"
            ));
        }
        Error::new(ErrorKind::SlotInUse, format!("slot {slot} is active for PID {pid}{who}"))
    }

    /// Ends the server process of a connection of ours that was lost, and waits until the slot is
    /// free.
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
                Some(_) if Instant::now() < until => sleep(LOOK).await,
                Some(_) => {
                    warn!(log, "the server process of our lost connection does not end";
                        "slot" => slot, "pid" => pid);
                    let remedy = format!(
                        "look at process {pid} on PostgreSQL's host: is it stopped, or does it \
                         wait for a disk?"
                    );
                    return Err(Error::new(
                        ErrorKind::PostgresUnavailable,
                        held() + ", which was told to end and does not",
                    )
                    .remedy(remedy));
                }
            }
        }
    }
}
