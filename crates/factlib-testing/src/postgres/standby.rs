//! Physical standbys of a throwaway PostgreSQL: made, held back, promoted, pointed at another primary.
//!
//! A standby is a [`PostgresServer`] like its primary, with a data folder of its own. Each has a physical
//! slot on the primary, which has its name; so has its `application_name`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::{
    PostgresServer, STOP_LIMIT, StopMode, processes, quote_literal, refused, server_error,
    unavailable,
};
use crate::{Result, ports::free_port, process::ServerHome};

/// Settings of the primary that its standby does not take over: they name standbys of the primary.
const NOT_INHERITED: [&str; 2] = ["synchronous_standby_names", "synchronized_standby_slots"];

/// Since this version, `recovery.conf` is a part of `postgresql.conf`.
const SIGNAL_FILES_SINCE: u32 = 12;
/// Since this version, `primary_conninfo` takes effect at a reload.
const CONNINFO_RELOADS_SINCE: u32 = 13;
/// Since this version, a standby can keep copies of the primary's failover slots.
const SYNCHRONISES_SLOTS_SINCE: u32 = 17;

/// Copies the data folder `$1` of a running server to `data`, without what belongs to that server alone.
///
/// `cp` fails for a file that vanishes meanwhile, which a backup allows.
const COPY_DATA: &str = r#"
cp -a "$1" data
cd data && [ -f global/pg_control ] &&
rm -rf postmaster.pid postmaster.opts *.signal recovery.conf recovery.done pg_replslot/*"#;

/// Where a standby receives its WAL from.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    /// Its slot on the primary, and its `application_name`.
    name: String,
    primary_port: u16,
    paused: bool,
}

/// Settings of a physical standby to be made.
#[derive(Debug)]
pub struct StandbyBuilder<'a> {
    primary: &'a PostgresServer,
    name: String,
    port: Option<u16>,
    settings: Vec<(String, String)>,
}

impl PostgresServer {
    /// Returns a builder for a physical standby of this server. `name` is that of its slot here, which
    /// is made, and its `application_name`.
    ///
    /// ```no_run
    /// # async fn example() -> factlib_testing::Result<()> {
    /// use factlib_testing::PostgresServer;
    ///
    /// let primary = PostgresServer::builder().version(17).start().await?;
    /// let standby = primary.standby("standby_a").start().await?;
    /// primary.kill().await;
    /// standby.promote().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn standby(&self, name: impl Into<String>) -> StandbyBuilder<'_> {
        StandbyBuilder { primary: self, name: name.into(), port: None, settings: Vec::new() }
    }

    /// Kills the server and all its processes with SIGKILL. Unlike a stop, it sends nothing more to its
    /// standbys.
    pub async fn kill(&self) {
        let Some(child) = self.child().clone() else { return };
        let processes = processes::children_of(child.pid());
        child.signal(Signal::SIGKILL);
        child.exited().await;
        processes::kill_all(&processes).await;
    }

    /// Promotes this standby, and waits until it is a primary.
    pub async fn promote(&self) -> Result<()> {
        let file = self.home.write("data/promote", "")?;
        self.owner.map_or(Ok(()), |owner| owner.give(&file))?;
        if let Some(child) = &*self.child() {
            child.signal(Signal::SIGUSR1);
        }
        self.recovered().await?;
        *self.receipt() = None;
        Ok(())
    }

    /// Makes this standby follow another primary, where a slot is made for it. What it has must be a part
    /// of that primary's history.
    pub async fn follow(&self, primary: &PostgresServer) -> Result<()> {
        let Some(Receipt { name, paused, .. }) = self.receipt().clone() else {
            return Err(unavailable("this server is no standby"));
        };
        make_slot(&primary.connect("postgres").await?, &name).await?;
        self.receive(Receipt { name, primary_port: primary.port(), paused }).await
    }

    /// Makes this standby receive nothing more, so that it lags: what the primary commits from here on is
    /// lost when this standby is promoted.
    pub async fn pause_receipt(&self) -> Result<()> {
        self.set_paused(true).await?;
        let receivers = "SELECT count(*)::text FROM pg_stat_wal_receiver WHERE pid IS NOT NULL";
        let failure = "the standby does not stop to receive";
        self.answers(receivers, |count| count == "0", failure).await
    }

    /// Ends [`pause_receipt`](Self::pause_receipt).
    pub async fn resume_receipt(&self) -> Result<()> {
        self.set_paused(false).await
    }

    /// Pauses the replay of what this standby receives: its queries see no more of it. A promotion ends the
    /// pause, and loses nothing.
    pub async fn pause_replay(&self) -> Result<()> {
        self.execute("postgres", "SELECT pg_wal_replay_pause()").await
    }

    /// Ends [`pause_replay`](Self::pause_replay).
    pub async fn resume_replay(&self) -> Result<()> {
        self.execute("postgres", "SELECT pg_wal_replay_resume()").await
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    pub async fn caught_up_with(&self, primary: &PostgresServer) -> Result<()> {
        let end = primary.query_text("postgres", "SELECT pg_current_wal_lsn()::text").await?;
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{end}', false)::text");
        self.answers(&replayed, |answer| answer == "true", "the standby does not catch up").await
    }

    /// Copies a logical slot of `primary`, which may be running or dead, to this stopped server, as its
    /// state is on disk. This is how Patroni carries a slot over before PostgreSQL 17.
    ///
    /// The snapshots of logical decoding come along: without the one of the slot's `restart_lsn`, decoding
    /// skips transactions until it has built its own, which are then lost to the slot's reader.
    pub async fn copy_slot_from(&self, primary: &PostgresServer, slot: &str) -> Result<()> {
        let from = primary.home.path().join("data/pg_replslot").join(slot);
        let to = format!("data/pg_replslot/{slot}");
        self.copy(&from.display().to_string(), &to).await?;
        let snapshots = "data/pg_logical/snapshots";
        let from = primary.home.path().join(snapshots);
        self.copy(&from.display().to_string(), snapshots).await
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        let Some(receipt) = self.receipt().clone() else {
            return Err(unavailable("this server is no standby"));
        };
        self.receive(Receipt { paused, ..receipt }).await
    }

    /// Sets where this standby receives from, and makes it do so.
    async fn receive(&self, receipt: Receipt) -> Result<()> {
        let version = self.major_version();
        *self.receipt() = Some(receipt);
        if version < SIGNAL_FILES_SINCE {
            self.stop(StopMode::Fast).await;
        }
        self.write_receipt()?;
        match version {
            CONNINFO_RELOADS_SINCE.. => self.reload().await,
            SIGNAL_FILES_SINCE.. => self.restart(StopMode::Fast).await,
            _ => self.start_again().await,
        }
    }

    /// Writes the settings of a standby, into the file that its version reads.
    fn write_receipt(&self) -> Result<()> {
        let Some(receipt) = self.receipt().clone() else { return Ok(()) };
        let Receipt { name, primary_port, paused } = receipt;
        let conninfo = match paused {
            true => String::new(),
            false => format!(
                "host=127.0.0.1 port={primary_port} user=postgres dbname=postgres \
                 application_name={name}"
            ),
        };
        if self.major_version() >= SIGNAL_FILES_SINCE {
            self.set("primary_slot_name", name)?;
            return self.set("primary_conninfo", conninfo);
        }
        let text = format!(
            "standby_mode = on\nrecovery_target_timeline = latest\n\
             primary_conninfo = {}\nprimary_slot_name = {}\n",
            quote_literal(&conninfo),
            quote_literal(&name),
        );
        let path = self.home.write("data/recovery.conf", text)?;
        self.owner.map_or(Ok(()), |owner| owner.give(&path))
    }

    fn receipt(&self) -> MutexGuard<'_, Option<Receipt>> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the major version, which the data folder names.
    fn major_version(&self) -> u32 {
        let version = fs::read_to_string(self.home.path().join("data/PG_VERSION"));
        version.ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    }
}

impl StandbyBuilder<'_> {
    /// Sets a parameter of its `postgresql.conf`; all others are the primary's.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Sets the port on 127.0.0.1, such as that of a server which this one replaces.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Copies the primary's data while it runs, and starts the standby on it.
    pub async fn start(self) -> Result<PostgresServer> {
        let StandbyBuilder { primary, name, port, settings } = self;
        let client = primary.connect("postgres").await?;
        let version = primary.major_version();
        let home = ServerHome::create("pg", Signal::SIGQUIT)?;
        if let Some(owner) = primary.owner {
            owner.give(home.path())?;
        }
        let postgres = copy_programs(primary, &home).await?;
        make_slot(&client, &name).await?;
        copy_data(primary, &client, &home).await?;
        let port = port.map_or_else(free_port, Ok)?;
        let mut all = primary.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.retain(|name, _| !NOT_INHERITED.contains(&name.as_str()));
        let own = [
            ("port", port.to_string()),
            ("unix_socket_directories", home.path().display().to_string()),
            ("hot_standby", "on".into()),
            ("hot_standby_feedback", "on".into()),
            // With the default of 5 s, a standby waits that long after each broken connection.
            ("wal_retrieve_retry_interval", "200ms".into()),
        ];
        all.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if version >= SYNCHRONISES_SLOTS_SINCE {
            all.insert("sync_replication_slots".into(), "on".into());
        }
        all.extend(settings);
        let receipt = Receipt { name, primary_port: primary.port(), paused: false };
        let server = PostgresServer {
            postgres,
            owner: primary.owner,
            port,
            settings: Mutex::new(all),
            receipt: Mutex::new(Some(receipt)),
            child: Mutex::new(None),
            home,
        };
        server.write_settings()?;
        server.write_receipt()?;
        if version >= SIGNAL_FILES_SINCE {
            let signal = server.home.write("data/standby.signal", "")?;
            server.owner.map_or(Ok(()), |owner| owner.give(&signal))?;
        }
        server.start_again().await?;
        Ok(server)
    }
}

/// Returns the path of `postgres`; programs in the primary's own folder, which is removed with it, are
/// copied.
async fn copy_programs(primary: &PostgresServer, home: &ServerHome) -> Result<PathBuf> {
    let own = primary.home.path().join("server");
    let Ok(program) = primary.postgres.strip_prefix(&own) else {
        return Ok(primary.postgres.clone());
    };
    let (from, to) = (own.display().to_string(), "server".to_owned());
    // Nobody writes to them, so that links do; root, who made them, may link them.
    let copy = home.spawn("copy", Path::new("cp"), ["-al".into(), from, to], None)?;
    match copy.exited_or_killed(STOP_LIMIT).await.success() {
        true => Ok(home.path().join("server").join(program)),
        false => Err(server_error("PostgreSQL can't be copied", &copy)),
    }
}

/// Makes a physical slot, unless it exists, that keeps the WAL from now on.
async fn make_slot(primary: &Client, name: &str) -> Result<()> {
    let make = "SELECT pg_create_physical_replication_slot($1::text::name, true)
                WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
    primary.execute(make, &[&name]).await.map(drop).map_err(refused)
}

/// Copies a running primary's data by its interface for backups; not every installation has
/// `pg_basebackup`.
async fn copy_data(primary: &PostgresServer, client: &Client, home: &ServerHome) -> Result<()> {
    let (start, stop) = match primary.major_version() {
        15.. => ("pg_backup_start('standby', true)", "pg_backup_stop(false)"),
        _ => ("pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)"),
    };
    client.batch_execute(&format!("SELECT {start}")).await.map_err(refused)?;
    let from = primary.home.path().join("data").display().to_string();
    let args = ["-c", COPY_DATA, "sh", &from].map(str::to_owned);
    let copy = home.spawn("copy", Path::new("sh"), args, primary.owner)?;
    if !copy.exited_or_killed(STOP_LIMIT).await.success() {
        return Err(server_error("PostgreSQL's data can't be copied", &copy));
    }
    let stopped = client.query_one(&format!("SELECT labelfile FROM {stop}"), &[]).await;
    let label: String = stopped.and_then(|row| row.try_get(0)).map_err(refused)?;
    let path = home.write("data/backup_label", label)?;
    primary.owner.map_or(Ok(()), |owner| owner.give(&path))
}
