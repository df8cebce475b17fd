//! Unit, image and manifest set what there is to set.

use std::collections::BTreeSet;

use factlib::binary::{Kind, settings};
use serde_json::Value;

use crate::support::repository::{read, yaml};

const MANIFESTS: [&str; 2] = ["packaging/kubernetes.yaml", "packaging/kubernetes-fleet.yaml"];

/// The words of a text that look like our environment variables.
fn variables(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("FACTLIB_")).collect()
}

/// The variables of a text that are no settings; it has to name some that are.
pub(super) fn unknown_variables(text: &str) -> Vec<&str> {
    let settings = settings();
    let mut known: BTreeSet<String> = settings.iter().map(|setting| setting.env()).collect();
    // A secret may be in a file of its own.
    let secrets = settings.iter().filter(|setting| setting.kind == Kind::Secret);
    known.extend(secrets.map(|setting| format!("{}_FILE", setting.env())));
    let named = variables(text);
    assert!(named.iter().any(|name| known.contains(*name)), "{text} names none");
    // One is of the build, not of the relay.
    let unknown = named.into_iter().filter(|name| !known.contains(*name));
    unknown.filter(|name| *name != "FACTLIB_COMMIT").collect()
}

#[test]
fn variables_are_those_of_settings() {
    for file in [
        "packaging/Dockerfile",
        "packaging/compose.yaml",
        "packaging/factlib.service",
        "packaging/kubernetes.yaml",
        "packaging/kubernetes-fleet.yaml",
    ] {
        let text = read(file);
        let unknown = unknown_variables(&text);
        assert!(unknown.is_empty(), "{file}: {unknown:?} are no settings");
    }
}

#[test]
fn the_manifests_probes_reach_the_port_that_they_set() {
    for file in MANIFESTS {
        probes_reach_the_port(&yaml(file));
    }
}

fn probes_reach_the_port(documents: &[Value]) {
    let kind = |kind: &str| documents.iter().find(|of| of["kind"] == kind).expect(kind);
    let pod = &kind("Deployment")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let env = container["env"].as_array().expect("a list");
    let value = |name: &str| {
        let of = env.iter().find(|of| of["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        of["value"].as_str().unwrap_or_default().to_owned()
    };
    let port = &container["ports"][0];
    let listens = value("FACTLIB_HTTP__HEALTH_PORT");
    assert_eq!(port["containerPort"].to_string(), listens);
    assert_eq!(
        pod["metadata"]["annotations"]["prometheus.io/port"],
        value("FACTLIB_HTTP__METRICS_PORT")
    );
    assert_eq!(value("FACTLIB_HTTP__ADDRESS"), "0.0.0.0");
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&path.into(), &port["name"]), "{probe}");
    }
    assert_eq!(kind("Service")["spec"]["ports"][0]["targetPort"], port["name"]);
    // The Service's own name would put variables with our prefix into each pod.
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels, &kind("Deployment")["spec"]["selector"]["matchLabels"]);
    assert_eq!(labels, &kind("Service")["spec"]["selector"]);
    assert_ne!(labels, &Value::Null);
}

/// `key=value` lines of a unit file, continued lines and comments aside.
fn of_unit(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn time_to_stop_is_more_than_draining_takes() {
    let config = factlib::config::Config::default();
    let drain = config.pipeline.drain_timeout.as_secs();
    let of_fleet = drain + config.fleet.handover_timeout.as_secs();
    let unit = read("packaging/factlib.service");
    let unit: u64 = of_unit(&unit, "TimeoutStopSec")[0].parse().expect("seconds");
    assert!(unit > of_fleet, "{unit} for {of_fleet}");
    for (file, drain) in MANIFESTS.into_iter().zip([drain, of_fleet]) {
        let pod = &yaml(file)[0]["spec"]["template"]["spec"];
        let pod = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(pod > drain, "{file}: {pod} for {drain}");
    }
}

#[test]
fn a_unit_does_not_start_again_what_needs_a_person() {
    use factlib::ErrorKind::{Config, PositionLost};
    let codes = of_unit(&read("packaging/factlib.service"), "RestartPreventExitStatus");
    assert_eq!(codes, [format!("{} {}", Config.exit_code(), PositionLost.exit_code())]);
}
