//! The dashboard against a live relay: Prometheus's own engine evaluates each of its expressions over
//! what was scraped, and has to find something, with the labels that its legend names.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use factlib::emit::Fact;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    page::{ask, emit, facts, serve, status},
    support::{Bed, bed::LIMIT, promtool, repository::read},
};

/// Metrics that a relay has only in the states that they tell of, with a value that they may have.
const ABSENT: [(&str, &str); 4] = [
    // With max_slot_wal_keep_size, and the second while retained WAL grows.
    ("factlib_wal_safe_bytes", "1e9"),
    ("factlib_slot_lost_in_seconds", "86400"),
    // Once an actor has waited.
    (r#"factlib_blocked_seconds_total{actor="wal_reader",by="window"}"#, "1"),
    // While a handler's calls fail.
    (r#"factlib_handler_retries_total{topic="shop.user"}"#, "1"),
];

/// An expression and its legend.
struct Query {
    panel: String,
    expr: String,
    legend: String,
}

/// All expressions of the dashboard, with Grafana's variables filled in.
fn queries() -> Vec<Query> {
    let text = read("packaging/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let expr = text(&target["expr"]).replace("$__rate_interval", "1m");
            let expr = expr.replace("$job", ".*").replace("$instance", ".*");
            Query { panel: text(&panel["title"]), expr, legend: text(&target["legendFormat"]) }
        })
    });
    targets.collect()
}

/// The labels that a legend names.
fn labels(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label)
}

/// The samples of a scrape.
fn samples(metrics: &str) -> BTreeMap<&str, &str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).collect()
}

async fn scrape(url: &str) -> String {
    let (code, _, metrics) = ask(url, "GET /metrics", &[], "").await;
    assert_eq!(code, 200, "{metrics}");
    metrics
}

/// Waits until the relay has counted so many events.
async fn delivered(url: &str, events: u64) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = status(url).await;
        if status["events"] == events {
            return;
        }
        assert!(Instant::now() < deadline, "not delivered: {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A name with the labels that Prometheus adds.
fn scraped(series: &str) -> String {
    let labels = r#"job="relay",instance="one""#;
    match series.split_once('{') {
        Some((name, others)) => format!("{name}{{{labels},{others}"),
        None => format!("{series}{{{labels}}}"),
    }
}

#[actix_rt::test]
async fn each_expression_finds_the_series_and_labels_of_a_live_relay() {
    let mut bed = Bed::shared("dashboard").await;
    bed.config.kafka.statistics_interval = Duration::from_millis(200);
    let url = serve(&mut bed.config);
    let pipeline = bed.pipeline().start().await.expect("it starts");
    let mut client = bed.client().await;
    let topic = format!("{}.order", bed.name);
    emit(&mut client, &bed.config, facts("order", 20)).await;
    delivered(&url, 20).await;
    // A wait, a failure of a topic, and a dead letter.
    pipeline.pause_topic(topic.as_str()).expect("known");
    emit(&mut client, &bed.config, facts("order", 20)).await;
    sleep(Duration::from_millis(500)).await;
    pipeline.resume_topic(topic.as_str()).expect("known");
    emit(&mut client, &bed.config, [Fact::new("dead-letter", "1", "a")]).await;
    let deadline = Instant::now() + LIMIT;
    let first = loop {
        let metrics = scrape(&url).await;
        let is_there = |text: &str| metrics.contains(text);
        if is_there("factlib_kafka_broker_rtt_mean_seconds{")
            && is_there("factlib_topic_blocked_seconds_total{")
            && is_there("factlib_dead_letters_total 1\n")
            && is_there("factlib_checkpoint_age_seconds ")
        {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        sleep(Duration::from_millis(100)).await;
    };
    emit(&mut client, &bed.config, facts("order", 20)).await;
    // The dead letter is one of them.
    delivered(&url, 61).await;
    let last = scrape(&url).await;
    pipeline.shutdown().await.expect("in order");

    let mut test =
        String::from("evaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n");
    let before = samples(&first);
    let mut series: BTreeMap<_, _> = samples(&last)
        .into_iter()
        .map(|(name, last)| (name, format!("{}x4 {last}x16", before.get(name).unwrap_or(&last))))
        .collect();
    for (name, value) in ABSENT {
        let family = name.split('{').next().unwrap_or_default();
        assert!(last.contains(&format!("# TYPE {family} ")), "{family} is none of ours");
        series.entry(name).or_insert_with(|| format!("{value}x20"));
    }
    for (name, values) in series {
        let name = scraped(name).replace('\'', "''");
        writeln!(test, "  - {{ series: '{name}', values: '{values}' }}").expect("a text");
    }
    test += "  promql_expr_test:\n";
    let queries = queries();
    assert!(queries.len() > 30, "{} queries", queries.len());
    for Query { panel, expr, legend } in queries {
        let mut asked = vec![format!("count({expr}) > bool 0")];
        // Not one series lacks the label.
        asked.extend(labels(&legend).map(|label| {
            format!("count(count by ({label}) ({expr}) unless on ({label}) vector(1)) > bool 0")
        }));
        for expr in asked {
            let expr = expr.replace('\'', "''");
            writeln!(test, "  # {panel}\n  - expr: '{expr}'\n    eval_time: 2m\n    exp_samples:\n    - {{ labels: '{{}}', value: 1 }}").expect("a text");
        }
    }
    promtool::test_rules(&test).unwrap_or_else(|said| panic!("{said}"));
}
