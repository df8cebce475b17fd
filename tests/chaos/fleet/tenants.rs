//! Many databases of one server, made from one, whose facts go to the same topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use factlib::Lsn;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    Ctx, Launch,
    cluster::Patience,
    support::{Bed, Workload, bed::LIMIT, emitters::Emitters},
};

/// Silence after which the server ends the connection of an instance that stands still.
const WAL_SENDER_TIMEOUT: &str = "8s";

pub struct Tenants<'a> {
    /// The template: set up as each of them is.
    pub bed: Bed<'a>,
    /// What all their names begin with.
    prefix: String,
    /// By number, also those that are gone.
    pub names: Vec<String>,
    gone: Vec<String>,
}

impl<'a> Tenants<'a> {
    pub async fn create(bed: Bed<'a>, launch: &Launch, count: usize) -> Self {
        launch.clone().set("postgres.slot", &bed.name).command(&["setup"]).await;
        bed.drop_slot().await;
        // For its table.
        let nothing = Workload::new(&bed.name, 0);
        Emitters::start(&bed, &nothing, 1, 1).await.finished().await;
        let (_, unique) = bed.name.split_at(bed.name.len() - 8);
        let prefix = format!("t{unique}_");
        let mut tenants = Tenants { bed, prefix, names: Vec::new(), gone: Vec::new() };
        for _ in 0..count {
            tenants.create_one().await;
        }
        tenants
    }

    /// One more; returns its number.
    pub async fn create_one(&mut self) -> usize {
        let (number, template) = (self.names.len(), &self.bed.database);
        let name = format!("{}{number:03}", self.prefix);
        let client = self.client().await;
        for statement in [
            format!("CREATE DATABASE {name} TEMPLATE {template} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {name} SET wal_sender_timeout = '{WAL_SENDER_TIMEOUT}'"),
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
        ] {
            client.execute(&statement, &[]).await.expect("a tenant");
        }
        self.names.push(name);
        number
    }

    /// Ends the pipeline of one as docs/fleet.md says, and drops it.
    pub async fn drop_one(&mut self, number: usize) {
        let name = &self.names[number];
        let statement = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        self.bed.postgres.execute("postgres", &statement).await.expect("it takes no connections");
        let (drop, patience) = (format!("DROP DATABASE {name}"), Patience::new());
        while self.bed.postgres.execute("postgres", &drop).await.is_err() {
            patience.pause("nobody uses the database").await;
        }
        self.gone.push(name.clone());
    }

    /// `fleet.databases`.
    pub fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// The names of those that are there.
    pub fn present(&self) -> impl Iterator<Item = String> {
        self.names.iter().filter(|name| !self.gone.contains(name)).cloned()
    }

    /// One emitter in the background, whose aggregates are the tenant's own.
    pub async fn load(&self, ctx: &Ctx, number: usize, rate: f64) -> Emitters {
        let mut sessions = self.bed.sessions();
        sessions.dbname(&self.names[number]);
        let workload = Workload {
            emitter: number,
            aggregates: 6,
            transaction: 1..=1,
            ..ctx.workload(&self.bed)
        };
        Emitters::start_on(sessions, &workload, 1, rate).await
    }

    /// Waits until the slot of a tenant is read.
    pub async fn is_read(&self, number: usize) {
        let client = self.client().await;
        let query =
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE database = $1 AND active)";
        let patience = Patience::new();
        loop {
            let row = client.query_one(query, &[&self.names[number]]).await.expect("an answer");
            if row.get(0) {
                return;
            }
            patience.pause("the slot of a new tenant is read").await;
        }
    }

    /// The confirmed position of each, by number.
    pub async fn positions(&self) -> BTreeMap<usize, Lsn> {
        let query = "SELECT database::text, confirmed_flush_lsn::text FROM pg_replication_slots \
                     WHERE starts_with(database::text, $1) AND confirmed_flush_lsn IS NOT NULL";
        let rows = self.client().await.query(query, &[&self.prefix]).await.expect("slots");
        let number = |name: &str| self.names.iter().position(|other| other == name);
        let row = |row: &tokio_postgres::Row| {
            let lsn = row.get::<_, &str>(1).parse().expect("a position");
            Some((number(row.get(0))?, lsn))
        };
        rows.iter().filter_map(row).collect()
    }

    /// The same of these.
    pub async fn positions_of(&self, names: &BTreeSet<String>) -> BTreeMap<usize, Lsn> {
        let mut positions = self.positions().await;
        positions.retain(|number, _| names.contains(&self.names[*number]));
        positions
    }

    /// The least that is confirmed of any.
    pub async fn confirmed(&self) -> Lsn {
        *self.positions().await.values().min().expect("slots")
    }

    /// Waits until all that was committed so far is confirmed.
    pub async fn settled(&self) {
        let end = self.bed.wal_end().await;
        let waiting = async {
            while self.positions().await.values().any(|position| *position < end) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        let settled = tokio::time::timeout(LIMIT, waiting).await;
        settled.expect("all that was committed is confirmed");
    }

    /// Gives the slots up, so that the server can forget the WAL.
    pub async fn drop_slots(&self) {
        let query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                     WHERE starts_with(database::text, $1)";
        self.client().await.query(query, &[&self.prefix]).await.expect("the slots are dropped");
    }

    async fn client(&self) -> Client {
        self.bed.postgres.connect("postgres").await.expect("a session")
    }
}
