//! A pipeline at one moment.

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

/// Where a pipeline is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum PipelineState {
    /// Connecting and checking positions.
    #[default]
    Starting,
    /// Reading and delivering.
    Running,
    /// Another instance reads the slot; this one takes over when it ends.
    StandingBy {
        /// Who has the slot, as the server says it.
        error: String,
    },
    /// Failed; the next generation starts after a pause.
    Retrying {
        /// What it waits for to become possible again.
        error: String,
    },
    /// Reading has ended; what is in flight is being finished.
    Draining,
    /// Over.
    Stopped,
}

/// A pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// Where it is in its life.
    #[serde(flatten)]
    pub state: PipelineState,
    /// The error that it ended with; none while it lives, or where it was asked to stop.
    pub stopped_by: Option<String>,
    /// Which life of the reader; counts from 1.
    pub generation: u64,
    /// End of the WAL that the server has sent or reported.
    pub received_lsn: Lsn,
    /// Everything up to here is delivered and saved.
    pub saved_lsn: Lsn,
    /// Everything up to here PostgreSQL was told to forget.
    pub confirmed_lsn: Lsn,
    /// WAL that the server kept for the slot when it was last asked, in bytes.
    pub retained_wal_bytes: u64,
    /// What it is kept for, while that is more than `postgres.retained_wal_warning`.
    pub retained_wal_waits_for: Option<String>,
    /// Problems with the publication, as of the last look.
    pub publication_problems: Vec<PublicationProblem>,
    /// Errors among them, by outbox table.
    #[serde(skip)]
    pub(crate) publication_errors: BTreeMap<String, u64>,
    /// Rows that were not published: the last hundred ranges that this process saw.
    pub unpublished: Vec<UnpublishedRows>,
    /// Number of such ranges, by outbox table.
    #[serde(skip)]
    pub(crate) unpublished_ranges: BTreeMap<String, u64>,
    /// How fast it grows, in bytes a second over the last two minutes.
    pub retained_wal_growth: Option<f64>,
    /// WAL that may yet be written before the server gives the slot up; none without
    /// `max_slot_wal_keep_size`. What its disk has left, a server does not say.
    pub safe_wal_bytes: Option<i64>,
    /// How long that lasts at this growth; none without a limit, or while it does not grow.
    pub slot_lost_in_seconds: Option<u64>,
    /// End of the server's WAL when it was last asked.
    pub wal_end_lsn: Lsn,
    /// Everything up to here is delivered; saved within `checkpoint.interval`.
    pub delivered_lsn: Lsn,
    /// When a position was last saved, Unix seconds.
    pub saved_at: Option<u64>,
    /// Lag of delivery; unknown while another instance reads, or after the end.
    pub lag: Lag,
    /// Records delivered, a second over the last ten.
    pub events_per_second: f64,
    /// How long ago the pipeline was started.
    pub uptime_seconds: u64,
    /// The actors of the pipeline, by name; those of topics are in `topics`.
    pub actors: BTreeMap<&'static str, ActorStatus>,
    /// Events that were read from the WAL, by this process; again after a failure of the chain.
    pub events_read: u64,
    /// Records that were delivered, by this process: of an event, one for each topic.
    pub events: u64,
    /// Events that a route dropped or `kafka.unrouted` ignores, by this process.
    pub events_filtered: u64,
    /// Events that went to the dead letters, by this process.
    pub dead_letters: u64,
    /// Kafka transactions that were committed; none without exactly-once.
    pub transactions: u64,
    /// How long the last one took to commit, in seconds.
    pub transaction_commit_seconds: f64,
    /// Bytes between the WAL and the acknowledgement.
    pub in_flight_bytes: usize,
    /// The most that these may be.
    pub window_bytes: usize,
    /// Failures of the replication connection, or of making one.
    pub replication_errors: u64,
    /// Delivered rows that `retention` removed, by this process.
    pub retention_removed: u64,
    /// Failures to remove such rows.
    pub retention_errors: u64,
    /// Failures to save the position, after each of which it is tried again.
    pub checkpoint_errors: u64,
    /// When they were last looked for, Unix seconds; 0 for never.
    pub retention_last_run: u64,
    /// How often an actor failed and was started again, by its name.
    pub restarts: BTreeMap<&'static str, u64>,
    /// What the Kafka client complained of last, if nothing was delivered since.
    pub kafka_error: Option<String>,
    /// The Kafka client's queue and its brokers, when it last told; none before.
    pub kafka: Option<KafkaStatus>,
    /// Topics that had events, by name.
    pub topics: BTreeMap<String, TopicStatus>,
}

impl PipelineStatus {
    /// Which topics have events that are not delivered, and what is known of why.
    pub(crate) fn undelivered(&self) -> String {
        let waiting = self.topics.iter().filter(|(_, topic)| topic.waiting > 0);
        let mut reasons: Vec<_> = waiting.map(|(name, topic)| topic.undelivered(name)).collect();
        reasons.extend(self.kafka_error.as_ref().map(|error| format!("Kafka: {error}")));
        reasons.join("; ")
    }
}

/// Unread WAL of a relay that is up to date, at most: a segment. The age of more than that is not
/// known.
const UNREAD: u64 = 16 << 20;

impl Status {
    pub fn snapshot(&self) -> PipelineStatus {
        let now = Instant::now();
        let state = self.state.borrow().clone();
        let lsn = |position: &AtomicU64| Lsn::new(position.load(Relaxed));
        let (received_lsn, saved_lsn) =
            (lsn(&self.counts.received_lsn), lsn(&self.counts.saved_lsn));
        let delivered_lsn = lsn(&self.counts.delivered_lsn).max(saved_lsn);
        let seconds = self.on_the_way().seconds(SystemTime::now());
        let slow = self.slow();
        let retained_wal_growth = slow.growth.per_second();
        let wal_end = slow.retained.wal_end.max(slow.start_wal_end);
        let actors = slow.actors.iter();
        PipelineStatus {
            stopped_by: slow.stopped_by.clone(),
            generation: self.counts.generation.load(Relaxed),
            received_lsn,
            saved_lsn,
            confirmed_lsn: lsn(&self.counts.confirmed_lsn),
            retained_wal_bytes: slow.retained.bytes(),
            retained_wal_waits_for: slow.retained_wal_waits_for.clone(),
            publication_problems: slow.publishing.problems.clone(),
            publication_errors: slow.publishing.errors.clone(),
            unpublished: slow.publishing.unpublished.clone(),
            unpublished_ranges: slow.publishing.ranges.clone(),
            retained_wal_growth,
            safe_wal_bytes: slow.retained.safe_wal_size,
            slot_lost_in_seconds: lasts(slow.retained.safe_wal_size, retained_wal_growth),
            wal_end_lsn: slow.retained.wal_end,
            delivered_lsn,
            saved_at: slow.saved_at,
            lag: match &state {
                // Whoever has the slot knows, or nobody.
                PipelineState::StandingBy { .. } | PipelineState::Stopped => Lag::default(),
                _ => Lag {
                    bytes: received_lsn.max(wal_end).distance_from(delivered_lsn),
                    events: slow.topics.values().map(|topic| topic.status.waiting).sum(),
                    seconds: seconds.or((state == PipelineState::Running
                        && wal_end.distance_from(received_lsn) <= UNREAD)
                        .then_some(0.0)),
                },
            },
            events_per_second: slow.rate.per_second().unwrap_or_default(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            actors: actors.clone().map(|(name, actor)| (*name, actor.snapshot(now))).collect(),
            events_read: self.counts.events_read.load(Relaxed),
            events: self.counts.events.load(Relaxed),
            events_filtered: self.counts.events_filtered.load(Relaxed),
            dead_letters: self.counts.dead_letters.load(Relaxed),
            transactions: self.counts.transactions.load(Relaxed),
            transaction_commit_seconds: self.counts.commit_us.load(Relaxed) as f64 / 1e6,
            in_flight_bytes: self.window.used(),
            window_bytes: self.window.size(),
            replication_errors: self.counts.replication_errors.load(Relaxed),
            retention_removed: self.counts.retention_removed.load(Relaxed),
            retention_errors: self.counts.retention_errors.load(Relaxed),
            checkpoint_errors: self.counts.checkpoint_errors.load(Relaxed),
            retention_last_run: self.counts.retention_last_run.load(Relaxed),
            restarts: actors
                .filter(|(_, actor)| actor.restarts > 0)
                .map(|(name, actor)| (*name, actor.restarts))
                .collect(),
            kafka_error: slow.kafka_error.clone(),
            kafka: (!slow.kafka_clients.is_empty())
                .then(|| KafkaStatus::sum(slow.kafka_clients.values())),
            topics: slow
                .topics
                .iter()
                .map(|(name, topic)| (name.to_string(), topic.snapshot(now)))
                .collect(),
            state,
        }
    }
}

/// How long so many bytes last at a growth of so many a second; none where it does not grow.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn lasts(bytes: Option<i64>, growth: Option<f64>) -> Option<u64> {
    let (bytes, growth) = (bytes?, growth.filter(|growth| *growth >= 1.0)?);
    Some((bytes.max(0) as f64 / growth) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lasts_as_long_as_the_growth_lets_it() {
        assert_eq!(lasts(Some(1_000), Some(10.0)), Some(100));
        assert_eq!(lasts(Some(-5), Some(10.0)), Some(0), "it is passed");
        assert_eq!(lasts(Some(1_000), Some(-10.0)), None);
        assert_eq!(lasts(Some(1_000), None), None);
        assert_eq!(lasts(None, Some(10.0)), None, "there is none");
    }
}
