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
    one_by_one: Option<MakeClient>,
    in_flight: InFlight,
    terms: Terms,
    first: FirstRecords,
    /// Parts, and how much of each is sent.
    queue: VecDeque<(Arc<PendingBatch>, usize)>,
    /// The next record goes alone, whatever it is.
    tries: bool,
    /// A record is in flight alone.
    is_alone: bool,
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
            is_alone: false,
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
            if self.is_stopped() {
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
        if (self.is_alone || goes_alone) && self.in_flight.has_records() {
            return Queued::NotNow;
        }
        // Again, now that it has ended: its report may have come just before.
        if self.is_stopped() {
            self.give_up();
            return Queued::Done;
        }
        self.is_alone = false;
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
                    (self.is_alone, self.tries) = (true, false);
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
    fn is_stopped(&self) -> bool {
        self.terms.stopped.load(Ordering::Acquire)
    }

    /// Stops sending; another actor gets what is left.
    fn give_up(&mut self) {
        self.given_up = true;
        // A part answers when nobody has it any more.
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use slog::{Discard, Logger, o};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        Error, ErrorKind,
        config::KafkaConfig,
        kafka::unobserved,
        record::{Answer, Records, Suspects},
    };

    /// One record, or none that can be made.
    struct One(Arc<str>, Option<Record>);

    impl Records for One {
        fn topic(&self) -> &Arc<str> {
            &self.0
        }

        fn len(&self) -> usize {
            1
        }

        fn record(&self, _: usize) -> Result<Record> {
            self.1.clone().ok_or_else(|| Error::new(ErrorKind::RecordRefused, "not made"))
        }

        fn describe(&self, _: usize) -> String {
            "the event".into()
        }

        fn counts_headers(&self) -> bool {
            false
        }

        #[cfg(feature = "client-kafka")]
        fn own_header(&self, _: usize, _: &Record) -> Option<String> {
            None
        }
    }

    #[test]
    fn with_block_nothing_is_sent_behind_a_refusal_that_ended_its_batch() {
        let log = Logger::root(Discard, o!());
        let settings = KafkaConfig::default().settings();
        let producer = KafkaProducer::new(&settings, 1_000_000, unobserved(), log);
        let producer = producer.expect("a client");
        let mut outgoing = Outgoing::new(producer, InFlight::default()).blocking();
        let (said, mut answers) = mpsc::unbounded_channel();
        for record in [None, Some(Record::default())] {
            let said = said.clone();
            let batch = RecordBatch {
                records: Arc::new(One("t".into(), record)),
                suspects: Suspects::default(),
                answer: Box::new(move |answer| said.send(answer).expect("somebody listens")),
            };
            outgoing.push(batch, Faults::default());
        }
        assert_eq!(outgoing.send(), Next::Done);
        assert!(!outgoing.in_flight().has_records(), "nothing was sent");
        for kind in [ErrorKind::RecordBlocked, ErrorKind::ActorFailed] {
            let Ok(Answer::Failed(error, _)) = answers.try_recv() else { panic!("failed") };
            assert_eq!(error.kind(), kind);
        }
    }
}
