//! The records of one batch on their way.
//!
//! Each record ends once, by librdkafka's report, and the last one to end answers for the part.
//! A part that is given up before that answers when its last record has ended: what is
//! acknowledged by then is known, and is not sent again.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use rdkafka::{error::KafkaError, message::Headers};

use super::{
    first_records::AcknowledgedPartitions,
    in_flight::InFlight,
    limits::BatchLimits,
    queue_budget::{QueueBudget, cost},
    record::Record,
    refusals::Refusals,
    verdict::{self, Cause, Verdict},
};
use crate::{
    Error, ErrorKind, Event, Result,
    faults::{FaultSite, Faults},
    format::MadeRecord,
    messages::{AckToken, PartProgress, Refused, Suspects, TopicBatch},
    schema_registry::Prefixes,
};

/// The records of one [`TopicBatch`] on their way.
pub(crate) struct Part {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    suspects: Suspects,
    /// Of some, the record is not the usual one: headers of its records are counted.
    counts_headers: bool,
    ends: Box<[AtomicU8]>,
    left: AtomicUsize,
    answer: Mutex<Answer>,
    prefixes: Prefixes,
    in_flight: InFlight,
    terms: Terms,
}

/// Settings and state that all parts of a topic's actor share.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(super) budget: QueueBudget,
    pub(super) limits: BatchLimits,
    pub partitions: AcknowledgedPartitions,
    /// The most bytes of a batch of that client.
    pub(super) batch_size: usize,
    /// In transactions: what no broker takes is remembered for the next one.
    pub(super) refusals: Option<Refusals>,
    pub(super) cause: Cause,
    /// `dead_letter.policy = "block"`: nothing behind a refused record is sent.
    pub block: bool,
    /// A record failed, so that nothing behind it may be sent before it comes again.
    pub stopped: Arc<AtomicBool>,
    pub faults: Faults,
}

struct Answer {
    token: Option<AckToken>,
    /// The most telling of the errors so far.
    error: Option<(Verdict, Error)>,
    /// What will never be taken.
    refused: Vec<Refused>,
}

// How a record ended.
const OPEN: u8 = 0;
const DELIVERED: u8 = 1;
const REFUSED: u8 = 2;
/// Refused together with others.
const SUSPECT: u8 = 3;

impl Part {
    pub(super) fn new(
        batch: TopicBatch,
        prefixes: Prefixes,
        in_flight: InFlight,
        terms: Terms,
    ) -> Arc<Self> {
        let TopicBatch { topic, events, ack } = batch;
        Part::make(topic, events, Some(ack), prefixes, in_flight, terms)
    }

    /// A part of one record, of an event or of none, whose end nobody has to be told.
    pub(super) fn of_one(
        topic: Arc<str>,
        event: Option<Event>,
        prefixes: Prefixes,
        in_flight: InFlight,
        terms: Terms,
    ) -> Arc<Self> {
        let events = Arc::new(event.into_iter().collect());
        Part::make(topic, events, None, prefixes, in_flight, terms)
    }

    fn make(
        topic: Arc<str>,
        events: Arc<Vec<Event>>,
        token: Option<AckToken>,
        prefixes: Prefixes,
        in_flight: InFlight,
        terms: Terms,
    ) -> Arc<Self> {
        in_flight.part_begins();
        Arc::new(Part {
            suspects: token.as_ref().map(AckToken::suspects).unwrap_or_default(),
            counts_headers: events.iter().any(|event| event.way().is_some()),
            ends: events.iter().map(|_| AtomicU8::new(OPEN)).collect(),
            left: AtomicUsize::new(events.len().max(1)),
            answer: Mutex::new(Answer { token, error: None, refused: Vec::new() }),
            topic,
            events,
            prefixes,
            in_flight,
            terms,
        })
    }

    /// Why no broker takes this event's record, if that was said before.
    pub(super) fn known_refusal(&self, index: usize) -> Option<Error> {
        self.terms.refusals.as_ref()?.of(&self.topic, self.events.get(index)?)
    }

    /// Number of its events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Where its records go.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// True for a record that has to be sent alone.
    pub fn is_suspect(&self, index: usize) -> bool {
        self.suspects.contains(index)
    }

    /// True where a record is refused that all behind it has to wait for.
    pub fn is_blocked(&self) -> bool {
        self.terms.block && !self.lock().refused.is_empty()
    }

    /// The event at `index`, and the record that is made of it; none where that is the usual one.
    ///
    /// # Errors
    /// Why there can be no record of it.
    pub(super) fn event(&self, index: usize) -> Option<(&Event, Result<Option<MadeRecord>>)> {
        let event = self.events.get(index)?;
        Some((event, event.made(&self.topic, &self.prefixes)))
    }

    /// What a record takes in librdkafka's queue.
    pub(super) fn cost(&self, record: &Record<'_>) -> usize {
        let headers = if self.counts_headers { header_bytes(&record.headers) } else { 0 };
        cost(Some(record.key), record.value, headers)
    }

    /// No record can be made of the event at `index`, or none that a broker takes.
    pub(super) fn refuse(&self, index: usize, error: Error) {
        let mut answer = self.lock();
        self.note(index, REFUSED);
        answer.refused.push(Refused { index, error });
        self.ended(answer);
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
    pub(super) fn failed(&self, index: usize, alone: bool, cost: usize, error: KafkaError) {
        // The position's, which is no event's: its transaction fails.
        let Some((event, made)) = self.event(index) else { return self.ended(self.lock()) };
        let made = made.ok().flatten();
        let record = Record::new(event, made.as_ref());
        let verdict = Verdict::of(&error, &record);
        match if alone { verdict.of_alone() } else { verdict } {
            Verdict::Itself => self.refused(index, event, &record, error),
            Verdict::Batch => {
                if verdict::is_too_large(&error) {
                    self.terms.limits.was_too_large(&self.topic, self.terms.batch_size, cost);
                }
                if let Some(refusals) = &self.terms.refusals {
                    refusals.suspect(&self.topic, event, &self.prefixes);
                }
                let answer = self.lock();
                self.note(index, SUSPECT);
                self.fails(answer, Verdict::Batch, error);
            }
            verdict => self.fails(self.lock(), verdict, error),
        }
    }

    fn refused(&self, index: usize, event: &Event, record: &Record<'_>, error: KafkaError) {
        let error = verdict::refused(&self.topic, event, record, error);
        if let Some(refusals) = &self.terms.refusals {
            refusals.note(&self.topic, event, &error);
        }
        self.refuse(index, error);
    }

    fn fails(&self, mut answer: MutexGuard<'_, Answer>, verdict: Verdict, error: KafkaError) {
        self.terms.stopped.store(true, Ordering::Release);
        if answer.error.as_ref().is_none_or(|(known, _)| verdict < *known) {
            let in_transaction = self.terms.refusals.is_some();
            let error = verdict.failure(&self.topic, in_transaction, error);
            self.terms.cause.note(verdict, &error);
            answer.error = Some((verdict, error));
        }
        self.ended(answer);
    }

    fn ended(&self, answer: MutexGuard<'_, Answer>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(answer);
        }
    }

    /// The last record has ended: answers for the part.
    fn answer(&self, mut answer: MutexGuard<'_, Answer>) {
        let Answer { token, error, refused } = &mut *answer;
        let Some(token) = token.take() else { return };
        let all_ended = self.left.load(Ordering::Acquire) == 0;
        if all_ended {
            self.terms.faults.reach(FaultSite::AfterProduce);
        }
        let mut refused = std::mem::take(refused);
        refused.sort_by_key(|refused| refused.index);
        let mut suspects = self.that_ended(SUSPECT);
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
            None if refused.is_empty() => token.ack(),
            None => token.refuse_records(refused),
            Some((verdict, error)) => {
                let delivered = self.that_ended(DELIVERED);
                let at_once = verdict != Verdict::Topic;
                token.fail_after(error, PartProgress { delivered, refused, suspects, at_once });
            }
        }
    }

    /// The refusal of its only record; none if Kafka took it.
    ///
    /// # Errors
    /// The reason why it was neither taken nor refused.
    pub(super) fn end_of_one(&self) -> Result<Option<Error>> {
        let mut answer = self.lock();
        match (answer.error.take(), answer.refused.pop()) {
            (Some((_, error)), _) => Err(error),
            (None, refused) => Ok(refused.map(|refused| refused.error)),
        }
    }

    fn note(&self, index: usize, end: u8) {
        if let Some(known) = self.ends.get(index) {
            known.store(end, Ordering::Release);
        }
    }

    fn that_ended(&self, how: u8) -> Vec<usize> {
        let ends = self.ends.iter().enumerate();
        let so = ends.filter(|(_, end)| end.load(Ordering::Acquire) == how);
        so.map(|(index, _)| index).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // All that librdkafka had of it has ended, and the rest will not be sent.
        self.answer(self.lock());
        self.in_flight.part_ends();
    }
}

fn header_bytes(headers: &impl Headers) -> usize {
    let bytes = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
    headers.iter().map(|header| header.key.len() + bytes(header.value)).sum()
}

/// A record that librdkafka has: it is counted until its report has come.
pub(crate) struct Sent {
    part: Arc<Part>,
    index: usize,
    cost: usize,
    /// Its batch has no other record.
    alone: bool,
}

impl Sent {
    /// Counts it, before librdkafka has it: its report may come at once.
    pub(super) fn new(part: &Arc<Part>, index: usize, cost: usize, alone: bool) -> Box<Self> {
        part.terms.budget.reserve(cost);
        part.in_flight.record_begins();
        Box::new(Sent { part: Arc::clone(part), index, cost, alone })
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
        self.part.failed(self.index, self.alone, cost, error);
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
