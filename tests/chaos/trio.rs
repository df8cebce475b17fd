//! A primary with two physical standbys, of which one is promoted again and again.

use std::time::Duration;

use factlib::{
    config::Config,
    testing::{KafkaServer, PostgresServer, StopMode, shared_kafka},
};
use tokio_postgres::config::TargetSessionAttrs;

use crate::{Ctx, cluster::Patience, support::Bed};

/// The standbys' names: of their slots on the primary, and their `application_name`.
pub const STANDBYS: [&str; 2] = ["alpha", "beta"];

/// How the relay's slot gets to the standby that is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotTransfer {
    /// Standbys keep a copy in step (PostgreSQL 17 on).
    Synchronised,
    /// Its state is copied from the dead primary's disk, as Patroni does before 17.
    Copied,
}

/// The servers, and a relay's place on them.
pub struct Trio {
    primary: PostgresServer,
    standbys: Vec<PostgresServer>,
    ports: [u16; 3],
    transfer: SlotTransfer,
    /// Names of `synchronized_standby_slots`; none to leave it empty.
    waits_for_standbys: bool,
    kafka: &'static KafkaServer,
    pub database: String,
    name: String,
    config: Config,
}

impl Trio {
    /// Starts servers of that version. With `waits_for_standbys`, the primary sends a logical slot only
    /// what both standbys have (`synchronized_standby_slots`, PostgreSQL 17 on).
    pub async fn start(
        ctx: &Ctx,
        version: u32,
        transfer: SlotTransfer,
        waits_for_standbys: bool,
    ) -> Self {
        let primary = PostgresServer::builder().version(version);
        // A slot that is copied needs WAL that no slot of the standby kept.
        let primary = match (transfer, version) {
            (SlotTransfer::Copied, 13..) => primary.setting("wal_keep_size", "512MB"),
            (SlotTransfer::Copied, _) => primary.setting("wal_keep_segments", "32"),
            _ => primary,
        };
        let primary = primary.start().await.expect("PostgreSQL starts");
        let kafka = shared_kafka().await.expect("Kafka starts");
        let Bed { database, name, config, .. } = ctx.on(&primary, kafka).await;
        let mut standbys = Vec::new();
        for name in STANDBYS {
            standbys.push(primary.standby(name).start().await.expect("a standby starts"));
        }
        let ports = [primary.port(), standbys[0].port(), standbys[1].port()];
        Trio {
            primary,
            standbys,
            ports,
            transfer,
            waits_for_standbys,
            kafka,
            database,
            name,
            config,
        }
    }

    /// The relay's place on the present primary.
    pub fn bed(&self) -> Bed<'_> {
        let Trio { primary, kafka, database, name, config, .. } = self;
        let (database, name, config) = (database.clone(), name.clone(), config.clone());
        Bed { postgres: primary, kafka, database, name, config }
    }

    /// A connection string with all three hosts.
    pub fn url(&self) -> String {
        let hosts = self.ports.map(|port| format!("127.0.0.1:{port}")).join(",");
        format!("postgresql://postgres@{hosts}/{}", self.database)
    }

    /// How to open sessions on whichever host is the primary.
    pub fn sessions(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        for port in self.ports {
            config.host("127.0.0.1").port(port);
        }
        config.user("postgres").dbname(&self.database);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.connect_timeout(Duration::from_secs(2));
        config
    }

    pub fn standby(&self, index: usize) -> &PostgresServer {
        &self.standbys[index]
    }

    pub async fn kill_primary(&self) {
        self.primary.kill().await;
    }

    /// Waits until both standbys can take over: they have the relay's slot, and all that was sent.
    pub async fn in_step(&self) {
        if self.transfer == SlotTransfer::Synchronised {
            let synced = format!(
                "SELECT coalesce(bool_and(synced AND NOT temporary), false)::text
                 FROM pg_replication_slots WHERE slot_name = '{}'",
                self.name
            );
            for standby in &self.standbys {
                let patience = Patience::new();
                while standby.query_text("postgres", &synced).await.expect("slots") != "true" {
                    patience.pause("the slot is synchronised").await;
                }
            }
        }
        if self.waits_for_standbys {
            let names = STANDBYS.join(",");
            self.primary.set("synchronized_standby_slots", names).expect("set");
            self.primary.reload().await.expect("reloaded");
        }
        for standby in &self.standbys {
            standby.caught_up_with(&self.primary).await.expect("it catches up");
        }
    }

    /// Promotes one standby of the dead primary; the other two servers are gone.
    pub async fn promote(&mut self, index: usize) {
        let promoted = self.standbys.swap_remove(index);
        self.standbys.clear();
        if self.transfer == SlotTransfer::Copied {
            promoted.stop(StopMode::Fast).await;
            promoted.copy_slot_from(&self.primary, &self.name).await.expect("copied");
            promoted.start_again().await.expect("it starts");
        }
        promoted.promote().await.expect("promoted");
        self.primary = promoted;
    }

    /// Makes two standbys of the present primary, on the ports that are free.
    pub async fn rebuild(&mut self) {
        let ports = self.ports.into_iter().filter(|port| *port != self.primary.port());
        for (name, port) in STANDBYS.into_iter().zip(ports) {
            let standby = self.primary.standby(name).port(port).start();
            self.standbys.push(standby.await.expect("a standby starts"));
        }
    }

    /// Waits until the relay reads from the present primary.
    pub async fn is_read(&self) {
        let bed = self.bed();
        let patience = Patience::new();
        while !bed.slot().await.1 {
            patience.pause("the relay reads from the new primary").await;
        }
    }

    /// The position that a standby has in its copy of the checkpoint table.
    pub async fn saved_on(&self, index: usize) -> Option<factlib::Lsn> {
        let query = format!(
            "SELECT coalesce(max(lsn), '0/0')::text FROM factlib.checkpoints WHERE slot = '{}'",
            self.name
        );
        let text = self.standbys[index].query_text(&self.database, &query).await.ok()?;
        text.parse().ok()
    }
}
