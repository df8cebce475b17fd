//! The compose file starts three servers that find each other, with settings that factlib takes.

use std::collections::{BTreeMap, BTreeSet};

use factlib::{binary::Loader, config::Config};
use serde_json::Value;

use super::image;
use crate::support::repository::yaml;

/// The pairs of an `environment` as text.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let pairs = service["environment"].as_object().expect("pairs");
    pairs.iter().map(|(name, value)| (name.clone(), value.as_str().expect(name).into())).collect()
}

/// What factlib makes of the environment that the file gives it.
fn config(service: &Value) -> Config {
    let mut all = image::environment();
    all.extend(environment(service));
    let folder = tempfile::tempdir().expect("a temporary folder");
    Loader::new(folder.path()).env(all).load().expect("a valid configuration").config
}

#[test]
fn factlib_connects_to_the_servers_beside_it() {
    let documents = yaml("packaging/compose.yaml");
    let services = documents[0]["services"].as_object().expect("services");
    let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["factlib", "kafka", "postgres"]));
    let (factlib, kafka, postgres) =
        (&services["factlib"], environment(&services["kafka"]), &services["postgres"]);

    let settings = environment(factlib);
    let database = environment(postgres);
    assert_eq!(
        settings["FACTLIB_POSTGRES__URL"],
        format!(
            "postgresql://postgres:{}@postgres:5432/{}?sslmode=disable",
            database["POSTGRES_PASSWORD"], database["POSTGRES_DB"]
        )
    );
    assert!(postgres["command"].to_string().contains("\"wal_level=logical\""));

    let config = config(factlib);
    let advertised: Vec<_> = kafka["KAFKA_ADVERTISED_LISTENERS"].split(',').collect();
    assert_eq!(advertised[0], format!("PLAINTEXT://{}", config.kafka.brokers[0]));
    assert_eq!(kafka["KAFKA_PROCESS_ROLES"], "broker,controller");
    // Each listener has a protocol, and each that is advertised exists.
    let names = |list: &str, sign: &str| -> Vec<String> {
        list.split(',').map(|of| of.split(sign).next().unwrap_or_default().to_owned()).collect()
    };
    let listeners = names(&kafka["KAFKA_LISTENERS"], ":");
    assert_eq!(listeners, names(&kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"], ":"));
    assert!(
        names(&kafka["KAFKA_ADVERTISED_LISTENERS"], ":").iter().all(|of| listeners.contains(of))
    );

    for (name, waits) in factlib["depends_on"].as_object().expect("services") {
        assert_eq!(waits["condition"], "service_healthy");
        assert!(services[name]["healthcheck"]["test"].is_array(), "{name}");
    }
    let port = config.http.health_port.expect("a port");
    assert_eq!(config.http.metrics_port, Some(port));
    assert_eq!(factlib["ports"][0], format!("127.0.0.1:{port}:{port}"));
    let grace = factlib["stop_grace_period"].as_str().expect("seconds").trim_end_matches('s');
    let drain = config.pipeline.drain_timeout.as_secs();
    assert!(grace.parse::<u64>().expect("seconds") > drain, "{drain}");
    assert_eq!(factlib["build"]["dockerfile"], "packaging/Dockerfile");
}

#[test]
fn every_port_is_open_to_this_machine_alone() {
    for (name, service) in yaml("packaging/compose.yaml")[0]["services"].as_object().expect("some")
    {
        for port in service["ports"].as_array().expect("a list") {
            assert!(port.as_str().expect("a text").starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}
