//! Checks the saved position against the slot, and finds where reading would start.

use factlib_postgres::{ReplicationClient, Slot};

use super::{PostgresChecks, asking, column, size};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::Checkpoint,
    config::StoreKind,
    startup::{MoveRecord, ONE_SLOT, other_relays},
};

impl PostgresChecks<'_> {
    /// Loads the checkpoint; the outer option is none if that fails.
    pub(super) async fn checkpoint(
        &mut self,
        slot: Option<&Slot>,
    ) -> Result<Option<Option<Checkpoint>>> {
        const NAME: &str = "checkpoint store";
        let store = self.store.describe();
        let created = self.config.postgres.create;
        if self.config.checkpoint.store == StoreKind::Postgres {
            let row = self
                .ask(
                    "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'checkpoints'
                            AND relnamespace = to_regnamespace('factlib'))",
                    &[],
                )
                .await?;
            let there: bool = column(&row, 0)?;
            if !there && created {
                self.checks.ok(NAME, format!("{store} does not exist; `factlib run` creates it"));
                return Ok(Some(None));
            }
        }
        if self.config.checkpoint.store == StoreKind::File
            && let Err(error) = self.check_folder()
        {
            self.checks.failed(
                NAME,
                &error,
                "set checkpoint.path to a file in a folder that the relay may write to",
            );
            return Ok(None);
        }
        let checkpoint = match self.store.load(&self.config.postgres.slot).await {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.checks.failed(NAME, &error, "try again");
                return Ok(None);
            }
        };
        let found = match (&checkpoint, slot) {
            (None, _) => format!("{store}: no position yet"),
            (Some(saved), Some(slot)) if saved.lsn >= slot.confirmed => format!(
                "{store}: {}, {} ahead of the slot",
                saved.lsn,
                size(saved.lsn.distance_from(slot.confirmed))
            ),
            (Some(saved), _) => format!("{store}: {}", saved.lsn),
        };
        self.checks.ok(NAME, found);
        Ok(Some(checkpoint))
    }

    /// Reads the record of a move, if there is one, and says whether a start here waits for it.
    pub(super) async fn moving(
        &mut self,
        replication: &mut ReplicationClient,
    ) -> Result<Option<MoveRecord>> {
        const NAME: &str = "move";
        let system = replication.identify_system().await?;
        let slot = &self.config.postgres.slot;
        let record = MoveRecord::read(self.client, system.system_id, slot).await?;
        let Some(found) = &record else { return Ok(None) };
        match found.check_start() {
            Ok(()) => self.checks.ok(
                NAME,
                format!(
                    "this is the {} server of a move, which is {}; the other one is {}",
                    found.side.name(),
                    found.stage.name(),
                    found.other_server
                ),
            ),
            Err(error) if error.is_transient() => {
                let remedy = error.advice().unwrap_or_default().to_owned();
                self.checks.warning(NAME, error.without_remedy(), remedy);
            }
            Err(error) => self.checks.failed(NAME, &error, ""),
        }
        Ok(record)
    }

    /// Checks that the checkpoint file's folder is writable.
    fn check_folder(&self) -> Result<()> {
        let path = &self.config.checkpoint.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|error| {
            let what = format!("cannot write into {}", folder.display());
            Error::new(ErrorKind::CheckpointUnavailable, what)
                .caused_by(std::io::Error::from(error))
        })
    }

    pub(super) async fn slot(
        &mut self,
        slot: Option<Slot>,
        checkpoint: Option<Checkpoint>,
        replication: &mut ReplicationClient,
    ) -> Result<()> {
        const NAME: &str = "slot";
        let name = &self.config.postgres.slot;
        if slot.is_none() && checkpoint.is_none() && self.config.postgres.create {
            self.checks.ok(NAME, format!("{name} does not exist; `factlib run` creates it"));
            return Ok(());
        }
        let there = slot.is_some();
        let judged =
            self.startup.decide_start(replication, slot, checkpoint, &*self.store, self.log).await;
        let start = match judged {
            Ok(start) => start.lsn,
            Err(error) => {
                let remedy = if error.is_transient() { "try again" } else { "run `factlib setup`" };
                self.checks.failed(NAME, &error, remedy);
                return Ok(());
            }
        };
        let row = self
            .client
            .query_opt(
                "SELECT s.active_pid, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'local')
                 FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
                 WHERE s.slot_name = $1 AND s.active",
                &[name],
            )
            .await
            .map_err(asking)?;
        match row.filter(|_| there) {
            None => self.checks.ok(NAME, format!("{name}: reading starts at {start}")),
            Some(row) => {
                let (pid, program, from): (i32, String, String) =
                    (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
                if program == self.startup.replication_info.application_name() {
                    self.checks.ok(NAME, format!("{name} is read by a running relay (pid {pid})"));
                    return Ok(());
                }
                let found = format!(
                    "{name} is read by {program} from {from} (pid {pid}); another instance would \
                     stand by until that ends"
                );
                let end = format!(
                    "nothing to do if that is your relay; otherwise SELECT pg_terminate_backend({pid})"
                );
                self.checks.warning(NAME, found, end);
            }
        }
        Ok(())
    }

    /// Looks for relays that send the same events through other slots.
    pub(super) async fn other_relays(&mut self) -> Result<()> {
        const NAME: &str = "other relays";
        let others = other_relays(self.client, self.config).await?;
        let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match others.is_empty() {
            true => self.checks.ok(NAME, "no other relay sends the same events"),
            false => self.checks.warning(
                NAME,
                format!("{others} also sends the same events, so each is sent twice"),
                ONE_SLOT,
            ),
        }
        Ok(())
    }
}
