//! Decides where reading starts: a slot and a checkpoint in, a start or a refusal out. Pure.

use factlib_postgres::{
    Slot, SystemId, TimelineHistory, TimelinePosition,
    invalidation::{cause, prevention},
};

use crate::{Error, ErrorKind, Lsn, Result, checkpoint::Checkpoint};

/// Remedy that accepts that events may be missing.
pub(super) const ACCEPT: &str =
    "if that is accepted, `factlib setup --accept-position` starts from the slot as it is now";
/// The same where no slot can be read.
const ACCEPT_NEW: &str =
    "if that is accepted, `factlib setup --accept-position` creates a new slot and starts there";

fn lost(what: String) -> Error {
    Error::new(ErrorKind::PositionLost, what).remedy(ACCEPT)
}

fn invalidated(name: &str, reason: &str, confirmed: Lsn) -> Error {
    let cause = cause(reason).map(|cause| format!(": {cause}")).unwrap_or_default();
    let remedy = match prevention(reason) {
        Some(prevention) => format!("{ACCEPT_NEW}; before that, {prevention}"),
        None => ACCEPT_NEW.into(),
    };
    lost(format!(
        "slot {name} was invalidated ({reason}{cause}): facts committed after {confirmed} are missing"
    ))
    .remedy(remedy)
}

/// The server's identity and history, by which a slot and a checkpoint are judged.
pub(super) struct StartRules<'a> {
    pub slot_name: &'a str,
    pub database: &'a str,
    pub store: String,
    /// True if the store is a table of the server: a failover may put it back, but not the slot.
    pub store_is_replicated: bool,
    pub system: SystemId,
    /// History of the server's timeline, if the checkpoint is on another one.
    pub history: Option<TimelineHistory>,
}

/// Refuses a slot of another plugin or database.
pub(super) fn check_owner(name: &str, database: &str, slot: &Slot) -> Result<()> {
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (Some("pgoutput"), Some(owner)) if owner == database => Ok(()),
        (plugin, owner) => Err(refused(format!(
            "slot {name} belongs to plugin {} and database {}, not to pgoutput and {database}",
            plugin.unwrap_or("none"),
            owner.unwrap_or("none"),
        ))
        .remedy("name another slot with postgres.slot, or the slot's database with postgres.url")),
    }
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::PostgresRefused, what)
}

impl StartRules<'_> {
    /// Decides where to start, or why only a person may.
    pub fn decide(&self, slot: Option<Slot>, checkpoint: Option<Checkpoint>) -> Result<Checkpoint> {
        let name = self.slot_name;
        // First: in another cluster, a missing slot or position means nothing.
        if let Some(checkpoint) = &checkpoint
            && checkpoint.system_id != self.system.system_id
        {
            return Err(lost(format!(
                "{} belongs to the cluster {}, and this is {}: positions of one mean nothing in the other",
                self.store, checkpoint.system_id, self.system.system_id
            )));
        }
        let Some(slot) = slot else {
            return Err(match checkpoint {
                None => refused(format!("slot {name} does not exist"))
                    .remedy("run `factlib setup`, or set postgres.create = true"),
                Some(checkpoint) => {
                    let Checkpoint { lsn, timeline, .. } = checkpoint;
                    let failover = match timeline == self.system.timeline {
                        true => "",
                        false => {
                            " (a standby was promoted that had no copy of it in step: docs/postgresql.md, \
                             Failover)"
                        }
                    };
                    lost(format!(
                        "slot {name} is gone{failover}, though {} says that it was read up to {lsn}: \
                         facts committed since then are missing",
                        self.store
                    ))
                    .remedy(ACCEPT_NEW)
                }
            });
        };
        check_owner(name, self.database, &slot)?;
        if let Some(reason) = slot.lost {
            return Err(invalidated(name, &reason, slot.confirmed));
        }
        if !slot.is_ready() {
            return Err(not_ready(&slot, name));
        }
        let here = Checkpoint {
            slot: name.to_owned(),
            system_id: self.system.system_id,
            timeline: self.system.timeline,
            lsn: slot.confirmed,
        };
        let Some(checkpoint) = checkpoint else { return Ok(here) };
        self.check_history(&checkpoint)?;
        if slot.confirmed > checkpoint.lsn && self.was_confirmed_before_failover(&slot) {
            return Ok(here);
        }
        if slot.confirmed > checkpoint.lsn {
            return Err(lost(format!(
                "slot {name} stands at {}, beyond {}, up to which facts are known to be delivered \
                 ({}): it was recreated or advanced by someone else, and facts in between are missing",
                slot.confirmed, checkpoint.lsn, self.store
            )));
        }
        self.check_wal_end(&checkpoint)?;
        Ok(Checkpoint { lsn: checkpoint.lsn, ..here })
    }

    /// True if the slot came over from the former primary, further than the table that holds the
    /// checkpoint: the relay saves a position there before it confirms it to the slot, but the standby may
    /// have copied the slot and not yet received the save.
    ///
    /// A slot that was made on this server stands behind the beginning of its timeline.
    fn was_confirmed_before_failover(&self, slot: &Slot) -> bool {
        let beginning = self.history.as_ref().and_then(TimelineHistory::beginning);
        self.store_is_replicated && beginning.is_some_and(|beginning| slot.confirmed <= beginning)
    }

    /// Checks that the position is in the server's history.
    fn check_history(&self, checkpoint: &Checkpoint) -> Result<()> {
        let place = match &self.history {
            Some(history) => history.locate(checkpoint.timeline, checkpoint.lsn),
            None => TimelinePosition::Inside,
        };
        match place {
            TimelinePosition::Inside => {}
            TimelinePosition::Beyond(end) => {
                return Err(lost(format!(
                    "the server left timeline {} at {end}, before {}, up to which facts were delivered \
                     ({}): those after {end} are not in its past, and what was committed there \
                     instead would be missed (was a standby promoted that lagged, or a backup restored?)",
                    checkpoint.timeline, checkpoint.lsn, self.store
                )));
            }
            TimelinePosition::Elsewhere => {
                return Err(lost(format!(
                    "the server's timeline {} does not come from timeline {}, on which facts were \
                     delivered up to {} ({}): was a backup restored?",
                    self.system.timeline, checkpoint.timeline, checkpoint.lsn, self.store
                )));
            }
        }
        Ok(())
    }

    fn check_wal_end(&self, checkpoint: &Checkpoint) -> Result<()> {
        if checkpoint.lsn > self.system.wal_end {
            return Err(lost(format!(
                "the server's WAL ends at {}, before {}, up to which facts were delivered ({}): \
                 was it restored from a backup?",
                self.system.wal_end, checkpoint.lsn, self.store
            )));
        }
        Ok(())
    }

    /// Checks a position against the server alone, without the slot.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.check_history(checkpoint)?;
        self.check_wal_end(checkpoint)
    }
}

/// Error for a slot that is still being created and has no position yet.
pub(super) fn not_ready(slot: &Slot, name: &str) -> Error {
    let by = slot.active_pid.map(|pid| format!(" by PID {pid}")).unwrap_or_default();
    let what = format!("slot {name} is still being created{by}");
    Error::new(ErrorKind::SlotInUse, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = "memory belongs to the cluster 8, and this is 7: positions of one mean \
                           nothing in the other";

    fn rules() -> StartRules<'static> {
        let dbname = "shop".to_owned();
        let system = SystemId { system_id: 7, timeline: 1, wal_end: Lsn::new(1_000), dbname };
        StartRules {
            slot_name: "s",
            database: "shop",
            store: "memory".into(),
            store_is_replicated: false,
            system,
            history: None,
        }
    }

    fn slot(confirmed: u64) -> Option<Slot> {
        let (plugin, database) = (Some("pgoutput".into()), Some("shop".into()));
        let confirmed = Lsn::new(confirmed);
        let mut slot = Slot::default();
        (slot.plugin, slot.database, slot.confirmed) = (plugin, database, confirmed);
        Some(slot)
    }

    fn slot_but(confirmed: u64, change: impl FnOnce(&mut Slot)) -> Option<Slot> {
        let mut slot = slot(confirmed)?;
        change(&mut slot);
        Some(slot)
    }

    fn checkpoint(lsn: u64) -> Option<Checkpoint> {
        Some(Checkpoint { slot: "s".into(), system_id: 7, timeline: 1, lsn: Lsn::new(lsn) })
    }

    #[test]
    fn reading_starts_at_the_checkpoint_or_at_the_slot() {
        let start = |slot, checkpoint| rules().decide(slot, checkpoint).map(|c| c.lsn.as_u64());
        assert_eq!(start(slot(500), checkpoint(600)).expect("a start"), 600);
        assert_eq!(start(slot(500), checkpoint(500)).expect("a start"), 500);
        assert_eq!(start(slot(500), None).expect("a start"), 500);
    }

    #[test]
    fn a_position_from_which_facts_may_be_missing_is_refused_with_its_remedy() {
        let foreign = checkpoint(600).map(|c| Checkpoint { system_id: 8, ..c });
        for (slot, checkpoint, why) in [
            (
                slot(700),
                checkpoint(600),
                "slot s stands at 0/2BC, beyond 0/258, up to which facts are known to be delivered \
                 (memory): it was recreated or advanced by someone else, and facts in between are \
                 missing",
            ),
            (
                slot(500),
                checkpoint(1_001),
                "the server's WAL ends at 0/3E8, before 0/3E9, up to which facts were delivered \
                 (memory): was it restored from a backup?",
            ),
            (slot(500), foreign.clone(), FOREIGN),
            (None, foreign, FOREIGN),
        ] {
            let error = rules().decide(slot, checkpoint).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PositionLost);
            assert_eq!(error.to_string(), format!("{why} ({ACCEPT})"));
        }
    }

    #[test]
    fn a_slot_that_is_gone_or_invalidated_is_replaced_by_a_new_one() {
        let gone = rules().decide(None, checkpoint(600)).unwrap_err();
        let text = "slot s is gone, though memory says that it was read up to 0/258: facts \
                    committed since then are missing";
        assert_eq!(gone.to_string(), format!("{text} ({ACCEPT_NEW})"));
        for (reason, what, prevention) in [
            (
                "wal_removed",
                "wal_removed: it retained more WAL than max_slot_wal_keep_size",
                "; before that, raise max_slot_wal_keep_size",
            ),
            (
                "idle_timeout",
                "idle_timeout: nobody read it for as long as idle_replication_slot_timeout",
                "; before that, ALTER SYSTEM SET idle_replication_slot_timeout = 0, and SELECT \
                 pg_reload_conf()",
            ),
            (
                "rows_removed",
                "rows_removed: the primary removed rows of the catalog that this standby still needed",
                "; before that, set hot_standby_feedback = on on the standby, and primary_slot_name \
                 to a physical slot",
            ),
            (
                "wal_level_insufficient",
                "wal_level_insufficient: the primary's wal_level was no longer logical",
                "; before that, set wal_level = logical on the primary, and restart it",
            ),
            ("of a later version", "of a later version", ""),
        ] {
            let slot = slot_but(500, |slot| slot.lost = Some(reason.into()));
            let error = rules().decide(slot, checkpoint(600)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PositionLost);
            let text = format!(
                "slot s was invalidated ({what}): facts committed after 0/1F4 are missing \
                 ({ACCEPT_NEW}{prevention})"
            );
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_position_on_another_timeline_is_valid_up_to_where_the_server_left_it() {
        let promoted = |left: &str| {
            let mut rules = rules();
            rules.system.timeline = 3;
            let history = format!("1\t0/{left}\tno recovery target specified");
            rules.history = Some(TimelineHistory::parse(3, &history).expect("well formed"));
            rules
        };
        let start = promoted("258").decide(slot(500), checkpoint(600)).expect("a start");
        assert_eq!((start.timeline, start.lsn), (3, Lsn::new(600)));
        let elsewhere = checkpoint(600).map(|c| Checkpoint { timeline: 2, ..c });
        for (checkpoint, why) in [
            (
                checkpoint(601),
                "the server left timeline 1 at 0/258, before 0/259, up to which facts were \
                 delivered (memory): those after 0/258 are not in its past, and what was committed \
                 there instead would be missed (was a standby promoted that lagged, or a backup \
                 restored?)",
            ),
            (
                elsewhere,
                "the server's timeline 3 does not come from timeline 2, on which facts were \
                 delivered up to 0/258 (memory): was a backup restored?",
            ),
        ] {
            let error = promoted("258").decide(slot(500), checkpoint).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PositionLost);
            assert_eq!(error.to_string(), format!("{why} ({ACCEPT})"));
        }
    }

    #[test]
    fn a_slot_that_came_over_further_than_the_replicated_checkpoint_is_the_start() {
        let promoted = |store_is_replicated| {
            let history = TimelineHistory::parse(2, "1\t0/258\tno recovery target specified");
            let mut rules = StartRules { store_is_replicated, ..rules() };
            rules.system.timeline = 2;
            rules.history = Some(history.expect("well formed"));
            rules
        };
        let start = promoted(true).decide(slot(600), checkpoint(500)).expect("a start");
        assert_eq!((start.timeline, start.lsn), (2, Lsn::new(600)));
        let made_here = promoted(true).decide(slot(601), checkpoint(500)).unwrap_err();
        assert_eq!(made_here.kind(), ErrorKind::PositionLost);
        let elsewhere = promoted(false).decide(slot(600), checkpoint(500)).unwrap_err();
        assert_eq!(elsewhere.kind(), ErrorKind::PositionLost);
    }

    #[test]
    fn a_slot_without_a_position_is_still_being_created() {
        let creating = slot_but(0, |slot| slot.active_pid = Some(7));
        let error = rules().decide(creating, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SlotInUse);
        assert_eq!(error.to_string(), "slot s is still being created by PID 7");
    }

    #[test]
    fn a_slot_of_another_plugin_or_database_is_refused() {
        let plugin = slot_but(1, |slot| slot.plugin = Some("wal2json".into()));
        let database = slot_but(1, |slot| slot.database = Some("other".into()));
        for (other, whose) in [
            (plugin, "plugin wal2json and database shop"),
            (database, "plugin pgoutput and database other"),
        ] {
            let error = rules().decide(other, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PostgresRefused);
            let text = format!("slot s belongs to {whose}, not to pgoutput and shop");
            let remedy =
                "name another slot with postgres.slot, or the slot's database with postgres.url";
            assert_eq!(error.to_string(), format!("{text} ({remedy})"));
        }
        let error = rules().decide(None, None).unwrap_err().to_string();
        let remedy = "run `factlib setup`, or set postgres.create = true";
        assert_eq!(error, format!("slot s does not exist ({remedy})"));
    }
}
