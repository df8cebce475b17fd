//! Checks the server at a start, creates what is missing, waits for a slot that another instance reads,
//! and decides where reading starts.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use factlib_postgres::{Encoding, ReplicationClient, Server, Slot, SqlSession, WaitsFor};
use slog::{Logger, info, warn};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_postgres::Client;

use super::{
    MoveRecord, ONE_SLOT, Start, Startup, failover,
    identity::check_cluster_change,
    log_findings, other_relays,
    position::{check_owner, not_ready},
    standby,
};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::CheckpointStore,
    config::WaitForVisibility,
    outbox::{TableFacts, publication::RefuseOn},
    postgres::{
        commit_report::{CommitRules, has_synchronous_standbys},
        postgres_error, read_encoding, server,
        slot_reader::{END_LIMIT, SlotReader},
        sql_session,
    },
};

/// Pause between two looks at a slot that another instance reads.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The same while another instance of the fleet is about to let the slot go.
const HANDOVER_PAUSE: Duration = Duration::from_millis(50);

/// After so long, a standby checks all of the server again.
const CHECKED_EVERY: Duration = Duration::from_secs(30);

/// How a start waits for a slot that another instance reads.
#[derive(Clone, Copy)]
pub(crate) struct Standby<'a> {
    /// While false, another instance of the fleet runs the pipeline. It may be about to read the slot,
    /// so the slot is taken only after it was seen in use.
    pub may_take: &'a watch::Receiver<bool>,
    /// Called with the error that tells who reads it.
    pub on_standby: &'a (dyn Fn(&Error) + Sync),
}

/// Options of a start.
#[derive(Clone, Copy, Default)]
pub(super) struct StartOptions {
    /// Create what is missing.
    pub create: bool,
    /// Ignore the checkpoint, and replace a lost slot by a new one.
    pub accept: bool,
    /// Cluster that this process has read so far.
    pub cluster: Option<u64>,
    /// A person runs this: refuse on any finding about the publication.
    pub attended: bool,
}

/// What a start has found out about the server; a standby waits with it.
struct Checked {
    server: Server,
    /// System identifier.
    cluster: u64,
    /// A move of the relay from or to another server.
    moving: Option<MoveRecord>,
    replication: ReplicationClient,
    publication_created: bool,
    encoding: Encoding,
    tables: TableFacts,
    binary: bool,
    commit_rules: CommitRules,
}

/// True if the relay moves from the cluster `other`. A physical copy has the same identifier.
fn is_moved_from(moving: &Option<MoveRecord>, cluster: u64, other: u64) -> bool {
    other != cluster && moving.as_ref().is_some_and(|record| record.is_with(other))
}

impl Startup {
    /// Checks the server, creates what is missing if configured, and decides where reading starts.
    ///
    /// An attempt to connect is limited by `limit`. With `cluster`, another cluster is refused unless
    /// a checkpoint belongs to it. Creating the slot waits for running transactions; `on_wait` is
    /// called with what it waits for. With `standby`, a slot that another instance reads is waited for.
    pub async fn prepare(
        &self,
        store: &dyn CheckpointStore,
        cluster: Option<u64>,
        limit: Duration,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        standby: Option<Standby<'_>>,
        log: &Logger,
    ) -> Result<Start> {
        let client = sql_session(&self.info, limit, log).await?;
        let create = self.config.postgres.create;
        let options = StartOptions { create, accept: false, cluster, attended: false };
        let begun = Instant::now();
        let mut checked = self.check_server(&client, store, options, limit, log).await?;
        let mut start = self.position(&client, &mut checked, store, options, on_wait, log).await?;
        // Once: it is not a failure, and lasts as long as both run.
        if !self.asked_for_others.swap(true, Relaxed) {
            self.warn_of_others(&client, log).await;
        }
        let in_use = match self.ensure_slot_is_free(&client, log).await {
            Ok(()) if standby.is_none_or(|standby| *standby.may_take.borrow()) => None,
            Ok(()) => {
                let slot = &self.config.postgres.slot;
                let what = format!("slot {slot} is about to be read by another instance");
                Some((false, Error::new(ErrorKind::SlotInUse, what)))
            }
            Err(error) => Some((true, error)),
        };
        if let Some((is_read, error)) = in_use {
            let Some(standby) = standby.filter(|_| error.kind() == ErrorKind::SlotInUse) else {
                return Err(error);
            };
            (standby.on_standby)(&error);
            let deadline = begun + CHECKED_EVERY;
            self.slot_is_free(&client, standby, is_read, deadline, error).await?;
            // The other instance has moved on meanwhile.
            checked.moving = self.move_record(&client, checked.cluster, options).await?;
            start = self.position(&client, &mut checked, store, options, on_wait, log).await?;
        }
        // Now: while the slot is read, the server would wait for its end.
        self.enable_failover(&client, limit, log).await?;
        Ok(start)
    }

    pub(super) async fn prepare_with(
        &self,
        client: &SqlSession,
        store: &dyn CheckpointStore,
        options: StartOptions,
        limit: Duration,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Start> {
        let mut checked = self.check_server(client, store, options, limit, log).await?;
        self.position(client, &mut checked, store, options, on_wait, log).await
    }

    /// Checks the server, and creates all but the slot.
    async fn check_server(
        &self,
        client: &SqlSession,
        store: &dyn CheckpointStore,
        options: StartOptions,
        limit: Duration,
        log: &Logger,
    ) -> Result<Checked> {
        let StartOptions { create, cluster, attended, .. } = options;
        let settings = &self.config.postgres;
        let server = self.answered(client, "what it is", Server::read(client)).await?;
        let tables = self.config.outbox_tables();
        server::check(&server, &self.config)?;
        let rules = self.commit_rules(client);
        let commit_rules = self.answered(client, "about its standbys", rules).await?;
        let encoding =
            self.answered(client, "in which encoding it is", read_encoding(client, log)).await?;
        let mut replication = self.replication(limit, log).await?;
        let system = replication.identify_system().await?;
        let moving = self.move_record(client, system.system_id, options).await?;
        // First, so that nothing is created in a cluster that may be the wrong one.
        if let Some(cluster) = cluster.filter(|cluster| *cluster != system.system_id)
            && !is_moved_from(&moving, system.system_id, cluster)
        {
            check_cluster_change(store, &settings.slot, cluster, &system).await?;
        }
        let reading = Slot::read(client, &settings.slot);
        if let Some(slot) = self.answered(client, "for the slot", reading).await? {
            check_owner(&settings.slot, self.info.dbname(), &slot)?;
            self.check_ready(client, &server, &slot).await?;
        }
        let refuse = match cluster {
            _ if attended => RefuseOn::AnyFinding,
            Some(_) => RefuseOn::Nothing,
            // An unreadable store is reported further below.
            None if tables.len() > 1 && matches!(store.load(&settings.slot).await, Ok(Some(_))) => {
                RefuseOn::EveryTable
            }
            None => RefuseOn::AnyFinding,
        };
        let (publication_created, findings) = match server.is_in_recovery() {
            false => {
                let publishing = self.publication(client, create, refuse, log);
                self.answered(client, "for the publication", publishing).await?
            }
            true => standby::publication(self, client, create, refuse, limit, log).await?,
        };
        if attended {
            // In a pipeline, the watcher logs them.
            log_findings(&findings, log);
        }
        if create {
            store.create().await?;
        }
        let facts = TableFacts::read(client, &tables);
        let facts = self.answered(client, "for the outbox tables", facts).await?;
        // Texts in binary would not be converted.
        let binary = matches!(encoding, Encoding::AsIs)
            && facts.known_in_binary
            && !self.needs_text.load(Relaxed);
        Ok(Checked {
            server,
            cluster: system.system_id,
            moving,
            replication,
            publication_created,
            encoding,
            tables: facts,
            binary,
            commit_rules,
        })
    }

    /// Reads where a move of the relay to another server stands, which may forbid a start.
    async fn move_record(
        &self,
        client: &SqlSession,
        cluster: u64,
        options: StartOptions,
    ) -> Result<Option<MoveRecord>> {
        let reading = MoveRecord::read(client, cluster, &self.config.postgres.slot);
        let record = self.answered(client, "about a move", reading).await?;
        if let Some(record) = record.as_ref().filter(|_| !options.attended) {
            record.check_start()?;
        }
        Ok(record)
    }

    /// Creates the slot if it is missing, and decides where reading starts.
    async fn position(
        &self,
        client: &SqlSession,
        checked: &mut Checked,
        store: &dyn CheckpointStore,
        options: StartOptions,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Start> {
        let StartOptions { create, accept, attended, .. } = options;
        let settings = &self.config.postgres;
        let Checked { server, cluster, moving, replication, publication_created, .. } = checked;
        // In this order, because another instance may be moving them right now: first the WAL, then
        // the checkpoint, then the slot.
        let reading = Slot::read(client, &settings.slot);
        let mut slot = self.answered(client, "for the slot", reading).await?;
        if let Some(slot) = &slot {
            self.check_ready(client, server, slot).await?;
        }
        let checkpoint = match accept {
            true => None,
            // A position of the other server means nothing here: this slot has waited since the move
            // was prepared.
            false => {
                let saved = store.load(&settings.slot).await?;
                saved.filter(|saved| !is_moved_from(moving, *cluster, saved.system_id))
            }
        };
        let rules = self.start_rules(replication, checkpoint.as_ref(), store, log).await?;
        if std::mem::take(publication_created)
            && slot.is_some()
            && !server.applies_publications_retroactively()
        {
            warn!(log, "the slot is older than the publication: a change to a table in between \
                stops the reading"; "slot" => &settings.slot,
                "publication" => &settings.publication,
                "remedy" => "if that happens, its error says how to start from a new slot");
        }
        if accept && let Some(mut lost) = slot.take_if(|slot| slot.lost.is_some()) {
            // Don't drop a slot of another plugin or database.
            lost.lost = None;
            rules.decide(Some(lost), None)?;
            Slot::drop(client, &settings.slot).await?;
        }
        let slot = match (slot, &*moving) {
            (None, Some(record)) if !attended => return Err(record.slot_is_gone()),
            (None, _) if create && checkpoint.is_none() => {
                Some(self.create_slot(client, server, on_wait, log).await?)
            }
            (slot, _) => slot,
        };
        let wal_end = rules.system.wal_end;
        let saved = checkpoint.as_ref().map(|saved| saved.lsn);
        let from = rules.decide(slot, checkpoint)?;
        if let Some(saved) = saved.filter(|saved| *saved < from.lsn) {
            info!(log, "the slot came over further than the checkpoint: reading starts at the slot";
                "slot" => %from.lsn, "checkpoint" => %saved, "timeline" => from.timeline);
        }
        let status_interval = server::status_interval(server, settings);
        Ok(Start {
            from,
            partial: None,
            wal_end,
            status_interval,
            encoding: checked.encoding.clone(),
            tables: checked.tables.clone(),
            binary: checked.binary,
            commit_rules: checked.commit_rules.clone(),
        })
    }

    /// Refuses a slot that another process reads; ends a left-over reader of this relay.
    async fn ensure_slot_is_free(&self, client: &SqlSession, log: &Logger) -> Result<()> {
        // Query it, because an attempt to read would log an error on the server each time.
        let slot = &self.config.postgres.slot;
        let reading = SlotReader::of(client, slot);
        match self.answered(client, "who reads the slot", reading).await? {
            None => Ok(()),
            Some(reader) if self.own_backend.is(&reader.backend) => {
                // The limit includes the time that the process takes to end.
                let limit = self.config.postgres.connect_timeout + END_LIMIT;
                let ending = reader.end(client, slot, log);
                let ended = client.within(limit, ending).await;
                ended.unwrap_or_else(|given_up| Err(reader.in_use(slot).caused_by(given_up)))
            }
            Some(reader) => Err(reader.in_use(slot)),
        }
    }

    /// Waits until nobody reads the slot any more, in the session that has just prepared the start: so the
    /// start goes fast when the slot is free.
    ///
    /// # Errors
    /// `in_use` if it is still read at `deadline`.
    async fn slot_is_free(
        &self,
        client: &SqlSession,
        standby: Standby<'_>,
        mut was_read: bool,
        deadline: Instant,
        in_use: Error,
    ) -> Result<()> {
        // Without the reader's session: the list of all sessions costs the server more.
        let query = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let slot = &self.config.postgres.slot;
        let failed = |error| postgres_error(format!("cannot look up slot {slot}"), error);
        let query = client.prepare(query).await.map_err(failed)?;
        loop {
            let looking = async { client.query_opt(&query, &[slot]).await.map_err(failed) };
            match self.answered(client, "whether the slot is free", looking).await? {
                Some(_) => was_read = true,
                None if was_read || *standby.may_take.borrow() => return Ok(()),
                None => {}
            }
            if Instant::now() >= deadline {
                return Err(in_use);
            }
            sleep(if *standby.may_take.borrow() { LOOK_PAUSE } else { HANDOVER_PAUSE }).await;
        }
    }

    /// Warns of relays that send the same events.
    async fn warn_of_others(&self, client: &SqlSession, log: &Logger) {
        let asking = other_relays(client, &self.config);
        match self.answered(client, "for other relays", asking).await {
            Ok(others) => {
                for other in others {
                    warn!(log, "another relay sends the same events, so each is sent twice";
                        "slot" => &other.slot, "pid" => other.pid, "from" => &other.from,
                        "remedy" => ONE_SLOT);
                }
            }
            Err(error) => warn!(log, "other relays are not looked for"; "error" => %error),
        }
    }

    /// Creates the slot, which waits for running transactions that write.
    pub async fn create_slot(
        &self,
        client: &SqlSession,
        server: &Server,
        on_wait: &(dyn Fn(&WaitsFor) + Sync),
        log: &Logger,
    ) -> Result<Slot> {
        let failover = self.config.postgres.failover
            && server.has_failover_slots()
            && !server.is_in_recovery();
        let name = &self.config.postgres.slot;
        info!(log, "creating the slot, which waits for running transactions to end";
            "slot" => name);
        let creating = Slot::create(client, name, self.info.dbname(), failover);
        self.creating.store(true, Relaxed);
        let created = client.run_watched(creating, &self.stop, |waits_for| {
            warn!(log, "creating the slot waits for a transaction"; "slot" => name,
                "waits_for" => %waits_for, "remedy" => waits_for.remedy());
            on_wait(waits_for);
        });
        let created = match server.is_in_recovery() {
            false => created.await,
            true => tokio::select! {
                created = created => created,
                never = standby::log_snapshots(self, on_wait, log) => match never {},
            },
        };
        self.creating.store(false, Relaxed);
        let created = created.ok_or_else(|| {
            let what = format!("creating slot {name} was cancelled because the relay stops");
            Error::new(ErrorKind::PostgresUnavailable, what)
        })?;
        Ok(created?)
    }

    /// Refuses a slot that can't be read yet: it is still being created and has no position, or it is
    /// a standby's copy.
    async fn check_ready(&self, client: &SqlSession, server: &Server, slot: &Slot) -> Result<()> {
        failover::check_is_no_copy(&self.config.postgres.slot, server, slot)?;
        if slot.is_ready() {
            return Ok(());
        }
        let name = &self.config.postgres.slot;
        let Some(pid) = slot.active_pid else { return Err(not_ready(slot, name)) };
        let asking = async {
            let answer = WaitsFor::ask(client, pid).await;
            answer.map_err(|error| postgres_error(format!("cannot look up slot {name}"), error))
        };
        let waits_for = self.answered(client, "what the slot waits for", asking).await?;
        let error = not_ready(slot, name);
        Err(match waits_for {
            Some(waits_for) => {
                error.caused_by(format!("it waits for {waits_for}")).remedy(waits_for.remedy())
            }
            None => error,
        })
    }

    /// Decides what has to be true of a transaction before its events are sent.
    async fn commit_rules(&self, client: &Client) -> Result<CommitRules> {
        let delivery = &self.config.delivery;
        let visible = match delivery.wait_for_visibility {
            WaitForVisibility::Always => true,
            WaitForVisibility::Never => false,
            WaitForVisibility::Auto => has_synchronous_standbys(client).await?,
        };
        let rules = CommitRules { standbys: delivery.wait_for_standbys.clone(), visible };
        rules.check(client, self.info.user()).await?;
        Ok(rules)
    }
}
