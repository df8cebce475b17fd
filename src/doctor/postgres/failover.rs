//! Checks that reading goes on after a failover: the slot's flag, what the primary waits for, and each
//! standby of the connection string with its copy of the slot.

use factlib_postgres::{ConnectInfo, Server};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::{PostgresChecks, asking, column, literal};
use crate::{Result, postgres::sql_session};

/// Settings of a standby without which it keeps no copy of a slot, each with the value to set.
const STANDBY_SETTINGS: [(&str, &str); 2] =
    [("sync_replication_slots", "on"), ("hot_standby_feedback", "on")];

/// What a standby says of its settings and of its copy of the slot.
struct Standby {
    host: String,
    missing: Vec<(&'static str, &'static str)>,
    /// Names of a slot on the primary, for which it waits.
    primary_slot_name: String,
    /// None if this user may not see it.
    primary_conninfo: Option<String>,
    copy: Option<SlotCopy>,
}

struct SlotCopy {
    in_step: bool,
    lost: Option<String>,
}

impl PostgresChecks<'_> {
    /// Checks what PostgreSQL 17 and later need; before, a slot does not follow by itself.
    pub(super) async fn failover(&mut self, server: &Server) -> Result<()> {
        const NAME: &str = "failover";
        let name = &self.config.postgres.slot;
        let hosts = self.startup.info.each_host();
        if !server.has_failover_slots() {
            if hosts.len() > 1 {
                let found = format!(
                    "PostgreSQL {} has no failover slots: after a promotion {name} is gone, unless \
                     what manages the cluster carries it over",
                    server.major()
                );
                self.checks.warning(
                    NAME,
                    found,
                    "upgrade to PostgreSQL 17; for Patroni: permanent slots",
                );
            }
            return Ok(());
        }
        let row = self
            .ask(
                "SELECT count(*) FILTER (WHERE slot_type = 'physical') > 0,
                        coalesce(array_agg(slot_name::text ORDER BY slot_name)
                                 FILTER (WHERE slot_type = 'physical' AND active), '{}'),
                        bool_or(failover) FILTER (WHERE slot_name = $1),
                        bool_or(active) FILTER (WHERE slot_name = $1)
                 FROM pg_replication_slots",
                &[name],
            )
            .await?;
        let has_standbys = column::<bool>(&row, 0)? || hosts.len() > 1;
        let standbys: Vec<String> = column(&row, 1)?;
        let (follows, active): (Option<bool>, Option<bool>) = (column(&row, 2)?, column(&row, 3)?);
        if !has_standbys {
            self.checks.ok(NAME, "no standby has a slot here");
            return Ok(());
        }
        let enabled = self.config.postgres.failover;
        match follows.unwrap_or(enabled) {
            true => self.checks.ok(
                NAME,
                format!("{name} is synchronised to standbys that set sync_replication_slots = on"),
            ),
            false => self.checks.warning(
                NAME,
                format!("{name} is not synchronised to standbys: after a failover it is gone"),
                remedy(name, enabled, active == Some(true)),
            ),
        }
        if follows.unwrap_or(enabled) {
            self.synchronized_standby_slots(&standbys).await?;
        }
        for host in hosts.iter().filter(|_| hosts.len() > 1) {
            self.standby(host).await;
        }
        Ok(())
    }

    /// Checks that the primary sends nothing that a standby could lose, and waits for no standby that is
    /// gone.
    async fn synchronized_standby_slots(&mut self, standbys: &[String]) -> Result<()> {
        const NAME: &str = "synchronized_standby_slots";
        let row = self
            .ask(
                "SELECT coalesce(array_agg(trim(both '\" ' FROM name)), '{}')
                 FROM unnest(string_to_array(current_setting('synchronized_standby_slots'), ',')) name",
                &[],
            )
            .await?;
        let awaited: Vec<String> = column(&row, 0)?;
        let set = |names: &[String]| {
            let names = literal(&names.join(", "));
            format!(
                "ALTER SYSTEM SET synchronized_standby_slots = {names}; SELECT pg_reload_conf()"
            )
        };
        if awaited.is_empty() {
            match standbys.is_empty() {
                true => self.checks.ok(NAME, "no standby is connected by a slot"),
                false => self.checks.warning(
                    NAME,
                    "it is empty: events are sent that a standby lacks if it is promoted while it lags",
                    set(standbys),
                ),
            }
            return Ok(());
        }
        let gone: Vec<_> =
            awaited.iter().filter(|name| !standbys.contains(name)).cloned().collect();
        if gone.is_empty() {
            self.checks.ok(NAME, format!("events wait for {}", awaited.join(", ")));
            return Ok(());
        }
        let left: Vec<_> = awaited.into_iter().filter(|name| !gone.contains(name)).collect();
        let found = format!("events wait for {}, which no standby uses now", gone.join(", "));
        self.checks.warning(NAME, found, format!("start that standby, or {}", set(&left)));
        Ok(())
    }

    /// Checks one host of the connection string, if it is a standby.
    async fn standby(&mut self, host: &ConnectInfo) {
        const NAME: &str = "standby";
        let at = host.describe_hosts();
        let limit = self.config.postgres.connect_timeout;
        let asked = async {
            let client = sql_session(host, limit, self.log).await?;
            match Server::read(&client).await?.is_in_recovery() {
                true => {
                    Standby::ask(&client, at.clone(), &self.config.postgres.slot).await.map(Some)
                }
                false => Ok(None),
            }
        };
        match asked.await {
            Ok(None) => {}
            Ok(Some(standby)) => match standby.finding(&self.config.postgres.slot) {
                Ok(found) => self.checks.ok(NAME, found),
                Err((found, remedy)) => self.checks.warning(NAME, found, remedy),
            },
            Err(error) => {
                let found = format!("{at} can't be asked: {}", error.without_remedy());
                self.checks.warning(NAME, found, "start it, or take it out of postgres.url");
            }
        }
    }
}

/// Says how the slot gets its flag. While it is read, the statement would wait for its end.
fn remedy(slot: &str, enabled: bool, active: bool) -> String {
    let slot = escape_identifier(slot);
    let alter =
        format!("in psql with replication=database: ALTER_REPLICATION_SLOT {slot} (FAILOVER true)");
    match (enabled, active) {
        (true, true) => "restart the relay, which sets the flag before it reads".into(),
        (true, false) => format!("start the relay, which sets the flag; or {alter}"),
        (false, true) => {
            format!(
                "set postgres.failover = true and restart the relay; or stop the relay and, {alter}"
            )
        }
        (false, false) => format!("set postgres.failover = true; or {alter}"),
    }
}

impl Standby {
    async fn ask(client: &Client, host: String, slot: &str) -> Result<Self> {
        let query = "SELECT name, setting FROM pg_settings
                     WHERE name = ANY ('{sync_replication_slots,hot_standby_feedback,
                                         primary_slot_name,primary_conninfo}'::text[])";
        let rows = client.query(query, &[]).await.map_err(asking)?;
        let setting = |name: &str| {
            let row =
                rows.iter().find(|row| row.try_get::<_, &str>(0).is_ok_and(|is| is == name))?;
            row.try_get::<_, Option<String>>(1).ok()?
        };
        let query = "SELECT synced AND NOT temporary, invalidation_reason
                     FROM pg_replication_slots WHERE slot_name = $1";
        let row = client.query_opt(query, &[&slot]).await.map_err(asking)?;
        let copy = match &row {
            Some(row) => Some(SlotCopy { in_step: column(row, 0)?, lost: column(row, 1)? }),
            None => None,
        };
        let is_wrong =
            |(name, wanted): &(&str, &str)| setting(name).is_some_and(|value| value != *wanted);
        Ok(Standby {
            host,
            missing: STANDBY_SETTINGS.into_iter().filter(is_wrong).collect(),
            primary_slot_name: setting("primary_slot_name").unwrap_or_default(),
            primary_conninfo: setting("primary_conninfo"),
            copy,
        })
    }

    /// Returns what is found, or what is missing with its remedy.
    fn finding(&self, slot: &str) -> Result<String, (String, String)> {
        let Standby { host, .. } = self;
        let reload = "SELECT pg_reload_conf()";
        if !self.missing.is_empty() {
            let names: Vec<_> = self.missing.iter().map(|(name, _)| *name).collect();
            let set = self
                .missing
                .iter()
                .map(|(name, value)| format!("ALTER SYSTEM SET {name} = {value}; "));
            return Err((
                format!("{host} keeps no copy of {slot}: {} is off", names.join(" and ")),
                format!("on {host}: {}{reload}", set.collect::<String>()),
            ));
        }
        if self.primary_slot_name.is_empty() {
            return Err((
                format!("{host} keeps no copy of {slot}: primary_slot_name is empty"),
                format!(
                    "on the primary: SELECT pg_create_physical_replication_slot('standby'); on {host}: \
                     ALTER SYSTEM SET primary_slot_name = 'standby'; {reload}"
                ),
            ));
        }
        // The text may hold a password: it is not shown.
        if self.primary_conninfo.as_ref().is_some_and(|conninfo| !conninfo.contains("dbname")) {
            return Err((
                format!("{host} keeps no copy of {slot}: primary_conninfo has no dbname"),
                format!(
                    "on {host}: add dbname=postgres to primary_conninfo (ALTER SYSTEM SET \
                     primary_conninfo = '… dbname=postgres'; {reload})"
                ),
            ));
        }
        match &self.copy {
            Some(SlotCopy { lost: Some(reason), .. }) => Err((
                format!("the copy of {slot} on {host} was invalidated ({reason})"),
                format!(
                    "on {host}: SELECT pg_drop_replication_slot({}); it is copied again",
                    literal(slot)
                ),
            )),
            Some(SlotCopy { in_step: true, .. }) => {
                Ok(format!("{host} has a copy of {slot} that is in step"))
            }
            Some(SlotCopy { in_step: false, .. }) => Err((
                format!(
                    "the copy of {slot} on {host} is not in step yet: a promotion now loses it"
                ),
                "wait until the relay has confirmed a newer position; on an idle primary: SELECT \
                 pg_log_standby_snapshot()"
                    .into(),
            )),
            None => Err((
                format!("{host} has no copy of {slot} yet"),
                "wait half a minute; then see that server's log for slot synchronization".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby() -> Standby {
        Standby {
            host: "b:5432".into(),
            missing: Vec::new(),
            primary_slot_name: "beta".into(),
            primary_conninfo: None,
            copy: Some(SlotCopy { in_step: true, lost: None }),
        }
    }

    #[test]
    fn a_copy_counts_once_it_is_in_step() {
        assert_eq!(standby().finding("s").expect("fine"), "b:5432 has a copy of s that is in step");
        let early = Standby { copy: Some(SlotCopy { in_step: false, lost: None }), ..standby() };
        let (found, remedy) = early.finding("s").expect_err("not in step");
        assert!(found.contains("not in step yet") && remedy.contains("pg_log_standby_snapshot"));
        let (found, _) = Standby { copy: None, ..standby() }.finding("s").expect_err("none");
        assert_eq!(found, "b:5432 has no copy of s yet");
    }

    #[test]
    fn a_setting_that_prevents_the_copy_comes_with_its_statement() {
        let off = Standby { missing: STANDBY_SETTINGS.into(), ..standby() };
        let (_, remedy) = off.finding("s").expect_err("off");
        assert_eq!(
            remedy,
            "on b:5432: ALTER SYSTEM SET sync_replication_slots = on; \
             ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()"
        );
        let conninfo = Some("host=a password=secret".into());
        let (found, remedy) = Standby { primary_conninfo: conninfo, ..standby() }
            .finding("s")
            .expect_err("no dbname");
        assert!(found.ends_with("has no dbname"), "{found}");
        assert!(!remedy.contains("secret"));
    }

    #[test]
    fn the_flag_is_set_only_while_nobody_reads() {
        assert_eq!(
            remedy("s", true, true),
            "restart the relay, which sets the flag before it reads"
        );
        assert!(remedy("s", false, true).contains("stop the relay and, in psql"));
        assert!(remedy("s", true, false).contains("ALTER_REPLICATION_SLOT \"s\" (FAILOVER true)"));
    }
}
