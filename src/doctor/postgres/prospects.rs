//! Checks conditions that let a relay start and may stop it later: WAL limits and clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{PostgresChecks, column, size};
use crate::{
    Result,
    postgres::{Reconnecting, retention::Retention},
};

/// Difference that clocks may have.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

impl PostgresChecks<'_> {
    pub(super) async fn retained(&mut self) -> Result<()> {
        const NAME: &str = "retained WAL";
        let settings = &self.config.postgres;
        let (info, log) = (self.startup.info.clone(), self.log.clone());
        let server = Reconnecting::new(info, settings.connect_timeout, log);
        let Some(kept) = Retention::read(&server, &settings.slot, 0).await? else { return Ok(()) };
        let mut found = size(kept.bytes());
        if let Some(left) = kept.safe_wal_size {
            let left = u64::try_from(left).unwrap_or_default();
            found += &format!(", and {} until the slot is invalidated", size(left));
        }
        let near = kept.wal_status == "unreserved";
        if !near && kept.bytes() < settings.retained_wal_warning.as_u64() {
            self.checks.ok(NAME, found);
            return Ok(());
        }
        let remedy = match kept.oldest {
            Some(open) => format!("end transaction {} ({}): {}", open.xid, open.owner, open.ending),
            None => "start the relay, or drop the slot: factlib slot drop".into(),
        };
        self.checks.warning(NAME, found, remedy);
        Ok(())
    }

    pub(super) async fn keep_size(&mut self) -> Result<()> {
        const NAME: &str = "max_slot_wal_keep_size";
        let row = self
            .ask(
                "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
                &[],
            )
            .await?;
        let megabytes: i64 = column(&row, 0)?;
        let Ok(megabytes) = u64::try_from(megabytes) else {
            self.checks.ok(NAME, "no limit: during an outage, WAL is kept until the disk is full");
            return Ok(());
        };
        let (limit, warning) =
            (megabytes << 20, self.config.postgres.retained_wal_warning.as_u64());
        if limit > warning {
            self.checks.ok(NAME, format!("{}: if the slot retains more, it is lost", size(limit)));
            return Ok(());
        }
        let found = format!(
            "{}: the slot is lost before postgres.retained_wal_warning ({}) is reached",
            size(limit),
            size(warning)
        );
        let raise = (warning >> 20).max(1) * 10;
        let remedy = format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{raise}MB'; SELECT pg_reload_conf()"
        );
        self.checks.warning(NAME, found, remedy);
        Ok(())
    }

    /// Checks that the slot survives a stop of the relay (PostgreSQL 18 on).
    pub(super) fn idle_timeout(&mut self, limit: Option<Duration>) {
        const NAME: &str = "idle_replication_slot_timeout";
        match limit {
            None => self.checks.ok(NAME, "0: a slot that nobody reads is kept"),
            Some(limit) => self.checks.warning(
                NAME,
                format!("a relay that is stopped for {} s loses its slot", limit.as_secs()),
                "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()",
            ),
        }
    }

    /// Checks that the primary keeps the rows that decoding on this standby needs.
    pub(super) async fn feedback(&mut self) -> Result<()> {
        const NAME: &str = "hot_standby_feedback";
        let row = self
            .ask(
                "SELECT current_setting('hot_standby_feedback') = 'on',
                        current_setting('primary_slot_name') <> ''",
                &[],
            )
            .await?;
        let (feedback, has_slot): (bool, bool) = (column(&row, 0)?, column(&row, 1)?);
        const CONSEQUENCE: &str = "the primary may remove rows that decoding here needs, which \
                                   invalidates the slot (rows_removed)";
        match (feedback, has_slot) {
            (true, true) => self.checks.ok(NAME, "on, through a physical slot"),
            (true, false) => self.checks.warning(
                NAME,
                format!("on, but without primary_slot_name: while disconnected, {CONSEQUENCE}"),
                "on the primary: SELECT pg_create_physical_replication_slot(…); here: ALTER SYSTEM \
                 SET primary_slot_name = …; SELECT pg_reload_conf()",
            ),
            (false, _) => self.checks.warning(
                NAME,
                format!("off: {CONSEQUENCE}"),
                "ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
            ),
        }
        Ok(())
    }

    pub(super) async fn clock(&mut self) -> Result<()> {
        let before = SystemTime::now();
        let row = self.ask("SELECT extract(epoch FROM clock_timestamp())::float8", &[]).await?;
        let trip = before.elapsed().unwrap_or_default();
        let ours = before.duration_since(UNIX_EPOCH).unwrap_or_default() + trip / 2;
        let apart = column::<f64>(&row, 0)? - ours.as_secs_f64();
        let found = format!("{:.3} s from PostgreSQL's", apart.abs());
        match clocks_differ(apart, trip) {
            false => self.checks.ok("clock", found),
            true => self.checks.warning(
                "clock",
                found,
                "synchronise both by NTP: on each host, timedatectl set-ntp true",
            ),
        }
        Ok(())
    }
}

/// True if the difference is more than the round trip explains.
fn clocks_differ(apart_seconds: f64, trip: Duration) -> bool {
    apart_seconds.abs() > (MAX_CLOCK_DIFFERENCE + trip / 2).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_a_second_and_half_the_round_trip() {
        let trip = Duration::from_millis(400);
        assert!(
            !clocks_differ(0.0, trip) && !clocks_differ(1.1, trip) && !clocks_differ(-1.1, trip)
        );
        assert!(clocks_differ(1.3, trip) && clocks_differ(-1.3, trip));
    }
}
