//! Checks the standbys that events wait for: they are known to the server, and may be seen.

use super::{PostgresChecks, asking, column, literal};
use crate::{
    Result,
    config::{WaitForStandbys, WaitForVisibility},
    postgres::commit_report::{CommitRules, has_synchronous_standbys},
};

const NAME: &str = "wait_for_standbys";

impl PostgresChecks<'_> {
    pub(super) async fn standbys(&mut self) -> Result<()> {
        let delivery = &self.config.delivery;
        if delivery.wait_for_visibility == WaitForVisibility::Auto
            && has_synchronous_standbys(self.client).await?
        {
            let found = "commits wait for synchronous standbys, so an event waits until its \
                         transaction is visible (delivery.wait_for_visibility)";
            self.checks.ok("wait_for_visibility", found);
        }
        let standbys = delivery.wait_for_standbys.clone();
        if standbys.count() == 0 {
            return Ok(());
        }
        let rules = CommitRules { standbys: standbys.clone(), visible: false };
        if let Err(error) = rules.check(self.client, self.startup.info.user()).await {
            self.checks.failed(NAME, &error, "");
            return Ok(());
        }
        match standbys {
            WaitForStandbys::Any(count) => self.connected(count).await?,
            WaitForStandbys::Named(names) => {
                for name in names {
                    self.named(&name).await?;
                }
            }
        }
        self.also_in_the_server().await
    }

    async fn connected(&mut self, wanted: u16) -> Result<()> {
        let row =
            self.ask(&format!("SELECT count(*) FROM {}", CommitRules::CONNECTED), &[]).await?;
        let connected: i64 = column(&row, 0)?;
        let found = format!("{connected} standbys are connected, and events wait for {wanted}");
        match connected < i64::from(wanted) {
            false => self.checks.ok(NAME, found),
            true => self.checks.warning(NAME, found, "start the standbys, or lower the number"),
        }
        Ok(())
    }

    async fn named(&mut self, name: &str) -> Result<()> {
        let query = format!(
            "SELECT count(*) FILTER (WHERE r.application_name = $1),
                    (SELECT count(*) FROM pg_replication_slots
                     WHERE slot_name = $1 AND slot_type = 'physical'),
                    coalesce(string_agg(DISTINCT r.application_name, ', '), 'none'),
                    coalesce((SELECT string_agg(slot_name, ', ') FROM pg_replication_slots
                              WHERE slot_type = 'physical'), 'none')
             FROM {}",
            CommitRules::CONNECTED
        );
        let row = self.client.query_one(&query, &[&name]).await.map_err(asking)?;
        let (connected, slots): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
        let (others, other_slots): (String, String) = (column(&row, 2)?, column(&row, 3)?);
        match (connected, slots) {
            (0, 0) => self.checks.warning(
                NAME,
                format!(
                    "no standby {name:?} is connected, and no physical slot has that name, so \
                     events wait; connected: {others}; physical slots: {other_slots}"
                ),
                format!(
                    "in the standby's primary_conninfo, set application_name={name}, or correct \
                     delivery.wait_for_standbys; a slot lets it be away: \
                     SELECT pg_create_physical_replication_slot({})",
                    literal(name)
                ),
            ),
            (0, _) => self.checks.ok(NAME, format!("physical slot {name} is there")),
            (1, _) => self.checks.ok(NAME, format!("standby {name:?} is connected")),
            _ => self.checks.warning(
                NAME,
                format!("{connected} standbys are connected as {name:?}: events wait for all"),
                "give each its own application_name in primary_conninfo",
            ),
        }
        Ok(())
    }

    /// Says that the server, from PostgreSQL 17 on, may wait for its standbys by itself.
    async fn also_in_the_server(&mut self) -> Result<()> {
        let query = "SELECT coalesce(current_setting('synchronized_standby_slots', true), '') <> ''
                        AND EXISTS (SELECT FROM pg_replication_slots s
                                    WHERE s.slot_name = $1 AND (to_jsonb(s) ->> 'failover')::bool)";
        let row = self.ask(query, &[&self.config.postgres.slot]).await?;
        if column(&row, 0)? {
            let found = "the server waits for synchronized_standby_slots before it sends, so \
                         delivery.wait_for_standbys is not needed: one of the two is enough";
            self.checks.ok(NAME, found);
        }
        Ok(())
    }
}
