//! Watches for what is still written on the old server: events as they commit, and transactions that
//! are open.

use std::collections::HashSet;

use slog::Logger;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::end::End;
use crate::{Error, ErrorKind, Event, Lsn, Result, config::Config, tail::Tail};

/// Number of events that wait to be looked at.
const EVENTS: usize = 64;

/// Sessions of other programs in this database.
const SESSIONS: &str = "\
SELECT coalesce(nullif(application_name, ''), 'a program without application_name'),
       coalesce(usename::text, 'an unknown user'), coalesce(client_addr::text, 'this machine'),
       count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'
  AND application_name NOT LIKE 'factlib%'
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1 LIMIT 5";

/// Transactions that have written something and are not over: of sessions, and prepared ones.
const OPEN: &str = "\
SELECT 'pid ' || pid || ' xid ' || backend_xid::text,
       format('PID %s (%s, transaction since %s)', pid,
              coalesce(nullif(application_name, ''), 'no application_name'),
              coalesce(date_trunc('second', xact_start)::text, 'unknown'))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL
UNION ALL
SELECT 'gid ' || gid, format('the prepared transaction %s', quote_literal(gid))
FROM pg_prepared_xacts WHERE database = current_database()
ORDER BY 1";

/// A transaction that may still commit an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenTransaction {
    id: String,
    pub description: String,
}

/// Lists the transactions that have written something.
pub(super) async fn open_transactions(end: &End) -> Result<HashSet<OpenTransaction>> {
    let rows = end.query(OPEN, &[]).await?;
    let read =
        |row| Ok(OpenTransaction { id: end.column(row, 0)?, description: end.column(row, 1)? });
    rows.iter().map(read).collect()
}

/// Describes who is connected, for the search for a writer that was forgotten.
pub(super) async fn sessions(end: &End) -> Result<String> {
    let rows = end.query(SESSIONS, &[]).await?;
    let describe = |row| -> Result<String> {
        let (program, user): (String, String) = (end.column(row, 0)?, end.column(row, 1)?);
        let (from, count): (String, i64) = (end.column(row, 2)?, end.column(row, 3)?);
        Ok(format!("{program} as {user} from {from} ({count})"))
    };
    let all = rows.iter().map(describe).collect::<Result<Vec<_>>>()?;
    Ok(if all.is_empty() { "nobody".into() } else { all.join(", ") })
}

/// Events as they commit on a server, from the creation of this value on.
pub(super) struct WriterWatch {
    events: mpsc::Receiver<Event>,
    looked: watch::Receiver<Lsn>,
    failed: watch::Receiver<Option<Error>>,
    task: AbortHandle,
}

impl WriterWatch {
    /// Opens a stream of events, for which the server waits for open transactions.
    pub async fn start(config: &Config, log: &Logger) -> Result<Self> {
        let mut tail = Tail::open(config, log).await?;
        let (send_event, events) = mpsc::channel(EVENTS);
        let (send_looked, looked) = watch::channel(tail.position());
        let (send_failure, failed) = watch::channel(None);
        // A task, because a step must not be cancelled.
        let task = tokio::spawn(async move {
            loop {
                match tail.step().await {
                    Ok(Some(event)) => {
                        if send_event.send(event).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => _ = send_looked.send_replace(tail.received()),
                    Err(error) => {
                        send_failure.send_replace(Some(error));
                        return;
                    }
                }
            }
        });
        Ok(WriterWatch { events, looked, failed, task: task.abort_handle() })
    }

    /// Waits for the next event. It can be cancelled.
    pub async fn next(&mut self) -> Result<Event> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.failed.borrow().clone().unwrap_or_else(|| {
                Error::new(ErrorKind::ActorFailed, "the watch for late events has ended")
            })),
        }
    }

    /// True if every event that was committed before `lsn` was returned.
    pub fn has_seen(&self, lsn: Lsn) -> bool {
        *self.looked.borrow() >= lsn && self.events.is_empty()
    }
}

impl Drop for WriterWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
