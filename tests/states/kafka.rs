//! Kafka's states: away, silent, slow, refusing.

use std::time::Duration;

use factlib::{
    config::Format,
    testing::{KafkaServer, Proxy},
};

use crate::scene::Scene;

/// Listeners behind a proxy each, for the states that break the network.
const AWAY: &str = "AWAY";
const RESTING: &str = "RESTING";
const SILENT: &str = "SILENT";
const SLOW: &str = "SLOW";

/// A broker that can be reached in many ways.
pub async fn start() -> KafkaServer {
    let mut builder = KafkaServer::builder();
    for name in [AWAY, RESTING, SILENT, SLOW] {
        builder = builder.proxied_listener(name);
    }
    builder.start().await.expect("Kafka starts")
}

fn proxy<'a>(scene: &mut Scene, listener: &str) -> &'a Proxy
where
    'static: 'a,
{
    let kafka = scene.bed.kafka;
    scene.bed.config.kafka.brokers = vec![kafka.listener(listener)];
    kafka.listener_proxy(1, listener).expect("it has a proxy")
}

/// A relay that has delivered a fact, and then the brokers are gone.
async fn loses_the_brokers(scene: &mut Scene, listener: &str) {
    let proxy = proxy(scene, listener);
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    proxy.refuse();
    proxy.reset_all();
    scene.keep(handle);
}

pub async fn away(mut scene: Scene) -> Scene {
    loses_the_brokers(&mut scene, AWAY).await;
    scene.emit("user").await;
    scene
}

pub async fn away_at_rest(mut scene: Scene) -> Scene {
    loses_the_brokers(&mut scene, RESTING).await;
    scene
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

pub async fn registry_away(mut scene: Scene) -> Scene {
    scene.bed.config.kafka.format = Format::ConfluentJson;
    scene.bed.config.schema_registry.url = vec![format!("http://{}", nobody())];
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.keep(handle);
    scene
}

pub async fn away_at_the_start(mut scene: Scene) -> Scene {
    scene.bed.config.kafka.brokers = vec![nobody()];
    let handle = scene.launch().await;
    scene.keep(handle);
    scene
}

pub async fn silent(mut scene: Scene) -> Scene {
    let proxy = proxy(&mut scene, SILENT);
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    proxy.half_open();
    scene.emit("user").await;
    scene.keep(handle);
    scene
}

pub async fn slow(mut scene: Scene) -> Scene {
    let proxy = proxy(&mut scene, SLOW);
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.delivered(1).await;
    scene.is_well().await;
    proxy.latency(Duration::from_millis(200));
    scene.load("user").await;
    scene.keep(handle);
    scene
}
