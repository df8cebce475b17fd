//! Tracks the records of one batch until each is acknowledged or refused, then answers for the
//! batch.
//!
//! librdkafka reports once for each record, and the last report triggers the answer. A batch that
//! is abandoned earlier still answers only after its last report, so that records acknowledged by
//! then are known and not sent again.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use rdkafka::error::KafkaError;

use super::{
    first_records::AcknowledgedPartitions,
    in_flight::InFlight,
    limits::BatchLimits,
    queue_budget::{QueueBudget, cost},
    verdict::{self, RecordPlacement, Verdict},
};
use crate::{
    Error, ErrorKind, Result,
    faults::{FaultSite, Faults},
    record::{Answer, PartProgress, Record, RecordBatch, Records, Refused, Suspects},
};

/// A [`RecordBatch`] whose records are not all acknowledged or refused yet.
pub(crate) struct PendingBatch {
    topic: Arc<str>,
    records: Arc<dyn Records>,
    suspects: Suspects,
    ends: Box<[AtomicU8]>,
    left: AtomicUsize,
    outcome: Mutex<BatchResult>,
    in_flight: InFlight,
    terms: Terms,
}

/// Settings and state that all parts of a topic's actor share.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(super) budget: QueueBudget,
    pub(super) limits: BatchLimits,
    pub partitions: AcknowledgedPartitions,
    /// Maximum size of a batch of that client.
    pub(super) batch_size: usize,
    /// `dead_letter.policy = "block"`: nothing behind a refused record is sent.
    pub block: bool,
    /// A record failed, or was refused and blocks: nothing behind it may be sent before it comes
    /// again.
    pub stopped: Arc<AtomicBool>,
    pub faults: Faults,
}

struct BatchResult {
    /// None once it has been called.
    answer: Option<Box<dyn FnOnce(Answer) + Send>>,
    /// The most telling of the errors so far.
    error: Option<(Verdict, Error)>,
    /// Records that are refused for good.
    refused: Vec<Refused>,
}

// How a record ended.
const OPEN: u8 = 0;
const DELIVERED: u8 = 1;
const REFUSED: u8 = 2;
/// Refused together with others.
const SUSPECT: u8 = 3;

impl PendingBatch {
    pub(super) fn new(batch: RecordBatch, in_flight: InFlight, terms: Terms) -> Arc<Self> {
        let RecordBatch { records, suspects, answer } = batch;
        in_flight.part_begins();
        let count = records.len();
        Arc::new(PendingBatch {
            topic: Arc::clone(records.topic()),
            records,
            suspects,
            ends: (0..count).map(|_| AtomicU8::new(OPEN)).collect(),
            left: AtomicUsize::new(count.max(1)),
            outcome: Mutex::new(BatchResult {
                answer: Some(answer),
                error: None,
                refused: Vec::new(),
            }),
            in_flight,
            terms,
        })
    }

    /// Number of its records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The topic of the records.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// True for a record that has to be sent alone.
    pub fn is_suspect(&self, index: usize) -> bool {
        self.suspects.contains(index)
    }

    /// Makes the record at `index`.
    ///
    /// # Errors
    /// The reason why it can't be made.
    pub(super) fn record(&self, index: usize) -> Result<Record> {
        self.records.record(index)
    }

    /// Bytes that a record occupies in librdkafka's queue.
    pub(super) fn cost(&self, record: &Record) -> usize {
        let headers = if self.records.counts_headers() { record.header_bytes() } else { 0 };
        cost(Some(&record.key), record.value.as_deref(), headers)
    }

    /// No record can be made of the event at `index`, or none that a broker takes.
    pub(super) fn refuse(&self, index: usize, error: Error) {
        if self.terms.block {
            self.terms.stopped.store(true, Ordering::Release);
        }
        let mut outcome = self.lock();
        self.note(index, REFUSED);
        outcome.refused.push(Refused { index, error });
        self.ended(outcome);
    }

    /// It can't be sent now: what is left of it fails with this error.
    pub(super) fn fail(&self, error: Error) {
        self.terms.stopped.store(true, Ordering::Release);
        self.lock().error = Some((Verdict::Topic, error));
    }

    /// Kafka has a record.
    pub(super) fn delivered(&self, index: usize) {
        self.note(index, DELIVERED);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(self.lock());
        }
    }

    /// Kafka does not have a record, which was the only one of its batch or was not.
    pub(super) fn failed(&self, sent: &Sent, cost: usize, error: KafkaError) {
        let index = sent.index;
        let place = sent.place;
        let verdict = Verdict::of(&error, place);
        match if sent.alone { verdict.of_alone() } else { verdict } {
            Verdict::Itself => self.refused(index, place, error),
            Verdict::Batch => {
                if verdict::is_too_large(&error) {
                    self.terms.limits.was_too_large(&self.topic, self.terms.batch_size, cost);
                }
                let outcome = self.lock();
                self.note(index, SUSPECT);
                self.fails(outcome, Verdict::Batch, error);
            }
            verdict => self.fails(self.lock(), verdict, error),
        }
    }

    fn refused(&self, index: usize, place: RecordPlacement, error: KafkaError) {
        let error = verdict::refused(&self.topic, &self.records.describe(index), place, error);
        self.refuse(index, error);
    }

    fn fails(&self, mut outcome: MutexGuard<'_, BatchResult>, verdict: Verdict, error: KafkaError) {
        self.terms.stopped.store(true, Ordering::Release);
        if outcome.error.as_ref().is_none_or(|(known, _)| verdict < *known) {
            outcome.error = Some((verdict, verdict.failure(&self.topic, error)));
        }
        self.ended(outcome);
    }

    fn ended(&self, outcome: MutexGuard<'_, BatchResult>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(outcome);
        }
    }

    /// The last record has ended: answers for the part.
    fn answer(&self, mut outcome: MutexGuard<'_, BatchResult>) {
        let BatchResult { answer, error, refused } = &mut *outcome;
        let Some(answer) = answer.take() else { return };
        let all_ended = self.left.load(Ordering::Acquire) == 0;
        if all_ended {
            self.terms.faults.reach(FaultSite::AfterProduce);
        }
        let mut refused = std::mem::take(refused);
        refused.sort_by_key(|refused| refused.index);
        let mut suspects = self.indexes_ending(SUSPECT);
        let mut error = error.take();
        if self.terms.block
            && let Some(first) = refused.first()
        {
            let what = "a refused record blocks its topic";
            let blocked = Error::new(ErrorKind::RecordBlocked, what);
            error = Some((Verdict::Topic, blocked.caused_by(first.error.clone())));
            suspects.extend(refused.drain(..).map(|refused| refused.index));
        }
        if !all_ended {
            let what = "a batch was dropped without an answer";
            error.get_or_insert((Verdict::Topic, Error::new(ErrorKind::ActorFailed, what)));
        }
        match error {
            None if refused.is_empty() => answer(Answer::Delivered),
            None => answer(Answer::Refused(refused)),
            Some((verdict, error)) => {
                let delivered = self.indexes_ending(DELIVERED);
                let at_once = verdict != Verdict::Topic;
                let progress = PartProgress { delivered, refused, suspects, at_once };
                answer(Answer::Failed(error, progress));
            }
        }
    }

    fn note(&self, index: usize, end: u8) {
        if let Some(known) = self.ends.get(index) {
            known.store(end, Ordering::Release);
        }
    }

    fn indexes_ending(&self, how: u8) -> Vec<usize> {
        let ends = self.ends.iter().enumerate();
        let so = ends.filter(|(_, end)| end.load(Ordering::Acquire) == how);
        so.map(|(index, _)| index).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BatchResult> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingBatch {
    fn drop(&mut self) {
        // All that librdkafka had of it has ended, and the rest will not be sent.
        self.answer(self.lock());
        self.in_flight.part_ends();
    }
}

/// A record that librdkafka has: it is counted until its report has come.
pub(crate) struct Sent {
    part: Arc<PendingBatch>,
    index: usize,
    cost: usize,
    place: RecordPlacement,
    /// Its batch has no other record.
    alone: bool,
}

impl Sent {
    /// Counts it, before librdkafka has it: its report may come at once.
    pub(super) fn new(
        part: &Arc<PendingBatch>,
        index: usize,
        record: &Record,
        alone: bool,
    ) -> Box<Self> {
        let (cost, place) = (part.cost(record), RecordPlacement::of(record));
        part.terms.budget.reserve(cost);
        part.in_flight.record_begins();
        Box::new(Sent { part: Arc::clone(part), index, cost, place, alone })
    }

    /// Kafka has it, in that partition.
    pub(super) fn delivered(mut self, partition: i32) {
        self.leave();
        // What went alone went through another client, of which this says nothing.
        if !self.alone {
            self.part.terms.partitions.acknowledged(partition);
        }
        self.part.delivered(self.index);
    }

    /// librdkafka does not take it: it was in no batch.
    pub(super) fn not_sent(mut self, error: KafkaError) {
        self.alone = true;
        self.failed(error);
    }

    /// Kafka does not have it.
    pub(super) fn failed(mut self, error: KafkaError) {
        let cost = self.leave();
        self.part.failed(&self, cost, error);
    }

    fn leave(&mut self) -> usize {
        let cost = std::mem::take(&mut self.cost);
        self.part.terms.budget.release(cost);
        cost
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.leave();
        self.part.in_flight.record_ends();
    }
}
