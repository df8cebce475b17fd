//! What was read, delivered, saved and removed, and what failed.

use std::collections::BTreeMap;

use super::{Family, Kind, Label, counter, gauge, known, labelled};
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
            "Failures of a topic, after each of which it was opened again",
            topics().map(|(labels, topic)| (labels, topic.restarts)),
        ),
        counter("transactions", "Kafka transactions that were committed", status.transactions),
        known(
            "transaction_commit_seconds",
            "How long the last Kafka transaction took to commit",
            commit,
        ),
        counter(
            "wal_replication_errors",
            "Failures of the replication connection, or of making one",
            status.replication_errors,
        ),
        counter(
            "retention_removed_rows",
            "Delivered rows that were removed for their age",
            status.retention_removed,
        ),
        counter(
            "retention_errors",
            "Failures to remove such rows, after each of which it is tried again",
            status.retention_errors,
        ),
        labelled(
            Kind::Gauge,
            "publication_problems",
            "Errors in what is published of an outbox table",
            by_table(&status.publication_errors),
        ),
        labelled(
            Kind::Counter,
            "unpublished_ranges",
            "Ranges of the WAL of which rows of an outbox table were not published",
            by_table(&status.unpublished_ranges),
        ),
        labelled(
            Kind::Counter,
            "actor_restarts",
            "Failures of an actor, after each of which it was started again",
            // Also of those that never failed: what appears with its first failure is no increase.
            status.actors.iter().map(|(actor, status)| ([("actor", *actor)], status.restarts)),
        ),
        gauge("running", "1 while the pipeline reads and delivers", running),
        gauge(
            "generation",
            "Lives of the reader: one more each time that it connects",
            status.generation,
        ),
        gauge(
            "in_flight_bytes",
            "Bytes between the WAL and the acknowledgement",
            status.in_flight_bytes as u64,
        ),
        gauge("window_bytes", "The most that may be in flight", status.window_bytes as u64),
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
            "Everything up to here PostgreSQL may forget",
            status.confirmed_lsn.as_u64(),
        ),
        gauge(
            "wal_retained_bytes",
            "WAL that the server kept for the slot when it was last asked",
            status.retained_wal_bytes,
        ),
        gauge(
            "retention_last_run_seconds",
            "When old rows were last looked for, Unix time; 0 for never",
            status.retention_last_run,
        ),
        gauge("wal_lag_bytes", "WAL received and not saved as delivered", lag),
    ]
}
