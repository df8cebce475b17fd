//! Sends a topic's records in order, and single records alone where that is needed.
//!
//! Most records go to the client that the topic shares with others, as fast as that takes them.
//! A record that was refused together with others goes alone, through a client whose batches are
//! one record each. It is sent once everything in front of it has ended, and nothing behind it is
//! sent before it has ended: order is kept, and an error is about that record. The first record
//! after a failure goes alone too, so that a topic that goes on failing does not make the other
//! topics' client give up.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{
    first_records::FirstRecords,
    in_flight::InFlight,
    pending_batch::{PendingBatch, Terms},
    producer::{KafkaProducer, Queued},
};
use crate::{
    Result,
    faults::Faults,
    record::{Record, RecordBatch},
};

/// Makes, when it is first needed, a client that sends records one by one.
type MakeClient = Box<dyn Fn() -> Result<KafkaProducer> + Send>;

pub(crate) struct Outgoing {
    producer: KafkaProducer,
    /// None in transactions: what has to be tried alone is tried between them.
    one_by_one: Option<MakeClient>,
    in_flight: InFlight,
    terms: Terms,
    first: FirstRecords,
    /// Parts, and how much of each is sent.
    queue: VecDeque<(Arc<PendingBatch>, usize)>,
    /// The next record goes alone, whatever it is.
    tries: bool,
    /// The part of the record that is on its way alone.
    alone: Option<Arc<PendingBatch>>,
    given_up: bool,
}

/// The event after which there is more to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next batch.
    Done,
    /// librdkafka's queue has room again.
    NoRoom,
    /// All reports have come.
    AfterReports,
}

impl Outgoing {
    pub fn new(producer: KafkaProducer, in_flight: InFlight) -> Self {
        let first = FirstRecords::default();
        let terms = Terms { partitions: first.partitions(), ..producer.terms() };
        Outgoing {
            producer,
            one_by_one: None,
            in_flight,
            terms,
            first,
            queue: VecDeque::new(),
            tries: false,
            alone: None,
            given_up: false,
        }
    }

    /// Sends some records alone: the suspects, and the very first one if it `tries`.
    pub fn one_by_one(
        self,
        make: impl Fn() -> Result<KafkaProducer> + Send + 'static,
        tries: bool,
    ) -> Self {
        Outgoing { one_by_one: Some(Box::new(make)), tries, ..self }
    }

    /// Sends nothing behind a record that is refused.
    pub fn blocking(mut self) -> Self {
        self.terms.block = true;
        self
    }

    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Adds a batch behind the others.
    pub fn push(&mut self, batch: RecordBatch, faults: Faults) {
        let terms = Terms { faults, ..self.terms.clone() };
        let part = PendingBatch::new(batch, self.in_flight.clone(), terms);
        if self.is_stopped() {
            self.give_up();
        }
        // Dropped, it says that it was not sent.
        if !self.given_up {
            self.queue.push_back((part, 0));
        }
    }

    /// Sends what may be sent now, in order.
    pub fn send(&mut self) -> Next {
        while let Some((part, sent)) = self.queue.front() {
            if self.must_stop(part) {
                self.give_up();
                return Next::Done;
            }
            let (part, index) = (Arc::clone(part), *sent);
            if index == part.len() {
                self.queue.pop_front();
                continue;
            }
            match self.send_one(&part, index) {
                Queued::Done => {}
                Queued::NoRoom => return Next::NoRoom,
                Queued::NotNow => return Next::AfterReports,
            }
            if let Some((_, sent)) = self.queue.front_mut() {
                *sent += 1;
            }
        }
        Next::Done
    }

    fn send_one(&mut self, part: &Arc<PendingBatch>, index: usize) -> Queued {
        let goes_alone = self.tries || part.is_suspect(index);
        if (self.alone.is_some() || goes_alone) && self.in_flight.has_records() {
            return Queued::NotNow;
        }
        // Again, now that it has ended: its report may have come just before.
        if self.must_stop(part) {
            self.give_up();
            return Queued::Done;
        }
        self.alone = None;
        match &self.one_by_one {
            None => self.producer.send(part, index, false, |_| true),
            Some(make) if goes_alone => {
                let queued = match make() {
                    Ok(producer) => producer.send(part, index, true, |_| true),
                    Err(error) => {
                        part.fail(error);
                        self.give_up();
                        return Queued::Done;
                    }
                };
                if queued == Queued::Done {
                    (self.alone, self.tries) = (Some(Arc::clone(part)), false);
                }
                queued
            }
            Some(_) => {
                let first = &mut self.first;
                let may = |record: &Record| first.may_send(&record.key, record.partition);
                self.producer.send(part, index, false, may)
            }
        }
    }

    /// True if it helps to know how many partitions the topic has.
    pub fn asks_for_partitions(&self) -> bool {
        self.one_by_one.is_some() && self.first.asks_for_count()
    }

    /// All that was sent has ended; the topic has so many partitions, or 0 where that is not known.
    pub fn reports_have_come(&mut self, partitions: usize) {
        self.first.has_partitions(partitions);
        self.first.all_acknowledged();
    }

    /// True if a record failed, or is refused and blocks: what is behind it would overtake it,
    /// and a failure would disturb the topics that share the client.
    fn must_stop(&self, part: &Arc<PendingBatch>) -> bool {
        let is_blocked = |part: &Arc<PendingBatch>| part.is_blocked();
        self.is_stopped() || is_blocked(part) || self.alone.as_ref().is_some_and(is_blocked)
    }

    fn is_stopped(&self) -> bool {
        self.terms.stopped.load(Ordering::Acquire)
    }

    /// Stops sending; another actor gets what is left.
    fn give_up(&mut self) {
        self.given_up = true;
        // A part answers when nobody has it any more.
        self.alone = None;
        self.queue.clear();
    }
}
