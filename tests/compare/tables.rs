//! The tables have a row for each relay, and say what failed.

use crate::{
    comparison::{
        Report, Scale,
        checker::Verdict,
        distance::{Distance, Distances, ROUND_TRIPS_MS},
        drain::Drain,
        faults::{Fault, Loss},
        machine::Machine,
        peer::Peer,
        report::Row,
    },
    support::quantiles::Quantiles,
};

fn report() -> Report {
    let verdict = Verdict { committed: 1_234_567, repeated: 12, ..Verdict::default() };
    let quantiles = Quantiles { p50_ms: 1.25, p99_ms: 20.0, max_ms: 30.0 };
    let distance = |round_trip_ms| Distance {
        round_trip_ms,
        to_commit: quantiles,
        to_arrival: quantiles,
        cpu_s_per_million: 99.6,
    };
    let measured = Row {
        drain: Some(Ok(Drain {
            events_per_s: 54_321.9,
            start_up_s: 0.04,
            cpu_s_per_million: 3.26,
            peak_mib: 47.6,
            verdict,
        })),
        distances: Some(Ok(Distances(ROUND_TRIPS_MS.map(distance).to_vec()))),
        losses: vec![(
            Fault::BrokerKilled,
            Ok(Loss { verdict, longest_pause_s: 2.04, server_away_s: 1.5, ends: 1 }),
        )],
        ..Row::new(Peer::Factlib, "0.1.0".to_owned())
    };
    let failed = Row {
        drain: Some(Err("it ended | 20 times:\nno".to_owned())),
        ..Row::new(Peer::KafkaConnect, "4.1.0".to_owned())
    };
    Report {
        scale: Scale { facts: 1_000, seconds: 5, peers: vec![Peer::Factlib, Peer::KafkaConnect] },
        machine: Machine {
            cores: 2,
            memory_gib: 23.4,
            load_before: "0.1".to_owned(),
            postgres: "15.13".to_owned(),
            kafka: "4.1.0".to_owned(),
            date: "2026-11-27".to_owned(),
        },
        rows: vec![measured, failed],
        left_out: vec![(Peer::DebeziumServer, "it is not installed".to_owned())],
    }
}

#[test]
fn every_figure_has_its_cell() {
    let text = report().markdown();
    for line in [
        "Measured on 2026-11-27, on a machine with 2 cores and 23 GiB of memory (load 0.1 before), with PostgreSQL \
         15.13 and Apache Kafka 4.1.0. FACTS=1000, SECONDS=5.",
        "| factlib | 0.1.0 |",
        "| Debezium Server | not run: it is not installed |",
        "| factlib | 54,321 | 3.3 | 48 | 0.0 | 0 / 12 / 0 |",
        "| Kafka Connect with Debezium | failed: it ended   20 times: no |  |  |  |  |",
        "| relay | 0 ms | 1 ms | 5 ms | the INSERT itself, at 0 ms | CPU s per million, at 0 ms |",
        "| factlib | 1.2 / 20.0 ms | 1.2 / 20.0 ms | 1.2 / 20.0 ms | 1.2 / 20.0 ms | 100 |",
        "| Kafka Connect with Debezium | not measured |  |  |  |  |",
        "| factlib | broker killed, 2 times | 1,234,567 | 0 | 12 | 0 | 2.0 | 1.5 | 1 |",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n--- is not in:\n{text}");
    }
}

#[test]
fn the_rows_of_a_table_have_as_many_cells_as_its_head() {
    let text = report().markdown();
    let mut cells = None;
    for line in text.lines() {
        let found = line.starts_with('|').then(|| line.matches('|').count());
        assert!(cells.is_none() || found.is_none() || cells == found, "{line}\n{text}");
        cells = found;
    }
}

#[test]
fn variables_scale_it() {
    let scale = |set: &[(&str, &str)]| {
        Scale::from_variables(|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())
        })
    };
    let default = scale(&[("FACTS", "")]).unwrap();
    assert_eq!((default.facts, default.seconds, default.peers), (500_000, 10, Peer::ALL.to_vec()));
    let small = scale(&[("FACTS", "10"), ("PEERS", "factlib, kafka-connect")]).unwrap();
    assert_eq!((small.facts, small.peers), (10, vec![Peer::Factlib, Peer::KafkaConnect]));
    let error = scale(&[("PEERS", "sequin")]).unwrap_err().to_string();
    assert!(error.contains("\"sequin\" is none of factlib, "), "{error}");
    let error = scale(&[("SECONDS", "long")]).unwrap_err().to_string();
    assert!(error.starts_with("SECONDS=long: "), "{error}");
}
