//! Asks a server which commits its standbys have flushed, and which transactions are visible.

use std::time::Duration;

use factlib_postgres::{Backend, ConnectInfo, SqlSession};
use tokio::sync::Mutex;
use tokio_postgres::{
    Client, Statement,
    types::{PgLsn, ToSql},
};

use super::{postgres_error, slot_reader::STARTED};
use crate::{Error, ErrorKind, Lsn, Result, config::WaitForStandbys};

/// The state of a server at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommitReport {
    /// End of the WAL that the server has flushed.
    pub wal_flushed: Lsn,
    /// What each standby has flushed, by place; none if that is unknown.
    pub standbys: Vec<Option<Lsn>>,
    /// None if it was not asked for.
    pub snapshot: Option<Snapshot>,
}

impl CommitReport {
    /// True if the standby at this place is known to have flushed everything before `lsn`.
    pub fn has_flushed(&self, place: usize, lsn: Lsn) -> bool {
        self.standbys.get(place).copied().flatten().is_some_and(|flushed| flushed >= lsn)
    }

    /// True if a new snapshot sees this transaction, which has committed.
    pub fn is_visible(&self, xid: u32) -> bool {
        self.snapshot.as_ref().is_none_or(|snapshot| snapshot.sees(xid))
    }
}

/// A snapshot: which transactions have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The first transaction id that was not in use; of 64 bits, as `running`.
    next: u64,
    /// Transactions below it that had not ended.
    running: Vec<u64>,
}

impl Snapshot {
    /// Parses PostgreSQL's text, `xmin:xmax:xip_list`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').skip(1);
        let next = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|part| !part.is_empty());
        let running = running.map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        Some(Snapshot { next, running })
    }

    /// True if this transaction has ended. The stream has 32 bits of its id; no other transaction with
    /// the same ones can be open at the same time.
    #[allow(clippy::cast_possible_truncation)]
    fn sees(&self, xid: u32) -> bool {
        let is_used = (xid.wrapping_sub(self.next as u32)).cast_signed() < 0;
        is_used && !self.running.iter().any(|running| *running as u32 == xid)
    }
}

/// What has to be true of a transaction before its events are sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitRules {
    pub standbys: WaitForStandbys,
    /// It has to be visible to other sessions.
    pub visible: bool,
}

impl CommitRules {
    /// SQL for the standbys that are connected, as `r`: neither subscriptions nor base backups.
    pub const CONNECTED: &str = "\
pg_stat_replication r LEFT JOIN pg_replication_slots l ON l.active_pid = r.pid
WHERE r.state IN ('streaming', 'catchup') AND coalesce(l.slot_type, 'physical') = 'physical'";

    /// True if there is something to wait for.
    pub fn apply(&self) -> bool {
        self.visible || self.standbys.count() > 0
    }

    fn query(&self) -> String {
        let connected = Self::CONNECTED;
        let standbys = match &self.standbys {
            // The position of a slot is what its standby has flushed, also after it left.
            WaitForStandbys::Named(_) => format!(
                "SELECT coalesce(
                    (SELECT r.flush_lsn FROM {connected} AND r.application_name = n.name
                     ORDER BY r.flush_lsn NULLS FIRST LIMIT 1),
                    (SELECT s.restart_lsn FROM pg_replication_slots s
                     WHERE s.slot_name = n.name AND s.slot_type = 'physical'))
                 FROM unnest($1::text[]) WITH ORDINALITY AS n(name, place) ORDER BY n.place"
            ),
            WaitForStandbys::Any(_) => format!(
                "SELECT r.flush_lsn FROM {connected} AND r.flush_lsn IS NOT NULL
                 ORDER BY r.flush_lsn DESC LIMIT $1"
            ),
        };
        let standbys = match self.standbys.count() {
            0 => "'{}'::pg_lsn[]".to_owned(),
            _ => format!("ARRAY({standbys})"),
        };
        // A snapshot of 64 bits; its newer name is there from PostgreSQL 13 on.
        let snapshot = if self.visible { "txid_current_snapshot()::text" } else { "NULL::text" };
        format!(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_flush_lsn() END, {standbys}, {snapshot}"
        )
    }

    fn parameters(&self) -> Vec<Box<dyn ToSql + Sync + Send>> {
        match &self.standbys {
            _ if self.standbys.count() == 0 => Vec::new(),
            WaitForStandbys::Named(names) => vec![Box::new(names.clone())],
            WaitForStandbys::Any(count) => vec![Box::new(i64::from(*count))],
        }
    }

    /// Names the standby at this place.
    pub fn standby(&self, place: usize) -> String {
        match &self.standbys {
            WaitForStandbys::Named(names) => {
                format!("standby {:?}", names.get(place).map_or("", String::as_str))
            }
            WaitForStandbys::Any(count) => format!("standby {} of any {count}", place + 1),
        }
    }

    /// Refuses a user that may not see what the standbys have flushed.
    pub async fn check(&self, client: &Client, user: &str) -> Result<()> {
        if self.standbys.count() == 0 {
            return Ok(());
        }
        let names = match &self.standbys {
            WaitForStandbys::Named(names) => names.clone(),
            // An empty name is no slot.
            WaitForStandbys::Any(_) => vec![String::new()],
        };
        let failed = |error| postgres_error("cannot ask what standbys have flushed", error);
        let query = "\
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
    OR (SELECT bool_and(EXISTS (SELECT FROM pg_replication_slots s
                                WHERE s.slot_name = n.name AND s.slot_type = 'physical'))
        FROM unnest($1::text[]) AS n(name))";
        let row = client.query_one(query, &[&names]).await.map_err(failed)?;
        if row.try_get(0).map_err(failed)? {
            return Ok(());
        }
        let what = format!("{user} may not see what standbys have flushed");
        let user = postgres_protocol::escape::escape_identifier(user);
        Err(Error::new(ErrorKind::PostgresRefused, what).remedy(format!(
            "as superuser, run GRANT pg_read_all_stats TO {user}, or name physical slots in \
             delivery.wait_for_standbys"
        )))
    }
}

/// True if commits wait for standbys, so that a commit is decoded before other sessions see it.
pub(crate) async fn has_synchronous_standbys(client: &Client) -> Result<bool> {
    let query = "SELECT current_setting('synchronous_standby_names') <> ''";
    let failed = |error| postgres_error("cannot ask for synchronous standbys", error);
    client.query_one(query, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)
}

/// A connection on which one server is asked for reports.
pub(crate) struct CommitReporter {
    info: ConnectInfo,
    /// Limit for connecting, and for each report.
    timeout: Duration,
    rules: CommitRules,
    session: Mutex<Option<(SqlSession, Statement)>>,
}

impl CommitReporter {
    /// Connects at the first report.
    pub fn new(info: ConnectInfo, timeout: Duration, rules: CommitRules) -> Self {
        CommitReporter { info, timeout, rules, session: Mutex::new(None) }
    }

    /// Reads a report from the server on which `reader` is a process.
    pub async fn ask(&self, reader: &Backend) -> Result<CommitReport> {
        let mut guard = self.session.lock().await;
        // Taken out, so that a call that failed or was dropped leaves none behind.
        let (session, statement) = match guard.take().filter(|(session, _)| !session.is_closed()) {
            Some(open) => open,
            None => self.connect(reader).await?,
        };
        let parameters = self.rules.parameters();
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|parameter| &**parameter as _).collect();
        let row = session.within(self.timeout, session.query_one(&statement, &parameters)).await;
        let row = row.map_err(no_answer)?.map_err(failed)?;
        let lsn = |lsn: PgLsn| Lsn::new(lsn.into());
        let read = || -> Result<_, tokio_postgres::Error> {
            let standbys: Vec<Option<PgLsn>> = row.try_get(1)?;
            let snapshot: Option<&str> = row.try_get(2)?;
            let report = CommitReport {
                wal_flushed: row.try_get::<_, Option<PgLsn>>(0)?.map_or(Lsn::ZERO, lsn),
                standbys: standbys.into_iter().map(|flushed| flushed.map(lsn)).collect(),
                snapshot: None,
            };
            Ok((report, snapshot))
        };
        let (report, snapshot) = read().map_err(failed)?;
        let snapshot = match snapshot {
            Some(text) => Some(Snapshot::parse(text).ok_or_else(|| {
                Error::new(ErrorKind::Protocol, format!("{text:?} is no snapshot of PostgreSQL"))
            })?),
            None => None,
        };
        *guard = Some((session, statement));
        Ok(CommitReport { snapshot, ..report })
    }

    /// Connects, and makes sure that it is the server that is read: after a failover, another host of
    /// the connection string may answer.
    async fn connect(&self, reader: &Backend) -> Result<(SqlSession, Statement)> {
        let session = SqlSession::connect(&self.info, self.timeout).await?;
        let query = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = $1 AND {STARTED} = $2)"
        );
        let preparing = async {
            let row = session.query_one(&query, &[&reader.pid, &reader.started]).await?;
            let is_read: bool = row.try_get(0)?;
            Ok((is_read, session.prepare(&self.rules.query()).await?))
        };
        let prepared = session.within(self.timeout, preparing).await;
        let (is_read, statement) = prepared.map_err(no_answer)?.map_err(failed)?;
        if !is_read {
            let what = format!(
                "PostgreSQL at {} is not the server that is read, or process {} has ended there",
                self.info.describe(),
                reader.pid
            );
            return Err(Error::new(ErrorKind::PostgresUnavailable, what));
        }
        Ok((session, statement))
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    postgres_error("cannot ask which commits are safe", error)
}

fn no_answer(given_up: factlib_postgres::StatementTimeout) -> Error {
    let what = "PostgreSQL does not answer which commits are safe";
    let remedy = given_up.remedy();
    Error::new(ErrorKind::PostgresUnavailable, what).remedy(remedy).caused_by(given_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_has_ended() {
        let snapshot = Snapshot::parse("10:20:10,14").expect("a snapshot");
        let seen = |xid| snapshot.sees(xid);
        assert!(seen(9) && !seen(10) && seen(13) && !seen(14) && seen(19) && !seen(20));
        let idle = Snapshot::parse("20:20:").expect("a snapshot");
        assert!(idle.sees(19) && !idle.sees(20));
        for hostile in ["", "1", "1:2", "1:x:", "1:2:3,y"] {
            assert_eq!(Snapshot::parse(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn ids_wrap_around_after_32_bits() {
        let epoch = 3_u64 << 32;
        let text = format!("{0}:{1}:{0}", epoch - 2, epoch + 5);
        let snapshot = Snapshot::parse(&text).expect("a snapshot");
        let seen = |xid: u32| snapshot.sees(xid);
        assert!(!seen(u32::MAX - 1), "it is running");
        assert!(seen(u32::MAX) && seen(3) && seen(4) && !seen(5) && !seen(6));
    }
}
