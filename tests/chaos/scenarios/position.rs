//! Checkpoint and slot contradict each other: the start is refused, the refusal
//! names a command, and the command works as it is written.

use std::{fs, path::PathBuf};

use factlib::testing::{PostgresServer, Proxy, shared_kafka};
use serde_json::{Value, json};

use crate::{
    Ctx, Launch, Outcome,
    support::{Bed, History, Workload},
};

/// Three loads: what comes before the mishap, what it costs, what comes after.
struct Phases<'a> {
    bed: &'a Bed<'a>,
    workload: Workload,
    history: History,
}

impl<'a> Phases<'a> {
    fn new(ctx: &Ctx, bed: &'a Bed<'a>) -> Self {
        let workload = Workload { facts: ctx.pick(300, 5_000), ..ctx.workload(bed) };
        Phases { bed, workload, history: History::default() }
    }

    /// Emits facts that have to arrive.
    async fn emit(&mut self) {
        let history = self.lose().await;
        self.history.merge(history);
    }

    /// Emits facts that the mishap costs: were one to come, it would be a phantom.
    async fn lose(&mut self) -> History {
        self.workload.emitter += 1;
        self.workload.emit(&mut self.bed.client().await).await
    }

    /// Emits, and has the relay deliver that and stop in order.
    async fn delivered(&mut self, launch: &Launch) {
        let relay = launch.start().await;
        self.emit().await;
        relay.settled(self.bed).await;
        relay.stop().await;
    }

    /// The start is refused for this reason; the remedy is carried out, to the letter.
    async fn refused_and_remedied(&self, launch: &Launch, reason: &str) -> String {
        let (code, last) = launch.spawn().ended().await;
        assert_eq!(code, Some(5), "{last}");
        assert!(last.contains(reason), "{last}");
        let command = last.split('`').nth(1).expect("a command between backticks");
        let words: Vec<_> = command.split(' ').collect();
        assert_eq!(words[0], "factlib", "{last}");
        launch.command(&words[1..]).await;
        last
    }

    /// What comes after arrives, and nothing that was lost does.
    async fn ended(mut self, launch: &Launch, note: String) -> Outcome {
        let relay = launch.start().await;
        self.emit().await;
        let report = relay.finish(self.bed, &self.history).await;
        Outcome::exact(report).note(note)
    }
}

async fn statement(bed: &Bed<'_>, statement: &str) {
    bed.client().await.execute(statement, &[&bed.name]).await.expect("the slot is dealt with");
}

/// Somebody dropped the slot.
pub async fn slot_dropped(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let (launch, mut phases) = (ctx.launch(&bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    bed.drop_slot().await;
    phases.lose().await;
    let note = phases.refused_and_remedied(&launch, "is gone").await;
    phases.ended(&launch, note).await
}

/// Somebody dropped the slot and made a new one.
pub async fn slot_recreated(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let (launch, mut phases) = (ctx.launch(&bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    bed.drop_slot().await;
    phases.lose().await;
    statement(&bed, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')").await;
    // The new slot has these.
    phases.emit().await;
    let note = phases.refused_and_remedied(&launch, "recreated or advanced").await;
    phases.ended(&launch, note).await
}

/// Somebody advanced the slot past facts.
pub async fn slot_advanced(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let (launch, mut phases) = (ctx.launch(&bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    phases.lose().await;
    statement(&bed, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())").await;
    phases.emit().await;
    let note = phases.refused_and_remedied(&launch, "recreated or advanced").await;
    phases.ended(&launch, note).await
}

/// The server gave the slot up, because it held too much WAL.
pub async fn slot_invalidated(ctx: &mut Ctx) -> Outcome {
    let postgres = PostgresServer::builder()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB")
        .start()
        .await
        .expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let (launch, mut phases) = (ctx.launch(&bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    phases.lose().await;
    let client = bed.client().await;
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1";
    for _ in 0..100 {
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS app (note text);
                 INSERT INTO app SELECT repeat('x', 1000) FROM generate_series(1, 1000);",
            )
            .await
            .expect("foreign rows");
        client.batch_execute("SELECT pg_switch_wal()").await.expect("a new segment");
        client.batch_execute("CHECKPOINT").await.expect("a checkpoint");
        if client.query_one(lost, &[&bed.name]).await.expect("the slot").get(0) {
            break;
        }
    }
    let note = phases.refused_and_remedied(&launch, "was invalidated").await;
    phases.ended(&launch, note).await
}

/// The checkpoint of one cluster meets another, behind the same address.
pub async fn another_cluster(ctx: &mut Ctx) -> Outcome {
    let (first, second) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let (first, second) = (first.expect("PostgreSQL starts"), second.expect("PostgreSQL starts"));
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = ctx.on(&first, kafka).await;
    let create = format!("CREATE DATABASE \"{}\"", bed.database);
    second.execute("postgres", &create).await.expect("the same database");
    let proxy = Proxy::start(([127, 0, 0, 1], first.port()).into()).await.expect("a proxy");
    let store = Store::new();
    let url = format!("postgresql://postgres@{}/{}", proxy.address(), bed.database);
    let launch = store.launch(ctx, &bed).set("postgres.url", url);
    let mut phases = Phases::new(ctx, &bed);
    phases.delivered(&launch).await;
    let relay = launch.start().await;
    // The second takes the place of the first, under the running relay.
    proxy.retarget(([127, 0, 0, 1], second.port()).into());
    proxy.reset_all();
    let (code, last) = relay.ended().await;
    assert_eq!(code, Some(5), "{last}");
    // They stay in the first cluster, which nobody reads any more.
    phases.lose().await;
    let report = bed.check(&phases.history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let (config, name) = (bed.config.clone(), bed.name.clone());
    let bed = Bed { postgres: &second, kafka, database: bed.database.clone(), name, config };
    let phases = Phases { bed: &bed, workload: phases.workload, history: phases.history };
    let note = phases.refused_and_remedied(&launch, "belongs to the cluster").await;
    phases.ended(&launch, note).await
}

/// The file store, in a folder of its own.
struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Store { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("position")
    }

    fn launch(&self, ctx: &Ctx, bed: &Bed<'_>) -> Launch {
        ctx.launch(bed)
            .set("checkpoint.store", "file")
            .set("checkpoint.path", self.path().display().to_string())
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read(self.path()).expect("a checkpoint");
        let mut value = serde_json::from_slice(&text).expect("JSON");
        change(&mut value);
        fs::write(self.path(), value.to_string()).expect("written");
    }
}

/// An old copy of the checkpoint was put back.
pub async fn checkpoint_older_than_slot(ctx: &mut Ctx) -> Outcome {
    let (bed, store) = (ctx.shared().await, Store::new());
    let (launch, mut phases) = (store.launch(ctx, &bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    let old = fs::read(store.path()).expect("a checkpoint");
    phases.delivered(&launch).await;
    fs::write(store.path(), old).expect("written");
    let note = phases.refused_and_remedied(&launch, "recreated or advanced").await;
    phases.ended(&launch, note).await
}

/// The server was restored from a backup that is older than the checkpoint.
pub async fn checkpoint_newer_than_wal(ctx: &mut Ctx) -> Outcome {
    let (bed, store) = (ctx.shared().await, Store::new());
    let (launch, mut phases) = (store.launch(ctx, &bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    store.change(|checkpoint| checkpoint["lsn"] = json!("FFFF/0"));
    let note = phases.refused_and_remedied(&launch, "restored from a backup").await;
    phases.ended(&launch, note).await
}

/// The file can't be used, and says so; without it the slot's own position counts.
async fn unusable(ctx: &mut Ctx, break_it: impl FnOnce(&Store)) -> Outcome {
    let (bed, store) = (ctx.shared().await, Store::new());
    let (launch, mut phases) = (store.launch(ctx, &bed), Phases::new(ctx, &bed));
    phases.delivered(&launch).await;
    break_it(&store);
    let (code, last) = launch.spawn().ended().await;
    assert_eq!(code, Some(6), "{last}");
    assert!(last.contains("or remove it so that the slot's own position counts"), "{last}");
    fs::remove_file(store.path()).expect("removed");
    phases.ended(&launch, last).await
}

/// The file of another slot.
pub async fn checkpoint_of_another_slot(ctx: &mut Ctx) -> Outcome {
    unusable(ctx, |store| store.change(|checkpoint| checkpoint["slot"] = json!("other"))).await
}

/// A file that is cut off.
pub async fn checkpoint_corrupt(ctx: &mut Ctx) -> Outcome {
    unusable(ctx, |store| fs::write(store.path(), b"{\"slot\":\"sh").expect("written")).await
}
