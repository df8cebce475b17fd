//! States of what is delivered: nothing, something, and what does not go on.

use std::time::Duration;

use bytesize::ByteSize;
use factlib::{
    Event,
    config::RefusalPolicy,
    handlers::{HandlerOptions, Outcome},
    testing::create_topic,
};

use crate::scene::Scene;

pub async fn flowing(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    scene.load("user").await;
    scene.delivered(1).await;
    scene.keep(handle);
    scene
}

pub async fn idle(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    scene.keep(handle);
    scene
}

pub async fn others_write(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    let client = scene.bed.client().await;
    client.batch_execute("CREATE TABLE other (n int)").await.expect("a table");
    let writing = actix_rt::spawn(async move {
        loop {
            client.batch_execute("INSERT INTO other VALUES (1)").await.expect("a row");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    scene.keep_task(writing);
    scene.keep(handle);
    scene
}

pub async fn paused(mut scene: Scene) -> Scene {
    let topic = format!("{}.user", scene.bed.name);
    let handle = scene.start_with(|builder| builder.pause_topic(topic)).await;
    scene.emit("user").await;
    scene.keep(handle);
    scene
}

pub async fn paused_while_stopping(mut scene: Scene) -> Scene {
    scene.bed.config.pipeline.drain_timeout = Duration::from_secs(600);
    let topic = format!("{}.user", scene.bed.name);
    let handle = scene.start_with(|builder| builder.pause_topic(topic)).await;
    scene.emit("user").await;
    scene.until(|status| status["lag"]["events"] == 1).await;
    let stopping = actix_rt::spawn(async move { drop(handle.shutdown().await) });
    scene.keep_task(stopping);
    scene
}

pub async fn paused_beside_others(mut scene: Scene) -> Scene {
    scene.load("order").await;
    paused(scene).await
}

pub async fn window_full(mut scene: Scene) -> Scene {
    scene.bed.config.pipeline.window = ByteSize::kib(16);
    scene.bed.config.pipeline.batch = ByteSize::kib(4);
    let scene = paused(scene).await;
    for _ in 0..8 {
        scene.emit_large("user", 4096).await;
    }
    scene
}

/// A topic whose broker takes no record of a fact's size.
async fn refusing(scene: &mut Scene, policy: RefusalPolicy) {
    scene.bed.config.dead_letter.policy = policy;
    let topic = format!("{}.user", scene.bed.config.topic_prefix());
    let settings = [("max.message.bytes", "1000")];
    create_topic(&scene.bed.kafka.bootstrap(), &topic, 1, &settings).await.expect("a topic");
    let handle = scene.start().await;
    scene.emit_large("user", 4096).await;
    scene.keep(handle);
}

pub async fn parked(mut scene: Scene) -> Scene {
    refusing(&mut scene, RefusalPolicy::DeadLetter).await;
    scene.until(|status| status["dead_letters"] == 1).await;
    scene
}

pub async fn refused_and_blocking(mut scene: Scene) -> Scene {
    refusing(&mut scene, RefusalPolicy::Block).await;
    scene
}

pub async fn refused_and_stopping(mut scene: Scene) -> Scene {
    refusing(&mut scene, RefusalPolicy::Stop).await;
    scene
}

pub async fn handler_fails(mut scene: Scene) -> Scene {
    let options = HandlerOptions::default().tries(u32::MAX);
    let handle = scene
        .start_with(|builder| {
            let failing = async |_: &Event| -> Result<Outcome, factlib::handlers::HandlerError> {
                Err("the mail server says no".into())
            };
            builder.handler_with("user", options, failing)
        })
        .await;
    scene.emit("user").await;
    scene.keep(handle);
    scene
}
