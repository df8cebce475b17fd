//! Alerts, dashboard and documentation know the metrics that there are, and each other.

use std::{collections::BTreeSet, net::TcpListener};

use actix_web::{App, HttpServer};
use factlib::{Pipeline, config::Config, testing::shared_postgres};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    promtool,
    repository::{read, yaml},
};

/// Names of metrics in a text, without what a type adds to a family's name.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(word).filter(|word| {
        word.starts_with("factlib_") || word.starts_with("process_") && word.len() > 8
    });
    words.map(family).collect()
}

fn family(name: &str) -> String {
    let ends = ["_total", "_bucket", "_sum", "_count"];
    let family = ends.iter().find_map(|end| name.strip_suffix(end));
    family.unwrap_or(name).to_owned()
}

/// The families in a scrape.
fn families(scrape: &str) -> BTreeSet<String> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|of| of.split(' ').next()).map(family).collect()
}

/// The metrics of a relay that has just been started, in the format that is asked for.
async fn scrape(accept: &str) -> String {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let database = postgres.create_database("families").await.expect("a database");
    let mut config = Config::default();
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database;
    let pipeline = Pipeline::builder().config(config).discard().start().await.expect("it starts");
    let (routes, listener) = (pipeline.routes(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = listener.local_addr().expect("bound");
    let server = HttpServer::new(move || App::new().service(routes.scope("/relay")));
    let server = server.workers(1).disable_signals().listen(listener).expect("it listens").run();
    let end = server.handle();
    actix_rt::spawn(server);
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET /relay/metrics HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    end.stop(false).await;
    pipeline.shutdown().await.expect("a clean stop");
    answer
}

#[actix_rt::test]
async fn prometheus_finds_nothing_to_mend_in_the_metrics() {
    let answer = scrape("*/*").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(promtool::promtool(&["check", "metrics"], body), Ok(String::new()), "{body}");
    // What a Prometheus asks for has the same metrics.
    let openmetrics = scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.5").await;
    assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
    assert!(openmetrics.contains("application/openmetrics-text; version=1.0.0"), "{openmetrics}");
    assert_eq!(families(&openmetrics), families(body));
}

#[actix_rt::test]
async fn what_they_look_at_is_there_and_what_is_there_is_documented() {
    let mut there = families(&scrape("*/*").await);
    assert!(there.len() > 30, "{there:?}");
    // Only a fleet has them: tests/fleet.
    there.insert("factlib_pipeline_up".into());
    for name in ["pipelines", "instances", "unassigned_pipelines", "rebalances"] {
        there.insert(format!("factlib_fleet_{name}"));
    }
    for file in [
        "packaging/alerts.yaml",
        "packaging/alerts-test.yaml",
        "packaging/grafana-dashboard.json",
        "docs/metrics.md",
        "docs/monitoring.md",
        "docs/operations.md",
        "docs/runbook.md",
    ] {
        let named = metrics(&read(file));
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, and there are {there:?}");
    }
    let documented = metrics(&read("docs/metrics.md"));
    let missing: Vec<_> = there.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value =
        serde_json::from_str(&read("packaging/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is used twice");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        for target in targets {
            let expr = target["expr"].as_str().expect("an expression");
            assert!(expr.contains("instance=~\"$instance\""), "{expr}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{expr}");
        }
        assert!(!targets.is_empty() && panel["title"].is_string(), "{panel}");
    }
}

#[test]
fn each_alert_has_a_test_and_an_entry_in_the_runbook() {
    let rules = yaml("packaging/alerts.yaml");
    let rules = rules[0]["groups"][0]["rules"].as_array().expect("rules");
    let alerts: BTreeSet<_> = rules.iter().map(|rule| rule["alert"].as_str()).collect();
    assert_eq!(alerts.len(), rules.len(), "a name is used twice");
    for rule in rules {
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{rule}");
    }
    let runbook = read("docs/runbook.md");
    let entries = runbook.lines().filter_map(|line| line.strip_prefix("### ")).map(Some);
    assert_eq!(entries.collect::<BTreeSet<_>>(), alerts);
    // Each fires in some test.
    let tests = yaml("packaging/alerts-test.yaml");
    let tests = tests[0]["tests"].as_array().expect("tests");
    let cases = tests.iter().flat_map(|test| test["alert_rule_test"].as_array()).flatten();
    let fired = cases.filter(|case| case["exp_alerts"].is_array());
    let fired: BTreeSet<_> = fired.map(|case| case["alertname"].as_str()).collect();
    assert_eq!(fired, alerts);
}
