//! States in which the position can't be saved, or old rows can't be removed.

use std::time::Duration;

use factlib::{config::StoreKind, emit::schema};

use crate::scene::Scene;

pub async fn locked(mut scene: Scene) -> Scene {
    // The making of each slot of the server would wait for the transaction.
    scene.on_a_server_of_its_own().await;
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    let client = scene.bed.client().await;
    let lock = "BEGIN; LOCK TABLE factlib.checkpoints IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.expect("it is locked");
    scene.keep((client, handle));
    scene
}

pub async fn gone(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    let away = "ALTER TABLE factlib.checkpoints RENAME TO elsewhere";
    scene.postgres().execute(&scene.bed.database, away).await.expect("it is gone");
    scene.keep(handle);
    scene
}

pub async fn standby_silent(mut scene: Scene) -> Scene {
    scene.on_a_server_of_its_own().await;
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    scene.postgres().set("synchronous_standby_names", "nobody").expect("set");
    scene.postgres().reload().await.expect("it counts");
    // Committed without it, so that only the relay waits.
    let fact = "SET synchronous_commit = local; \
                SELECT pg_logical_emit_message(true, 'other', 'moves the position')";
    scene.bed.client().await.batch_execute(fact).await.expect("committed");
    scene.keep(handle);
    scene
}

pub async fn folder_gone(mut scene: Scene) -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    scene.bed.config.checkpoint.store = StoreKind::File;
    scene.bed.config.checkpoint.path = folder.path().join("checkpoint");
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    // The relay may be writing a file there.
    while std::fs::remove_dir_all(folder.path()).is_err() {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    scene.keep((folder, handle));
    scene
}

pub async fn rows_kept(mut scene: Scene) -> Scene {
    let role = scene.with_role().await;
    scene.bed.config.retention.after = Some(Duration::from_secs(3600));
    scene.bed.config.retention.interval = Duration::from_millis(300);
    let client = scene.bed.client().await;
    let table = schema::outbox_table("outbox_events").expect("a name");
    let read = format!("{table}; GRANT SELECT ON outbox_events TO \"{role}\"");
    client.batch_execute(&read).await.expect("a table");
    let handle = scene.start().await;
    scene.keep((client, handle));
    scene
}
