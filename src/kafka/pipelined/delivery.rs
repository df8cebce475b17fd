//! A batch of records in flight: collects how each record ended, and answers once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factlib_kafka::{Appended, Receipt, Refusal};

use super::{errors, reports::TopicState};
use crate::{
    Error, ErrorKind,
    faults::{FaultSite, Faults},
    kafka::in_flight::InFlight,
    record::{Answer, PartProgress, Place, Places, Record, RecordBatch, Records, Refused},
};

/// The records of one [`RecordBatch`] in flight.
///
/// Dropped before all of them have ended, it says that the batch failed: its topic was closed.
pub(super) struct Delivery {
    records: Arc<dyn Records>,
    /// None if nobody wants to know where the records were appended.
    places: Option<Arc<Places>>,
    topic: Arc<TopicState>,
    in_flight: InFlight,
    faults: Faults,
    after_refusal: AfterRefusal,
    outcome: Mutex<Outcome>,
}

/// What happens to the records behind one that is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRefusal {
    /// They are sent.
    Continue,
    /// Nothing behind it is sent, and it comes again itself.
    Block,
    /// Nothing behind it is sent until the topic is opened again; it counts as refused.
    Hold,
}

impl AfterRefusal {
    /// True if nothing behind a refused record is sent.
    pub(super) fn stops(self) -> bool {
        self != AfterRefusal::Continue
    }
}

struct Outcome {
    /// None once it was called.
    answer: Option<Box<dyn FnOnce(Answer) + Send>>,
    /// One flag a record: Kafka has it.
    delivered: Box<[bool]>,
    /// Records that have not ended.
    left: usize,
    refused: Vec<Refused>,
    /// The error of its first record that is to be sent again.
    failure: Option<Error>,
}

impl Delivery {
    pub fn new(
        batch: RecordBatch,
        topic: Arc<TopicState>,
        in_flight: InFlight,
        faults: Faults,
        after_refusal: AfterRefusal,
    ) -> Self {
        let RecordBatch { records, places, answer } = batch;
        in_flight.batch_begins();
        let count = records.len();
        let outcome = Outcome {
            answer: Some(answer),
            delivered: vec![false; count].into(),
            left: count,
            refused: Vec::new(),
            failure: None,
        };
        let outcome = Mutex::new(outcome);
        Delivery { records, places, topic, in_flight, faults, after_refusal, outcome }
    }

    /// The records, to be made.
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// Notes that no record can be made of the event at `index`, or none that its topic takes.
    ///
    /// If it stops what is behind it, that must not be sent any more.
    pub fn refuse(&self, index: usize, error: Error) {
        let blocked = || Error::new(ErrorKind::RecordBlocked, "a refused record blocks its topic");
        match self.after_refusal {
            AfterRefusal::Block => return self.stop(blocked().caused_by(error)),
            AfterRefusal::Hold => self.topic.stop(&blocked().caused_by(error.clone())),
            AfterRefusal::Continue => {}
        }
        let mut outcome = self.lock();
        outcome.refused.push(Refused { index, error });
        self.ended(outcome, 1);
    }

    /// The topic does not have this partition, which the record at `index` asks for.
    pub fn no_partition(&self, index: usize, partition: i32) {
        let name = self.records.describe(index);
        self.refuse(index, errors::no_partition(self.records.topic(), &name, partition));
    }

    /// A record is to be sent again, before anything that is behind it.
    fn stop(&self, error: Error) {
        self.topic.stop(&error);
        let mut outcome = self.lock();
        outcome.failure.get_or_insert(error);
        self.ended(outcome, 1);
    }

    fn ended(&self, mut outcome: MutexGuard<'_, Outcome>, records: usize) {
        outcome.left = outcome.left.saturating_sub(records);
        if outcome.left == 0 && outcome.answer.is_some() {
            self.answer(outcome);
        }
    }

    /// Answers, unless that was done before; what has not ended failed.
    fn answer(&self, mut outcome: MutexGuard<'_, Outcome>) {
        let Some(answer) = outcome.answer.take() else { return };
        let mut refused = std::mem::take(&mut outcome.refused);
        let (left, failure) = (outcome.left, outcome.failure.take());
        let delivered = std::mem::take(&mut outcome.delivered);
        drop(outcome);
        if left == 0 {
            self.faults.reach(FaultSite::AfterProduce);
        }
        refused.sort_by_key(|refused| refused.index);
        if left == 0 && failure.is_none() {
            return answer(match refused.is_empty() {
                true => Answer::Delivered,
                false => Answer::Refused(refused),
            });
        }
        let error = failure.or_else(|| self.topic.error()).unwrap_or_else(|| {
            Error::new(ErrorKind::ActorFailed, "a batch was dropped without an answer")
        });
        let delivered = delivered.iter().enumerate().filter(|(_, delivered)| **delivered);
        let delivered = delivered.map(|(index, _)| index).collect();
        answer(Answer::Failed(error, PartProgress { delivered, refused }));
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receipt for Delivery {
    fn acknowledged(&self, indexes: &[u32]) {
        let mut outcome = self.lock();
        for index in indexes {
            if let Some(delivered) = outcome.delivered.get_mut(*index as usize) {
                *delivered = true;
            }
        }
        self.ended(outcome, indexes.len());
    }

    fn appended(&self, indexes: &[u32], place: Appended) {
        if let Some(places) = &self.places {
            let Appended { partition, offset, .. } = place;
            places.note(indexes, Place { partition, offset });
        }
        self.acknowledged(indexes);
    }

    fn refused(&self, index: u32, refusal: &Refusal) {
        let (index, topic) = (index as usize, self.records.topic());
        let name = self.records.describe(index);
        match self.records.record(index) {
            Ok(record) if errors::is_of_clock(&record, refusal) => {
                self.stop(errors::of_clock(topic, refusal));
            }
            Ok(record) => self.refuse(index, errors::refused(topic, &name, &record, refusal)),
            Err(error) => self.refuse(index, error),
        }
    }

    fn stops(&self, index: u32, refusal: &Refusal) -> bool {
        let of_clock = |record: Record| errors::is_of_clock(&record, refusal);
        self.after_refusal.stops() || self.records.record(index as usize).is_ok_and(of_clock)
    }

    fn not_sent(&self, indexes: &[u32]) {
        let mut outcome = self.lock();
        if outcome.failure.is_none() {
            outcome.failure = self.topic.error();
        }
        self.ended(outcome, indexes.len());
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.answer(self.lock());
        self.in_flight.batch_ends();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use factlib_kafka::Code;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Result;

    /// Three records of this time.
    struct Three(Arc<str>, Option<i64>);

    impl Records for Three {
        fn topic(&self) -> &Arc<str> {
            &self.0
        }

        fn len(&self) -> usize {
            3
        }

        fn record(&self, _: usize) -> Result<Record> {
            Ok(Record { key: Bytes::from("k"), timestamp_ms: self.1, ..Record::default() })
        }

        fn describe(&self, index: usize) -> String {
            format!("event {index}")
        }

        #[cfg(feature = "client-kafka")]
        fn own_header(&self, _: usize, _: &Record) -> Option<String> {
            None
        }
    }

    fn delivery() -> (Delivery, mpsc::UnboundedReceiver<Answer>, Arc<TopicState>) {
        delivery_of(Some(7), false)
    }

    fn delivery_of(
        timestamp_ms: Option<i64>,
        blocks: bool,
    ) -> (Delivery, mpsc::UnboundedReceiver<Answer>, Arc<TopicState>) {
        let (said, answers) = mpsc::unbounded_channel();
        let batch = RecordBatch {
            records: Arc::new(Three("t".into(), timestamp_ms)),
            places: None,
            answer: Box::new(move |answer| said.send(answer).expect("somebody listens")),
        };
        let topic = Arc::new(TopicState::default());
        let of = Arc::clone(&topic);
        let after = if blocks { AfterRefusal::Block } else { AfterRefusal::Continue };
        let delivery = Delivery::new(batch, of, InFlight::default(), Faults::default(), after);
        (delivery, answers, topic)
    }

    #[test]
    fn it_answers_when_the_last_record_has_ended() {
        let (delivery, mut answers, _) = delivery();
        delivery.acknowledged(&[0, 2]);
        assert!(answers.try_recv().is_err());
        delivery.acknowledged(&[1]);
        assert!(matches!(answers.try_recv(), Ok(Answer::Delivered)));
        drop(delivery);
        assert!(answers.try_recv().is_err(), "answered once");
    }

    #[test]
    fn a_refused_record_is_named_with_the_brokers_words() {
        let (delivery, mut answers, _) = delivery();
        let words = Some("too far in the future".to_owned());
        delivery.acknowledged(&[0, 2]);
        delivery.refused(1, &refusal(Code::InvalidTimestamp, words));
        let Ok(Answer::Refused(refused)) = answers.try_recv() else { panic!("refused") };
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].index, 1);
        let text = format!("{:?} {}", refused[0].error, refused[0].error);
        assert!(text.contains("event 1") && text.contains("too far in the future"), "{text}");
    }

    #[test]
    fn dropped_it_says_what_was_delivered_and_why_the_rest_was_not() {
        let (delivery, mut answers, topic) = delivery();
        delivery.acknowledged(&[2]);
        topic.fail(Error::new(ErrorKind::TopicUnavailable, "no right to write"));
        drop(delivery);
        let Ok(Answer::Failed(error, progress)) = answers.try_recv() else { panic!("failed") };
        assert_eq!(error.kind(), ErrorKind::TopicUnavailable);
        assert_eq!(progress.delivered, [2]);
    }

    #[test]
    fn with_block_a_refused_record_fails_the_batch_and_stops_the_topic() {
        let (delivery, mut answers, topic) = delivery_of(Some(7), true);
        let refusal = refusal(Code::InvalidTimestamp, None);
        assert!(delivery.stops(1, &refusal));
        delivery.refused(1, &refusal);
        delivery.not_sent(&[2]);
        assert!(answers.try_recv().is_err(), "the first is still on its way");
        delivery.acknowledged(&[0]);
        let Ok(Answer::Failed(error, progress)) = answers.try_recv() else { panic!("failed") };
        assert_eq!(error.kind(), ErrorKind::RecordBlocked);
        assert!(error.to_string().contains("event 1"), "{error}");
        assert_eq!(progress.delivered, [0]);
        assert!(progress.refused.is_empty(), "it is not parked");
        let error = topic.error().expect("it takes nothing more");
        assert_eq!(error.kind(), ErrorKind::RecordBlocked);
    }

    #[test]
    fn a_record_without_a_time_waits_where_its_time_of_sending_is_refused() {
        let (delivery, mut answers, _) = delivery_of(None, false);
        let of_time = refusal(Code::InvalidTimestamp, Some("too far ahead".into()));
        assert!(delivery.stops(1, &of_time));
        assert!(!delivery.stops(1, &refusal(Code::InvalidRecord, None)), "that is its own fault");
        delivery.refused(0, &refusal(Code::InvalidRecord, None));
        delivery.refused(1, &of_time);
        delivery.not_sent(&[2]);
        let Ok(Answer::Failed(error, progress)) = answers.try_recv() else { panic!("failed") };
        assert_eq!(error.kind(), ErrorKind::KafkaUnavailable);
        let text = format!("{error}: {error:?}");
        assert!(text.contains("too far ahead"), "{text}");
        assert_eq!(progress.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [0]);
        assert!(!delivery_of(Some(7), false).0.stops(1, &of_time), "its own time is its fault");
    }

    fn refusal(code: Code, message: Option<String>) -> Refusal {
        Refusal::new(code, message)
    }
}
