//! Kafka's states: away, silent, slow, refusing.

use std::time::Duration;

use factlib::{
    config::Format,
    testing::{Authority, KafkaServer, Proxy, TopicRight, grant},
};

use crate::scene::Scene;

/// Listeners behind a proxy each, for the states that break the network.
const AWAY: &str = "AWAY";
const RESTING: &str = "RESTING";
const SILENT: &str = "SILENT";
const SLOW: &str = "SLOW";
/// Listeners that ask for what the relay does not have.
const ENCRYPTED: &str = "ENCRYPTED";
const LOGIN: &str = "LOGIN";
/// One that sends clients to a name without an address.
const NOWHERE: &str = "NOWHERE";

/// A broker that can be reached in many ways.
pub async fn start() -> KafkaServer {
    // Whoever does not log in may do everything.
    let mut builder = KafkaServer::builder().authorizer();
    for name in [AWAY, RESTING, SILENT, SLOW] {
        builder = builder.proxied_listener(name);
    }
    let authority = Authority::new("factlib tests").expect("an authority");
    let signed = authority.server(&["localhost", "127.0.0.1"]).expect("a certificate");
    let encrypted = [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.certificate.chain", signed.certificate.as_str()),
        ("ssl.keystore.key", signed.key.as_str()),
    ];
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                  user_relay=\"secret\";";
    let login = [("sasl.enabled.mechanisms", "PLAIN"), ("plain.sasl.jaas.config", module)];
    builder
        .listener(ENCRYPTED, "SSL", encrypted)
        .listener(LOGIN, "SASL_PLAINTEXT", login)
        .misadvertised_listener(NOWHERE, "nowhere.invalid:9092")
        .start()
        .await
        .expect("Kafka starts")
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

/// A relay at a listener that it does not fit.
async fn at(mut scene: Scene, listener: &str) -> Scene {
    scene.bed.config.kafka.brokers = vec![scene.bed.kafka.listener(listener)];
    let handle = scene.launch().await;
    scene.keep(handle);
    scene
}

pub async fn wants_tls(scene: Scene) -> Scene {
    at(scene, ENCRYPTED).await
}

pub async fn wants_a_login(scene: Scene) -> Scene {
    at(scene, LOGIN).await
}

/// A relay that has a topic to make or to open.
async fn needs_a_topic(mut scene: Scene) -> Scene {
    let handle = scene.start().await;
    scene.emit("user").await;
    scene.keep(handle);
    scene
}

pub async fn topic_missing(mut scene: Scene) -> Scene {
    scene.bed.config.kafka.topics.create = false;
    needs_a_topic(scene).await
}

pub async fn topic_lacks_brokers(mut scene: Scene) -> Scene {
    scene.bed.config.kafka.topics.replication_factor = Some(2);
    needs_a_topic(scene).await
}

pub async fn topic_not_allowed(mut scene: Scene) -> Scene {
    let kafka = scene.bed.kafka;
    let rights = [TopicRight::Describe, TopicRight::Write];
    grant(&kafka.admin_bootstrap(), "relay", "another.", &rights).await.expect("rights");
    let settings = &mut scene.bed.config.kafka;
    settings.brokers = vec![kafka.listener(LOGIN)];
    settings.username = Some("relay".into());
    settings.password = Some("secret".to_owned().into());
    settings.sasl_mechanism = "PLAIN".into();
    needs_a_topic(scene).await
}

pub async fn names_nowhere(scene: Scene) -> Scene {
    let scene = at(scene, NOWHERE).await;
    scene.until(|status| status["state"] == "running").await;
    scene.emit("user").await;
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
