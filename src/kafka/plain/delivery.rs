//! Sends the batches of a topic one after the other, on a thread of its own because the crate
//! blocks.
//!
//! # Failure
//! After a transient failure, the records that are not acknowledged are sent again over a new
//! connection, without limit; if the batch went back to the router, all of it would be sent again
//! each time. A permanent failure fails the batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use slog::{Logger, warn};

use super::{
    connection::{Connection, Run, refusal},
    record::Plain,
    work::Work,
};
use crate::{
    Error, ErrorKind, Result,
    faults::{FaultSite, Faults},
    kafka::{KafkaObserver, KafkaSettings},
    record::{Answer, PartProgress, RecordBatch, Records},
};

/// The most bytes of one run, which a topic takes unless it is set to take less.
const RUN_BYTES: usize = 1_000_000;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// State of the sending thread.
pub(crate) struct Delivery {
    pub settings: KafkaSettings,
    pub topic: Arc<str>,
    pub connection: Option<Connection>,
    pub observer: Arc<dyn KafkaObserver>,
    pub faults: Faults,
    pub log: Logger,
    /// Free when the thread has ended: nothing that it sent is under way then.
    pub _place: tokio::sync::OwnedMutexGuard<()>,
}

/// The way to the thread; it ends with this, after the request that it waits for.
pub(crate) struct Thread {
    batches: mpsc::Sender<RecordBatch>,
    unwanted: Arc<AtomicBool>,
    thread: thread::Thread,
}

impl Thread {
    pub fn start(delivery: Delivery) -> Result<Self> {
        let (batches, of_actor) = mpsc::channel();
        let unwanted = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&unwanted);
        let run = move || Running { delivery, run_bytes: RUN_BYTES, unwanted: asked }.run(of_actor);
        let thread = thread::Builder::new().name("kafka-plain".into()).spawn(run);
        let thread = thread.map_err(|error| {
            let what = "cannot start the thread of a topic";
            Error::new(ErrorKind::ActorFailed, what).caused_by(error)
        })?;
        Ok(Thread { batches, unwanted, thread: thread.thread().clone() })
    }

    /// A batch that no thread takes any more has failed by that.
    pub fn send(&self, batch: RecordBatch) {
        let _ = self.batches.send(batch);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct Running {
    delivery: Delivery,
    /// Less than [`RUN_BYTES`] once a run was too large for the topic.
    run_bytes: usize,
    unwanted: Arc<AtomicBool>,
}

impl Running {
    fn run(mut self, batches: mpsc::Receiver<RecordBatch>) {
        for RecordBatch { records, answer, .. } in batches {
            if self.is_unwanted() {
                return;
            }
            match self.deliver(&*records) {
                Ok(Some(work)) => {
                    self.delivery.faults.reach(FaultSite::AfterProduce);
                    match work.into_refused() {
                        refused if refused.is_empty() => answer(Answer::Delivered),
                        refused => answer(Answer::Refused(refused)),
                    }
                }
                Ok(None) => return,
                // What is behind it must not go before it: it fails with the thread's end.
                Err(error) => return answer(Answer::Failed(error, PartProgress::default())),
            }
        }
    }

    fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Acquire)
    }

    /// Tries until nothing is left; none if the thread has to end before that.
    fn deliver(&mut self, records: &dyn Records) -> Result<Option<Work>> {
        let records = (0..records.len()).map(|index| Plain::new(records, index));
        let records: Vec<_> = records.collect();
        let mut work = None;
        let mut pauses = self::pauses();
        let mut attempt = 0;
        loop {
            let before = left(&work);
            let error = match self.attempt(&records, &mut work, attempt) {
                Ok(work) => return Ok(Some(work)),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            self.trouble(&error);
            if left(&work) != before {
                pauses = self::pauses();
            }
            attempt += 1;
            thread::park_timeout(pauses.next().unwrap_or(LONGEST_PAUSE));
            if self.is_unwanted() {
                return Ok(None);
            }
        }
    }

    /// Sends what is left, until it is sent or something fails.
    fn attempt(
        &mut self,
        records: &[Plain],
        work: &mut Option<Work>,
        attempt: usize,
    ) -> Result<Work> {
        // Kept again only if nothing fails with it.
        let mut connection = match self.delivery.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.delivery.settings, &self.delivery.topic, attempt)?,
        };
        let partitions = connection.partitions()?;
        let Delivery { observer, topic, log, .. } = &self.delivery;
        observer.partitions(topic, usize::try_from(partitions).unwrap_or_default(), log);
        let mut todo = work.take().unwrap_or_else(|| {
            Work::new(records.iter().map(|record| record.partition(partitions)))
        });
        while !todo.is_done() {
            if let Err(error) = self.round(&mut connection, records, &mut todo) {
                *work = Some(todo);
                return Err(error);
            }
        }
        self.delivery.connection = Some(connection);
        Ok(todo)
    }

    /// One run for each partition. What fails with one of them does not keep the others.
    fn round(
        &mut self,
        connection: &mut Connection,
        records: &[Plain],
        work: &mut Work,
    ) -> Result<()> {
        let topic = Arc::clone(&self.delivery.topic);
        let mut failed = None;
        for (leader, partitions) in connection.leaders(&work.partitions()) {
            if leader.is_none() {
                let what = format!("no broker leads partition {} of {topic}", partitions[0]);
                failed = Some(Error::new(ErrorKind::KafkaUnavailable, what));
                continue;
            }
            let runs = self.runs(records, work, partitions);
            let answers = match connection.produce(&runs) {
                Ok(answers) => answers,
                // The others are other brokers', over connections of their own.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            for run in &runs {
                let answer = answers.get(&run.partition).copied();
                let code = answer.unwrap_or(Some(kafka::error::KafkaCode::Unknown));
                let Some(code) = code else {
                    work.accepted(run.partition, run.records.len());
                    continue;
                };
                let error = refusal(&topic, code);
                match (error.kind(), run.records.len()) {
                    (ErrorKind::RecordRefused | ErrorKind::RecordTooLarge, 1) => {
                        work.refused(run.partition, error);
                    }
                    // One of them: it is found by sending fewer.
                    (ErrorKind::RecordRefused | ErrorKind::RecordTooLarge, _) => {
                        self.run_bytes = (bytes(run) / 2).min(self.run_bytes);
                    }
                    _ => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn runs<'a>(&self, records: &'a [Plain], work: &Work, partitions: Vec<i32>) -> Vec<Run<'a>> {
        let size = |index: usize| records.get(index).map_or(0, Plain::size);
        let run = |partition| {
            let indexes = work.run(partition, self.run_bytes, size);
            let records = indexes.into_iter().filter_map(|index| records.get(index));
            Run {
                partition,
                records: records.map(|record| (record.key(), record.value())).collect(),
            }
        };
        partitions.into_iter().map(run).collect()
    }

    /// Says once for each reason what is waited for; the status has it until something goes
    /// through.
    fn trouble(&self, error: &Error) {
        let text = error.to_string();
        let Delivery { observer, log, topic, .. } = &self.delivery;
        if observer.kafka_trouble(text.clone()) {
            warn!(log, "Kafka client reports trouble"; "topic" => %topic, "error" => text);
        }
    }
}

fn left(work: &Option<Work>) -> Option<usize> {
    work.as_ref().map(Work::left)
}

fn bytes(run: &Run<'_>) -> usize {
    let size = |(key, value): &(&[u8], Option<&[u8]>)| key.len() + value.map_or(0, <[u8]>::len);
    run.records.iter().map(size).sum()
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}
