//! Finds out what a server process waits for, so that an operator knows which transaction to end.

use std::fmt;

use tokio_postgres::{Client, Error};

/// The cause of a server process's waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// A lock that another session holds, or will get first.
    Session {
        /// Process id of its server process.
        pid: i32,
        /// User, program, state and age of its transaction, if they are visible to us.
        who: String,
    },
    /// A lock that a prepared transaction holds.
    Prepared {
        /// Global identifier of the transaction.
        gid: String,
    },
    /// A synchronous standby that has not answered.
    Standby,
    /// A record of the primary's running transactions, at which a slot on a standby begins.
    PrimarySnapshot,
    /// Another wait event, as `pg_stat_activity` names it.
    Event(String),
}

impl WaitsFor {
    // Of several blocking sessions, prefer one that does not wait for a lock itself. A prepared
    // transaction has pid 0; its locks have no pid, and one of them is on its own transaction id.
    const QUERY: &str = "\
SELECT w.pid, coalesce(w.who, ''), w.gid, a.wait_event_type::text, a.wait_event::text
FROM pg_catalog.pg_stat_activity a LEFT JOIN LATERAL (
    SELECT p.pid,
           concat_ws(', ', 'user ' || b.usename::text, nullif(b.application_name, ''), b.state,
                     'transaction since ' || date_trunc('second', b.xact_start)::text) AS who,
           (SELECT x.gid::text FROM pg_catalog.pg_locks waiting
            JOIN pg_catalog.pg_locks held ON held.granted AND held.pid IS NULL
                 AND held.locktype = waiting.locktype
                 AND held.database IS NOT DISTINCT FROM waiting.database
                 AND held.relation IS NOT DISTINCT FROM waiting.relation
                 AND held.transactionid IS NOT DISTINCT FROM waiting.transactionid
            JOIN pg_catalog.pg_locks own ON own.virtualtransaction = held.virtualtransaction
                 AND own.pid IS NULL AND own.granted AND own.locktype = 'transactionid'
            JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
            WHERE waiting.pid = a.pid AND NOT waiting.granted AND p.pid = 0 LIMIT 1) AS gid
    FROM unnest(pg_catalog.pg_blocking_pids(a.pid)) AS p(pid)
    LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = p.pid
    ORDER BY b.wait_event_type IS NOT DISTINCT FROM 'Lock' LIMIT 1
) w ON true WHERE a.pid = $1";

    /// Returns what the process waits for now; none if it does not wait or this is not visible.
    pub async fn ask(client: &Client, pid: i32) -> Result<Option<Self>, Error> {
        let Some(row) = client.query_opt(Self::QUERY, &[&pid]).await? else { return Ok(None) };
        let (holder, who): (Option<i32>, String) = (row.try_get(0)?, row.try_get(1)?);
        let gid: Option<String> = row.try_get(2)?;
        let (class, event): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
        Ok(match (holder, gid, class, event) {
            (_, Some(gid), ..) => Some(WaitsFor::Prepared { gid }),
            (Some(pid), ..) if pid > 0 => Some(WaitsFor::Session { pid, who }),
            (_, _, _, Some(event)) if event == "SyncRep" => Some(WaitsFor::Standby),
            // It waits for its client, or works.
            (_, _, Some(class), _) if class == "Client" => None,
            (_, _, Some(class), Some(event)) => Some(WaitsFor::Event(format!("{class} {event}"))),
            _ => None,
        })
    }

    /// Advice for an operator who wants to end the wait.
    pub fn remedy(&self) -> String {
        match self {
            WaitsFor::Session { pid, .. } => {
                format!("end that transaction, or run SELECT pg_terminate_backend({pid})")
            }
            WaitsFor::Prepared { gid } => {
                let gid = gid.replace('\'', "''");
                format!("run COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'")
            }
            WaitsFor::Standby => {
                "bring the standby back, or take it out of synchronous_standby_names".into()
            }
            WaitsFor::PrimarySnapshot => {
                "on the primary, run SELECT pg_log_standby_snapshot() as a superuser".into()
            }
            WaitsFor::Event(_) => "see to the server's load and its disks".into(),
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitsFor::Session { pid, who } if who.is_empty() => write!(f, "PID {pid}"),
            WaitsFor::Session { pid, who } => write!(f, "PID {pid} ({who})"),
            WaitsFor::Prepared { gid } => write!(f, "the prepared transaction {gid}"),
            WaitsFor::Standby => f.write_str("a synchronous standby"),
            WaitsFor::PrimarySnapshot => {
                f.write_str("a record of the primary's running transactions")
            }
            WaitsFor::Event(event) => write!(f, "{event}"),
        }
    }
}
