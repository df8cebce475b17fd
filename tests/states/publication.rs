//! States in which what should be read is not published.

use std::time::Duration;

use factlib::{config::Source, emit::schema};

use crate::scene::Scene;

/// A relay that reads the table `outbox_events`, and then this statement (`{publication}`).
async fn changed(scene: &mut Scene, statement: &str) {
    scene.bed.config.postgres.source = Some(Source::Tables);
    scene.bed.config.postgres.publication_check_interval = Duration::from_millis(500);
    let table = schema::outbox_table("outbox_events").expect("a name");
    let client = scene.bed.client().await;
    client.batch_execute(&table).await.expect("a table");
    let handle = scene.start().await;
    let publication = format!("\"{}\"", scene.bed.config.postgres.publication);
    let statement = statement.replace("{publication}", &publication);
    client.batch_execute(&statement).await.expect("it is changed");
    scene.keep(handle);
}

pub async fn without_a_table(mut scene: Scene) -> Scene {
    changed(&mut scene, "ALTER PUBLICATION {publication} DROP TABLE outbox_events").await;
    scene
}

pub async fn filtered(mut scene: Scene) -> Scene {
    let filter = "ALTER PUBLICATION {publication} SET TABLE outbox_events WHERE (id IS NOT NULL)";
    changed(&mut scene, filter).await;
    scene
}
