//! A batch of records in flight: collects how each record ended, and answers once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factlib_kafka::{Receipt, Refusal};

use super::{errors, reports::TopicState};
use crate::{
    Error, ErrorKind,
    faults::{FaultSite, Faults},
    kafka::in_flight::InFlight,
    record::{Answer, PartProgress, Record, RecordBatch, Records, Refused},
};

/// The records of one [`RecordBatch`] in flight.
///
/// Dropped before all of them have ended, it says that the batch failed: its topic was closed.
pub(super) struct Delivery {
    records: Arc<dyn Records>,
    topic: Arc<TopicState>,
    in_flight: InFlight,
    faults: Faults,
    outcome: Mutex<Outcome>,
}

struct Outcome {
    /// None once it was called.
    answer: Option<Box<dyn FnOnce(Answer) + Send>>,
    /// One flag a record: Kafka has it.
    delivered: Box<[bool]>,
    /// Records that have not ended.
    left: usize,
    refused: Vec<Refused>,
}

impl Delivery {
    pub fn new(
        batch: RecordBatch,
        topic: Arc<TopicState>,
        in_flight: InFlight,
        faults: Faults,
    ) -> Self {
        let RecordBatch { records, answer, .. } = batch;
        in_flight.part_begins();
        let count = records.len();
        let outcome = Outcome {
            answer: Some(answer),
            delivered: vec![false; count].into(),
            left: count,
            refused: Vec::new(),
        };
        Delivery { records, topic, in_flight, faults, outcome: Mutex::new(outcome) }
    }

    /// The records, to be made.
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// No record can be made of the event at `index`.
    pub fn not_made(&self, index: usize, error: Error) {
        let mut outcome = self.lock();
        outcome.refused.push(Refused { index, error });
        self.ended(outcome, 1);
    }

    /// The topic does not have the partition that the record at `index` asks for.
    pub fn no_partition(&self, index: usize, record: &Record) {
        let name = self.records.describe(index);
        self.not_made(index, errors::no_partition(self.records.topic(), &name, record));
    }

    fn ended(&self, mut outcome: MutexGuard<'_, Outcome>, records: usize) {
        outcome.left = outcome.left.saturating_sub(records);
        if outcome.left > 0 {
            return;
        }
        let Some(answer) = outcome.answer.take() else { return };
        let mut refused = std::mem::take(&mut outcome.refused);
        drop(outcome);
        self.faults.reach(FaultSite::AfterProduce);
        refused.sort_by_key(|refused| refused.index);
        answer(match refused.is_empty() {
            true => Answer::Delivered,
            false => Answer::Refused(refused),
        });
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

    fn refused(&self, index: u32, refusal: &Refusal) {
        let (index, topic) = (index as usize, self.records.topic());
        let error = match self.records.record(index) {
            Ok(record) => errors::refused(topic, &self.records.describe(index), &record, refusal),
            Err(error) => error,
        };
        self.not_made(index, error);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut outcome = self.lock();
        if let Some(answer) = outcome.answer.take() {
            let mut refused = std::mem::take(&mut outcome.refused);
            refused.sort_by_key(|refused| refused.index);
            let delivered = outcome.delivered.iter().enumerate();
            let delivered = delivered.filter(|(_, delivered)| **delivered);
            let delivered = delivered.map(|(index, _)| index).collect();
            let error = self.topic.error().unwrap_or_else(|| {
                Error::new(ErrorKind::ActorFailed, "a batch was dropped without an answer")
            });
            let progress = PartProgress { delivered, refused, ..PartProgress::default() };
            answer(Answer::Failed(error, progress));
        }
        drop(outcome);
        self.in_flight.part_ends();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use factlib_kafka::Code;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{Result, record::Suspects};

    struct Three(Arc<str>);

    impl Records for Three {
        fn topic(&self) -> &Arc<str> {
            &self.0
        }

        fn len(&self) -> usize {
            3
        }

        fn record(&self, _: usize) -> Result<Record> {
            Ok(Record { key: Bytes::from("k"), timestamp_ms: Some(7), ..Record::default() })
        }

        fn describe(&self, index: usize) -> String {
            format!("event {index}")
        }

        fn counts_headers(&self) -> bool {
            false
        }

        #[cfg(feature = "client-kafka")]
        fn own_header(&self, _: usize, _: &Record) -> Option<String> {
            None
        }
    }

    fn delivery() -> (Delivery, mpsc::UnboundedReceiver<Answer>, Arc<TopicState>) {
        let (said, answers) = mpsc::unbounded_channel();
        let batch = RecordBatch {
            records: Arc::new(Three("t".into())),
            suspects: Suspects::default(),
            answer: Box::new(move |answer| said.send(answer).expect("somebody listens")),
        };
        let topic = Arc::new(TopicState::default());
        let of = Arc::clone(&topic);
        (Delivery::new(batch, of, InFlight::default(), Faults::default()), answers, topic)
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
        let in_flight = delivery.in_flight.clone();
        drop(delivery);
        let Ok(Answer::Failed(error, progress)) = answers.try_recv() else { panic!("failed") };
        assert_eq!(error.kind(), ErrorKind::TopicUnavailable);
        assert_eq!(progress.delivered, [2]);
        assert!(!in_flight.has_records());
    }

    fn refusal(code: Code, message: Option<String>) -> Refusal {
        Refusal::new(code, message)
    }
}
