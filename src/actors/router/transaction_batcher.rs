//! Collects batches into Kafka transactions and says when one is committed: a plain struct.
//!
//! A transaction holds whole batches, in the order of the stream: all that the router
//! passed in since the last one, and nothing else. So its end is one position, and what
//! comes while it is being closed waits here, holding its bytes of the window. While it is
//! committed, the next one is open; that one is closed only after the commit.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    Lsn,
    checkpoint::Cut,
    config::DeliveryConfig,
    messages::{BatchDone, BatchId, EventBatch},
};

/// TransactionLimits at which a transaction is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransactionLimits {
    interval: Duration,
    max_interval: Duration,
    max_bytes: usize,
}

impl From<&DeliveryConfig> for TransactionLimits {
    fn from(config: &DeliveryConfig) -> Self {
        TransactionLimits {
            interval: config.interval,
            max_interval: config.max_interval.max(config.interval),
            max_bytes: usize::try_from(config.max_bytes.as_u64()).unwrap_or(usize::MAX),
        }
    }
}

/// Bytes in a transaction, or on their way to Kafka, from which on the relay is catching up;
/// what is read as it is written is far less.
const CATCH_UP_BYTES: usize = 1 << 20;

/// One chain's transactions, one after the other.
pub(crate) struct TransactionBatcher {
    limits: TransactionLimits,
    state: State,
    /// True while the transaction before this one is committed.
    is_committing: bool,
    /// Position of the stream behind the batches of the transaction.
    end: Cut,
    /// Batches of the transaction that are not done, and their bytes.
    outstanding: HashMap<BatchId, usize>,
    outstanding_bytes: usize,
    done: Vec<BatchDone>,
    bytes: usize,
    /// Time at which its first event was dispatched; none where it has none.
    since: Option<Instant>,
    last_commit: Option<Instant>,
    held: VecDeque<EventBatch>,
    paused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It is full: the next batches belong to the next one.
    Closing,
    /// The commit was asked for; Kafka's client still adds what is sent to this transaction.
    Sealing,
}

/// The next thing to do.
#[derive(Debug)]
pub(crate) enum NextStep {
    /// Nothing until a batch ends, or until this time.
    Wait(Option<Instant>),
    /// These batches are done, and nothing of them is in the transaction.
    PassOn(Vec<BatchDone>),
    /// Commit the transaction, which has all of these, with this position.
    Commit(Cut, Vec<BatchDone>),
}

impl TransactionBatcher {
    /// Begins at `lsn`, where reading starts.
    pub fn new(limits: TransactionLimits, lsn: Lsn, paused: bool) -> Self {
        TransactionBatcher {
            limits,
            state: State::Open,
            is_committing: false,
            end: Cut { lsn, partial: None },
            outstanding: HashMap::new(),
            outstanding_bytes: 0,
            done: Vec::new(),
            bytes: 0,
            since: None,
            last_commit: None,
            held: VecDeque::new(),
            paused,
        }
    }

    /// Takes a batch; it comes out of [`next_batch`](Self::next_batch) when it is its turn.
    pub fn push(&mut self, batch: EventBatch) {
        self.held.push_back(batch);
    }

    /// The next batch of the open transaction.
    pub fn next_batch(&mut self) -> Option<EventBatch> {
        if self.state != State::Open || self.paused {
            return None;
        }
        let batch = self.held.pop_front()?;
        let bytes = batch.permit.bytes();
        self.outstanding.insert(batch.id, bytes);
        self.outstanding_bytes += bytes;
        self.bytes += bytes;
        let lsn = self.end.lsn.max(batch.end.lsn).max(batch.commit_end_lsn.unwrap_or(Lsn::ZERO));
        let partial = batch.end.partial.filter(|partial| partial.final_lsn >= lsn);
        self.end = Cut { lsn, partial };
        if self.bytes >= self.limits.max_bytes {
            self.state = State::Closing;
        }
        Some(batch)
    }

    /// Notes that something of a batch goes to Kafka, or to a handler that may send to it.
    pub fn mark_dispatched(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes that all of a batch of the transaction is with Kafka.
    pub fn done(&mut self, done: BatchDone) {
        self.outstanding_bytes -= self.outstanding.remove(&done.id).unwrap_or(0);
        self.done.push(done);
    }

    /// Gives the next thing to do: asked after each change, and at the time that it named.
    pub fn next_step(&mut self, now: Instant) -> NextStep {
        if self.state == State::Sealing {
            return NextStep::Wait(None);
        }
        let Some(since) = self.since else {
            let done = std::mem::take(&mut self.done);
            if self.outstanding.is_empty() {
                (self.state, self.bytes) = (State::Open, 0);
            }
            return if done.is_empty() { NextStep::Wait(None) } else { NextStep::PassOn(done) };
        };
        let due = self.last_commit.map_or(since, |last| last + self.limits.interval);
        let full = since + self.limits.max_interval;
        let catching_up = self.outstanding_bytes.max(self.bytes) >= CATCH_UP_BYTES;
        if now >= full || now >= due && !catching_up {
            self.state = State::Closing;
        }
        if self.state == State::Open {
            return NextStep::Wait(Some(if now < due { due } else { full }));
        }
        if !self.outstanding.is_empty() || self.is_committing {
            return NextStep::Wait(None);
        }
        (self.state, self.is_committing) = (State::Sealing, true);
        self.last_commit = Some(now);
        NextStep::Commit(self.end, std::mem::take(&mut self.done))
    }

    /// Opens the next transaction: this one takes nothing more.
    pub fn sealed(&mut self) {
        self.state = State::Open;
        (self.bytes, self.since) = (0, None);
    }

    /// Notes that the commit is done.
    pub fn committed(&mut self) {
        self.is_committing = false;
    }

    /// Holds batches back while `paused`: one transaction has all topics, so a pause of one holds all.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::Partial, messages::ByteWindow};

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: TransactionLimits = TransactionLimits {
        interval: SECOND,
        max_interval: SECOND.saturating_mul(5),
        max_bytes: 100,
    };

    struct Bench {
        batcher: TransactionBatcher,
        window: ByteWindow,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let batcher = TransactionBatcher::new(LIMITS, Lsn::new(5), false);
            Bench { batcher, window: ByteWindow::new(8 << 20), now: Instant::now() }
        }

        fn push(&mut self, seq: u64, end: Option<u64>, partial: Option<(u64, u64)>) {
            let partial =
                partial.map(|(lsn, events)| Partial { xid: 1, final_lsn: Lsn::new(lsn), events });
            self.push_batch(seq, end, partial, 40);
        }

        fn push_bytes(&mut self, seq: u64, bytes: usize) {
            self.push_batch(seq, None, None, bytes);
        }

        fn push_batch(
            &mut self,
            seq: u64,
            end: Option<u64>,
            partial: Option<Partial>,
            bytes: usize,
        ) {
            self.batcher.push(EventBatch {
                id: BatchId { generation: 1, seq },
                events: Vec::new(),
                commit_end_lsn: end.map(Lsn::new),
                end: Cut { partial, ..Cut::default() },
                permit: self.window.try_acquire(bytes).expect("room"),
            });
        }

        /// The batches that come in now, each with something for Kafka.
        fn let_in(&mut self) -> Vec<u64> {
            let mut seqs = Vec::new();
            while let Some(batch) = self.batcher.next_batch() {
                self.batcher.mark_dispatched(self.now);
                seqs.push(batch.id.seq);
            }
            seqs
        }

        fn done(&mut self, seq: u64) {
            let id = BatchId { generation: 1, seq };
            self.batcher.done(BatchDone { id, commit_end_lsn: None, events: 1 });
        }

        fn waits_until(&mut self) -> Option<Duration> {
            match self.batcher.next_step(self.now) {
                NextStep::Wait(until) => until.map(|until| until - self.now),
                other => panic!("{other:?}"),
            }
        }

        fn committed(&mut self) {
            self.batcher.sealed();
            self.batcher.committed();
        }

        fn commits(&mut self) -> (Cut, Vec<u64>) {
            match self.batcher.next_step(self.now) {
                NextStep::Commit(cut, done) => (cut, done.iter().map(|done| done.id.seq).collect()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn cut(lsn: u64) -> Cut {
        Cut { lsn: Lsn::new(lsn), partial: None }
    }

    #[test]
    fn the_first_events_are_committed_once_they_are_with_kafka_and_the_next_after_the_interval() {
        let mut bench = Bench::new();
        bench.push(0, Some(10), None);
        assert_eq!(bench.let_in(), [0]);
        assert_eq!(bench.waits_until(), None, "it is closed, and not done");
        bench.done(0);
        assert_eq!(bench.commits(), (cut(10), vec![0]));
        bench.committed();
        bench.push(1, Some(20), None);
        assert_eq!(bench.let_in(), [1]);
        bench.done(1);
        assert_eq!(bench.waits_until(), Some(SECOND));
        bench.now += SECOND;
        assert_eq!(bench.commits(), (cut(20), vec![1]));
    }

    #[test]
    fn what_comes_while_a_transaction_is_committed_is_in_the_next_one() {
        let mut bench = Bench::new();
        bench.push(0, Some(10), None);
        bench.let_in();
        bench.done(0);
        bench.commits();
        bench.push(1, Some(20), None);
        assert_eq!(bench.let_in(), [0; 0], "it is not sealed yet");
        assert_eq!(bench.waits_until(), None);
        bench.batcher.sealed();
        assert_eq!(bench.let_in(), [1]);
        bench.done(1);
        bench.now += SECOND;
        assert_eq!(bench.waits_until(), None, "one commit after the other");
        bench.push(2, Some(30), None);
        assert_eq!(bench.let_in(), [0; 0], "the second is closed");
        bench.batcher.committed();
        assert_eq!(bench.commits(), (cut(20), vec![1]));
    }

    #[test]
    fn a_full_transaction_takes_nothing_more_and_is_committed_when_all_of_it_is_done() {
        let mut bench = Bench::new();
        for seq in 0..4 {
            bench.push(seq, Some(10 * (seq + 1)), None);
        }
        assert_eq!(bench.let_in(), [0, 1, 2]);
        bench.done(2);
        bench.done(0);
        assert_eq!(bench.waits_until(), None);
        bench.done(1);
        assert_eq!(bench.commits(), (cut(30), vec![2, 0, 1]));
    }

    #[test]
    fn while_more_is_read_a_transaction_is_closed_after_the_longest_time() {
        let mut bench = Bench::new();
        bench.batcher.limits.max_bytes = usize::MAX;
        bench.push_bytes(0, CATCH_UP_BYTES);
        bench.let_in();
        assert_eq!(bench.waits_until(), Some(SECOND * 5));
        bench.now += SECOND * 5;
        assert_eq!(bench.waits_until(), None, "it is full, and not done");
        bench.push_bytes(1, CATCH_UP_BYTES);
        assert_eq!(bench.let_in(), [0; 0]);
        bench.done(0);
        assert_eq!(bench.commits(), (cut(5), vec![0]));
    }

    #[test]
    fn the_position_has_the_events_of_the_transaction_that_it_ends_in() {
        let mut bench = Bench::new();
        bench.push(0, Some(10), Some((12, 3)));
        bench.let_in();
        bench.done(0);
        assert_eq!(bench.commits().0.partial.map(|partial| partial.events), Some(3));
        bench.committed();
        bench.now += SECOND;
        // Without an end of its own, it goes on from the last.
        bench.push(1, None, Some((12, 7)));
        bench.let_in();
        bench.done(1);
        let (at, _) = bench.commits();
        assert_eq!((at.lsn, at.partial.map(|partial| partial.events)), (Lsn::new(10), Some(7)));
        bench.committed();
        bench.now += SECOND;
        bench.push(2, Some(14), Some((12, 9)));
        bench.let_in();
        bench.done(2);
        assert_eq!(bench.commits().0, cut(14), "that one has ended");
    }

    #[test]
    fn batches_of_which_nothing_is_sent_need_no_transaction() {
        let mut bench = Bench::new();
        bench.push(0, Some(10), None);
        assert_eq!(bench.batcher.next_batch().map(|batch| batch.id.seq), Some(0));
        bench.done(0);
        assert!(
            matches!(bench.batcher.next_step(bench.now), NextStep::PassOn(done) if done.len() == 1)
        );
        assert_eq!(bench.waits_until(), None);
        bench.push(1, Some(20), None);
        bench.let_in();
        bench.done(1);
        assert_eq!(bench.commits(), (cut(20), vec![1]));
    }

    #[test]
    fn a_pause_lets_nothing_in_and_ends_what_is_open() {
        let mut bench = Bench::new();
        bench.push(0, Some(10), None);
        bench.let_in();
        bench.batcher.pause(true);
        bench.push(1, Some(20), None);
        assert_eq!(bench.let_in(), [0; 0]);
        bench.done(0);
        assert_eq!(bench.commits(), (cut(10), vec![0]));
        bench.committed();
        bench.batcher.pause(false);
        assert_eq!(bench.let_in(), [1]);
    }
}
