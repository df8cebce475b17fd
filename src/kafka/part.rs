//! The records of one batch on their way, and what a topic has in flight.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rdkafka::{
    Message,
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use tokio::sync::watch;

use super::{
    errors::kafka_error,
    record::{Record, is_record_of, place_refused},
    room::{Room, cost},
    transactions::Refusals,
};
use crate::{
    Error, ErrorKind, Event, Result,
    faults::{FaultSite, Faults},
    format::MadeRecord,
    messages::{AckToken, Refused, TopicBatch},
    schema_registry::Prefixes,
};

/// The records of one [`TopicBatch`] on their way.
pub(crate) struct Part {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    /// Of some, the record is not the usual one: headers of its records are counted.
    counts_headers: bool,
    left: AtomicUsize,
    answer: Mutex<Answer>,
    faults: Faults,
    in_flight: InFlight,
    room: Room,
    /// In transactions: what no broker takes is remembered for the next one.
    refusals: Option<Refusals>,
    prefixes: Prefixes,
}

struct Answer {
    token: Option<AckToken>,
    /// The first failure that may pass.
    error: Option<Error>,
    /// What will never be taken.
    refused: Vec<Refused>,
    /// Where the next event that fails is, probably: records fail in their order.
    next: usize,
}

impl Part {
    pub(super) fn new(
        batch: TopicBatch,
        prefixes: Prefixes,
        in_flight: InFlight,
        room: Room,
        refusals: Option<Refusals>,
        faults: Faults,
    ) -> Arc<Self> {
        let TopicBatch { topic, events, ack } = batch;
        in_flight.0.send_modify(|parts| *parts += 1);
        let left = AtomicUsize::new(events.len());
        let answer = Answer { token: Some(ack), error: None, refused: Vec::new(), next: 0 };
        let counts_headers = events.iter().any(|event| event.way().is_some());
        let answer = Mutex::new(answer);
        Arc::new(Part {
            topic,
            events,
            counts_headers,
            left,
            answer,
            faults,
            in_flight,
            room,
            refusals,
            prefixes,
        })
    }

    /// Of one record that is no event's, and that nobody asks after.
    pub(super) fn of_position(topic: Arc<str>, in_flight: InFlight, room: Room) -> Arc<Self> {
        in_flight.0.send_modify(|parts| *parts += 1);
        let answer = Answer { token: None, error: None, refused: Vec::new(), next: 0 };
        Arc::new(Part {
            topic,
            events: Arc::default(),
            counts_headers: false,
            left: AtomicUsize::new(1),
            answer: Mutex::new(answer),
            faults: Faults::default(),
            in_flight,
            room,
            refusals: None,
            prefixes: Prefixes::default(),
        })
    }

    /// Why no broker takes this event's record, if that was said before.
    pub(super) fn known_refusal(&self, index: usize) -> Option<Error> {
        self.refusals.as_ref()?.of(&self.topic, self.events.get(index)?)
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Where its records go.
    pub fn topic(&self) -> &str {
        &self.topic
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
        cost(Some(record.key), record.value, self.header_bytes(Some(&record.headers)))
    }

    fn header_bytes(&self, headers: Option<&impl Headers>) -> usize {
        let Some(headers) = headers.filter(|_| self.counts_headers) else { return 0 };
        let bytes = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        headers.iter().map(|header| header.key.len() + bytes(header.value)).sum()
    }

    /// Kafka has a record.
    pub(super) fn delivered(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(self.lock());
        }
    }

    /// librdkafka is done with a record.
    pub(super) fn leaves(&self, record: &BorrowedMessage<'_>) {
        let headers = self.header_bytes(record.headers());
        self.room.give(cost(record.key(), record.payload(), headers));
    }

    /// No record can be made of the event at `index`.
    pub(super) fn refuse(&self, index: usize, error: Error) {
        let mut answer = self.lock();
        answer.refused.push(Refused { index, error });
        self.ended(answer);
    }

    /// The record of the event at `index` can't be sent.
    pub(super) fn failed_at(&self, index: usize, error: KafkaError) {
        self.fail(self.lock(), Some(index), error);
    }

    /// Kafka does not have a record.
    pub(super) fn failed(&self, error: KafkaError, record: &BorrowedMessage<'_>) {
        let mut answer = self.lock();
        // The report names no event. Its record does; of two with the same, each has its report.
        let (count, next) = (self.events.len(), answer.next);
        let index = (next..count).chain(0..next.min(count)).find(|index| {
            let is_its = self.event(*index).is_some_and(|(event, made)| {
                made.is_ok_and(|made| is_record_of(event, made.as_ref(), record))
            });
            is_its && answer.refused.iter().all(|refused| refused.index != *index)
        });
        answer.next = index.map_or(0, |index| index + 1);
        self.fail(answer, index, error);
    }

    fn fail(&self, mut answer: MutexGuard<'_, Answer>, index: Option<usize>, error: KafkaError) {
        let code = error.rdkafka_error_code();
        let mut error =
            kafka_error(format!("Kafka did not take a record for {}", self.topic), error);
        if let Some((event, Ok(made))) = index.and_then(|index| self.event(index))
            && let Some(refused) = place_refused(&Record::new(event, made.as_ref()), code)
        {
            error = refused.caused_by(error);
        }
        match (error.kind(), index) {
            (ErrorKind::RecordRefused | ErrorKind::RecordTooLarge, Some(index)) => {
                if let (Some(refusals), Some(event)) = (&self.refusals, self.events.get(index)) {
                    refusals.note(&self.topic, event, &error);
                }
                answer.refused.push(Refused { index, error });
            }
            _ => {
                answer.error.get_or_insert(error);
            }
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
        let Answer { token, error, refused, .. } = &mut *answer;
        let Some(token) = token.take() else { return };
        self.faults.reach(FaultSite::AfterProduce);
        match error.take() {
            // What was refused is sent again with the rest, and refused again.
            Some(error) => token.fail_with(error, None),
            None if refused.is_empty() => token.ack(),
            None => {
                let mut refused = std::mem::take(refused);
                refused.sort_by_key(|refused| refused.index);
                token.refuse_records(refused);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.in_flight.0.send_modify(|parts| *parts = parts.saturating_sub(1));
    }
}

/// How many parts of a topic are in librdkafka's hands.
///
/// It belongs to the topic and not to its actor: who follows on a failed actor
/// must not send before what that one sent has ended, or the order would break.
#[derive(Clone)]
pub(crate) struct InFlight(Arc<watch::Sender<usize>>);

impl Default for InFlight {
    fn default() -> Self {
        InFlight(Arc::new(watch::Sender::new(0)))
    }
}

impl InFlight {
    /// Waits until nothing is in flight. Cancel-safe.
    pub async fn ended(&self) {
        // The sender is part of self, so the channel can't close meanwhile.
        let _ = self.0.subscribe().wait_for(|parts| *parts == 0).await;
    }
}
