//! Defines the metrics of events read and delivered, positions, retention and failures.

use std::collections::BTreeMap;

use super::{Family, Kind, Label, counter, gauge, labelled, optional_gauge};
use crate::status::{PipelineState, PipelineStatus};

fn by_table(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = ([Label<'_>; 1], u64)> {
    counts.iter().map(|(table, count)| ([("table", table.as_str())], *count))
}

pub(super) fn families(status: &PipelineStatus) -> Vec<Family<'_>> {
    let topics = || status.topics.iter().map(|(name, topic)| ([("topic", name.as_str())], topic));
    let lag = status.received_lsn.as_u64().saturating_sub(status.saved_lsn.as_u64());
    let running = u64::from(status.state == PipelineState::Running);
    let commit = (status.transactions > 0).then_some(status.transaction_commit_seconds);
    vec![
        labelled(
            Kind::Gauge,
            "build_info",
            "Version of factlib, as a label; the value is always 1",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)],
        ),
        counter("events_consumed", "Events read from the WAL", status.events_read),
        counter(
            "events_filtered",
            "Events that a route dropped or kafka.unrouted ignores",
            status.events_filtered,
        ),
        labelled(
            Kind::Counter,
            "kafka_produce_success",
            "Events that Kafka acknowledged",
            topics().map(|(labels, topic)| (labels, topic.events)),
        ),
        labelled(
            Kind::Counter,
            "kafka_produce_failure",
            "Failures of a topic; each reopens it",
            topics().map(|(labels, topic)| (labels, topic.restarts)),
        ),
        counter("transactions", "Kafka transactions that were committed", status.transactions),
        optional_gauge(
            "transaction_commit_seconds",
            "Duration of the last commit of a Kafka transaction",
            commit,
        ),
        counter(
            "wal_replication_errors",
            "Failures of the replication connection or of opening it",
            status.replication_errors,
        ),
        counter(
            "retention_removed_rows",
            "Delivered rows that were removed because of their age",
            status.retention_removed,
        ),
        counter(
            "retention_errors",
            "Failures to remove old rows; each is retried",
            status.retention_errors,
        ),
        labelled(
            Kind::Gauge,
            "publication_problems",
            "Errors in the publication of an outbox table",
            by_table(&status.publication_errors),
        ),
        labelled(
            Kind::Counter,
            "unpublished_ranges",
            "Ranges of the WAL in which rows of an outbox table were not published",
            by_table(&status.unpublished_ranges),
        ),
        labelled(
            Kind::Counter,
            "actor_restarts",
            "Failures of an actor; each restarts it",
            // Actors that never failed are included: a series that begins with its first failure has
            // no increase.
            status.actors.iter().map(|(actor, status)| ([("actor", *actor)], status.restarts)),
        ),
        gauge("running", "1 while the pipeline reads and delivers", running),
        gauge(
            "generation",
            "Number of starts of the reader; each opens a new connection",
            status.generation,
        ),
        gauge(
            "in_flight_bytes",
            "Bytes between the WAL and the acknowledgement",
            status.in_flight_bytes as u64,
        ),
        gauge(
            "commit_gate_bytes",
            "Bytes in flight that wait for standbys to flush them, or for others to see them",
            status.gate_bytes,
        ),
        gauge("window_bytes", "Maximum number of bytes in flight", status.window_bytes as u64),
        gauge(
            "wal_received_lsn_bytes",
            "End of the WAL that the server sent or reported",
            status.received_lsn.as_u64(),
        ),
        gauge(
            "wal_saved_lsn_bytes",
            "Everything up to here is delivered and saved",
            status.saved_lsn.as_u64(),
        ),
        gauge(
            "wal_confirmed_lsn_bytes",
            "Everything up to here is confirmed, so that PostgreSQL may forget it",
            status.confirmed_lsn.as_u64(),
        ),
        gauge(
            "wal_retained_bytes",
            "WAL that the server kept for the slot at the last query",
            status.retained_wal_bytes,
        ),
        gauge(
            "retention_last_run_timestamp_seconds",
            "Unix time of the last sweep of old rows; 0 for never",
            status.retention_last_run,
        ),
        gauge("wal_lag_bytes", "WAL received and not saved as delivered", lag),
    ]
}
