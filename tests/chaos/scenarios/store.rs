//! The checkpoint store is out of reach for a while: facts flow, nothing is
//! confirmed, and afterwards all is as it was.

use std::{fs, time::Duration};

use tokio::time::sleep;

use crate::{Ctx, Launch, Outcome, Relay, disk::SmallDisk, support::Bed};

/// Under load: takes the store away, and gives it back.
async fn away(
    ctx: &mut Ctx,
    bed: &Bed<'_>,
    launch: &Launch,
    take: impl AsyncFnOnce(&Relay) -> (),
    give: impl AsyncFnOnce() -> (),
) -> Outcome {
    let relay: Relay = launch.start().await;
    let emitters = ctx.load(bed, 500).await;
    emitters.emitted(500).await;
    take(&relay).await;
    // A save may be under way; the next can't be.
    sleep(Duration::from_millis(500)).await;
    let confirmed = bed.slot().await.0;
    let before = emitters.count();
    sleep(ctx.time(Duration::from_secs(3))).await;
    assert_eq!(bed.slot().await.0, confirmed, "confirmed before it was saved");
    assert!(emitters.count() > before && relay.is_running());
    give().await;
    relay.says("checkpoint store is back").await;
    let history = emitters.stop().await;
    let report = relay.finish(bed, &history).await;
    Outcome::exact(report)
}

/// The table has another name.
pub async fn store_table_missing(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let (launch, client) = (ctx.launch(&bed), bed.client().await);
    let rename = async |statement: &str| client.batch_execute(statement).await.expect("renamed");
    away(
        ctx,
        &bed,
        &launch,
        async |_| rename("ALTER TABLE factlib.checkpoints RENAME TO elsewhere").await,
        async || rename("ALTER TABLE factlib.elsewhere RENAME TO checkpoints").await,
    )
    .await
}

/// The table is locked for longer than a statement may take.
pub async fn store_table_locked(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed).set("postgres.connect_timeout", "1s");
    let client = bed.client().await;
    let run = async |statement: &str| client.batch_execute(statement).await.expect("done");
    away(
        ctx,
        &bed,
        &launch,
        async |_| run("BEGIN; LOCK TABLE factlib.checkpoints IN ACCESS EXCLUSIVE MODE").await,
        async || run("COMMIT").await,
    )
    .await
}

/// The file's folder is gone, as when a volume is not mounted.
pub async fn store_folder_missing(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (here, elsewhere) = (folder.path().join("here"), folder.path().join("elsewhere"));
    fs::create_dir(&here).expect("a folder");
    let launch = ctx
        .launch(&bed)
        .set("checkpoint.store", "file")
        .set("checkpoint.path", here.join("position").display().to_string());
    away(
        ctx,
        &bed,
        &launch,
        async |_| fs::rename(&here, &elsewhere).expect("moved"),
        async || fs::rename(&elsewhere, &here).expect("moved back"),
    )
    .await
}

/// There is no room for the file: the old position stays whole.
pub async fn store_disk_full(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let disk = SmallDisk::new().await;
    let launch = ctx
        .launch(&bed)
        .set("checkpoint.store", "file")
        .set("checkpoint.path", disk.checkpoint().display().to_string());
    let outcome = away(
        ctx,
        &bed,
        &launch,
        async |relay| {
            disk.fill();
            relay.says("No space left on device").await;
            let position = fs::read(disk.checkpoint()).expect("the old position");
            serde_json::from_slice::<serde_json::Value>(&position).expect("it is whole");
        },
        async || disk.free(),
    )
    .await;
    println!("store_disk_full: {}", disk.describe());
    outcome.note(disk.describe())
}
