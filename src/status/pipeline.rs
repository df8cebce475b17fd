//! The snapshot of a pipeline that status, metrics, health and the page are made from.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use serde::Serialize;

use super::{
    ActorStatus, KafkaStatus, Lag, PublicationProblem, Status, TopicStatus, UnpublishedRows,
};
use crate::Lsn;

/// State of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum PipelineState {
    /// Connecting and checking positions.
    #[default]
    Starting,
    /// Reading and delivering.
    Running,
    /// Another instance reads the slot; this one takes over when that ends.
    StandingBy {
        /// The server's message, which names the process that reads the slot.
        error: String,
    },
    /// Failed; the next generation starts after a pause.
    Retrying {
        /// The failure.
        error: String,
    },
    /// Reading has ended; batches in flight are being finished.
    Draining,
    /// Ended.
    Stopped,
}

/// A pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// State.
    #[serde(flatten)]
    pub state: PipelineState,
    /// The error that ended it; none while it runs, or if it was asked to stop.
    pub stopped_by: Option<String>,
    /// Number of the reader's start, from 1.
    pub generation: u64,
    /// End of the WAL that the server has sent or reported.
    pub received_lsn: Lsn,
    /// Everything up to here is delivered and saved.
    pub saved_lsn: Lsn,
    /// Everything up to here is confirmed to PostgreSQL, which may forget it.
    pub confirmed_lsn: Lsn,
    /// WAL that the server kept for the slot at the last query, in bytes.
    pub retained_wal_bytes: u64,
    /// What keeps the WAL, while that is more than `postgres.retained_wal_warning`.
    pub retained_wal_waits_for: Option<String>,
    /// Problems with the publication, as of the last look.
    pub publication_problems: Vec<PublicationProblem>,
    /// Number of errors among the problems, by outbox table.
    #[serde(skip)]
    pub(crate) publication_errors: BTreeMap<String, u64>,
    /// Rows that were not published: the last hundred ranges that this process saw.
    pub unpublished: Vec<UnpublishedRows>,
    /// Number of such ranges, by outbox table.
    #[serde(skip)]
    pub(crate) unpublished_ranges: BTreeMap<String, u64>,
    /// Growth of the retained WAL, in bytes per second over the last two minutes.
    pub retained_wal_growth: Option<f64>,
    /// WAL that can still be written before the server invalidates the slot; none without
    /// `max_slot_wal_keep_size`. The server does not report its free disk space.
    pub safe_wal_bytes: Option<i64>,
    /// Time until the slot is invalidated at this growth; none without a limit or without growth.
    pub slot_lost_in_seconds: Option<u64>,
    /// End of the server's WAL at the last query.
    pub wal_end_lsn: Lsn,
    /// Everything up to here is delivered; saved within `checkpoint.interval`.
    pub delivered_lsn: Lsn,
    /// When a position was last saved, Unix seconds.
    pub saved_at: Option<u64>,
    /// Lag of delivery; unknown while another instance reads, or after the end.
    pub lag: Lag,
    /// Records delivered per second, over the last ten seconds.
    pub events_per_second: f64,
    /// Time since the pipeline was started.
    pub uptime_seconds: u64,
    /// The actors of the pipeline, by name; those of topics are in `topics`.
    pub actors: BTreeMap<&'static str, ActorStatus>,
    /// Events read from the WAL by this process, including those read again after a failure.
    pub events_read: u64,
    /// Records delivered by this process; an event has one for each of its topics.
    pub events: u64,
    /// Events that a route dropped or `kafka.unrouted` ignores, by this process.
    pub events_filtered: u64,
    /// Events that became dead letters, in this process.
    pub dead_letters: u64,
    /// Events in `factlib.held_events` at the last count, with `dead_letter.policy =
    /// "hold-aggregate"`.
    pub held_events: u64,
    /// Aggregates of these events.
    pub held_aggregates: u64,
    /// Time since when the oldest of them is held, Unix seconds; none if there is none.
    pub held_since: Option<u64>,
    /// Kafka transactions that were committed; none without exactly-once.
    pub transactions: u64,
    /// Duration of the last commit, in seconds.
    pub transaction_commit_seconds: f64,
    /// Bytes between the WAL and the acknowledgement.
    pub in_flight_bytes: usize,
    /// Maximum number of bytes in flight.
    pub window_bytes: usize,
    /// Bytes in flight that wait for standbys to flush them, or for others to see them.
    pub gate_bytes: u64,
    /// The condition that they wait for.
    pub gate_waits_for: Option<String>,
    /// Failures of the replication connection or of opening it.
    pub replication_errors: u64,
    /// Delivered rows that `retention` removed, by this process.
    pub retention_removed: u64,
    /// Failures to remove old rows.
    pub retention_errors: u64,
    /// Failures to save the position; each is retried.
    pub checkpoint_errors: u64,
    /// Time of the last sweep of old rows, Unix seconds; 0 for never.
    pub retention_last_run: u64,
    /// Number of restarts after a failure, by the actor's name.
    pub restarts: BTreeMap<&'static str, u64>,
    /// The Kafka client's last error, if nothing was delivered since.
    pub kafka_error: Option<String>,
    /// Last report on the Kafka client's queue and brokers; none before the first.
    pub kafka: Option<KafkaStatus>,
    /// Topics that had events, by name.
    pub topics: BTreeMap<String, TopicStatus>,
}

impl PipelineStatus {
    /// Names the topics with undelivered events, what is waited for before, and the known reasons.
    pub(crate) fn undelivered(&self) -> String {
        let gate = self.gate_waits_for.iter().map(|condition| format!("waiting for {condition}"));
        let mut reasons: Vec<_> = gate.collect();
        let waiting = self.topics.iter().filter(|(_, topic)| topic.waiting > 0);
        reasons.extend(waiting.map(|(name, topic)| topic.undelivered(name)));
        reasons.extend(self.kafka_error.as_ref().map(|error| format!("Kafka: {error}")));
        reasons.join("; ")
    }
}

/// Maximum amount of unread WAL of a relay that counts as up to date: one segment. With more, the
/// lag in seconds is unknown.
const MAX_UNREAD: u64 = 16 << 20;

impl Status {
    pub fn snapshot(&self) -> PipelineStatus {
        let now = Instant::now();
        let state = self.state.borrow().clone();
        let lsn = |position: &AtomicU64| Lsn::new(position.load(Relaxed));
        let (received_lsn, saved_lsn) =
            (lsn(&self.counts.received_lsn), lsn(&self.counts.saved_lsn));
        let delivered_lsn = lsn(&self.counts.delivered_lsn).max(saved_lsn);
        let seconds = self.undelivered_batches().seconds(SystemTime::now());
        let locked = self.locked();
        let retained_wal_growth = locked.growth.per_second();
        let wal_end = locked.retained.wal_end.max(locked.start_wal_end);
        let actors = locked.actors.iter();
        PipelineStatus {
            stopped_by: locked.stopped_by.clone(),
            generation: self.counts.generation.load(Relaxed),
            received_lsn,
            saved_lsn,
            confirmed_lsn: lsn(&self.counts.confirmed_lsn),
            retained_wal_bytes: locked.retained.bytes(),
            retained_wal_waits_for: locked.retained_wal_waits_for.clone(),
            publication_problems: locked.publishing.problems.clone(),
            publication_errors: locked.publishing.errors.clone(),
            unpublished: locked.publishing.unpublished.clone(),
            unpublished_ranges: locked.publishing.ranges.clone(),
            retained_wal_growth,
            safe_wal_bytes: locked.retained.safe_wal_size,
            slot_lost_in_seconds: time_left(locked.retained.safe_wal_size, retained_wal_growth),
            wal_end_lsn: locked.retained.wal_end,
            delivered_lsn,
            saved_at: locked.saved_at,
            lag: match &state {
                // Only the instance that reads the slot knows.
                PipelineState::StandingBy { .. } | PipelineState::Stopped => Lag::default(),
                _ => Lag {
                    bytes: received_lsn.max(wal_end).distance_from(delivered_lsn),
                    events: locked.topics.values().map(|topic| topic.status.waiting).sum(),
                    seconds: seconds.or((state == PipelineState::Running
                        && wal_end.distance_from(received_lsn) <= MAX_UNREAD)
                        .then_some(0.0)),
                },
            },
            events_per_second: locked.rate.per_second().unwrap_or_default(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            actors: actors.clone().map(|(name, actor)| (*name, actor.snapshot(now))).collect(),
            events_read: self.counts.events_read.load(Relaxed),
            events: self.counts.events.load(Relaxed),
            events_filtered: self.counts.events_filtered.load(Relaxed),
            dead_letters: self.counts.dead_letters.load(Relaxed),
            held_events: locked.held.events,
            held_aggregates: locked.held.aggregates,
            held_since: locked.held.oldest.map(|oldest| {
                oldest.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
            }),
            transactions: self.counts.transactions.load(Relaxed),
            transaction_commit_seconds: self.counts.commit_us.load(Relaxed) as f64 / 1e6,
            in_flight_bytes: self.window.used(),
            window_bytes: self.window.size(),
            gate_bytes: self.counts.gate_bytes.load(Relaxed),
            gate_waits_for: locked.gate_waits_for.clone(),
            replication_errors: self.counts.replication_errors.load(Relaxed),
            retention_removed: self.counts.retention_removed.load(Relaxed),
            retention_errors: self.counts.retention_errors.load(Relaxed),
            checkpoint_errors: self.counts.checkpoint_errors.load(Relaxed),
            retention_last_run: self.counts.retention_last_run.load(Relaxed),
            restarts: actors
                .filter(|(_, actor)| actor.restarts > 0)
                .map(|(name, actor)| (*name, actor.restarts))
                .collect(),
            kafka_error: locked.kafka_error.clone(),
            kafka: (!locked.kafka_clients.is_empty())
                .then(|| KafkaStatus::sum(locked.kafka_clients.values())),
            topics: locked
                .topics
                .iter()
                .map(|(name, topic)| (name.to_string(), topic.snapshot(now)))
                .collect(),
            state,
        }
    }
}

/// Seconds until `bytes` are used up at this growth per second; none without growth.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn time_left(bytes: Option<i64>, growth: Option<f64>) -> Option<u64> {
    let (bytes, growth) = (bytes?, growth.filter(|growth| *growth >= 1.0)?);
    Some((bytes.max(0) as f64 / growth) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_limit_and_the_growth() {
        assert_eq!(time_left(Some(1_000), Some(10.0)), Some(100));
        assert_eq!(time_left(Some(-5), Some(10.0)), Some(0), "it is passed");
        assert_eq!(time_left(Some(1_000), Some(-10.0)), None);
        assert_eq!(time_left(Some(1_000), None), None);
        assert_eq!(time_left(None, Some(10.0)), None, "there is none");
    }
}
