//! Writes receipts into the topic: each part's at once, many in flight.

use std::sync::Arc;

use slog::{Logger, info};
use tokio::sync::mpsc;

use super::Trouble;
use crate::{
    Error, ErrorKind, Result,
    kafka::pipelined::PipelinedTopic,
    receipts::{ReceiptTask, ReceiptTopic},
    record::{Answer, RecordBatch},
};

pub(super) struct TopicWriter {
    topic: Arc<ReceiptTopic>,
    slot: String,
    /// None before the first task, and after a failure.
    opened: Option<PipelinedTopic>,
    /// Number of openings so far.
    openings: u64,
    failed: mpsc::UnboundedSender<FailedTask>,
    failures: mpsc::UnboundedReceiver<FailedTask>,
    trouble: Trouble,
    log: Logger,
}

/// A task whose records were not taken.
struct FailedTask {
    task: ReceiptTask,
    error: Error,
    /// Number of the opening in which it was sent.
    opening: u64,
}

impl TopicWriter {
    pub fn new(topic: Arc<ReceiptTopic>, slot: String, trouble: Trouble, log: Logger) -> Self {
        let (failed, failures) = mpsc::unbounded_channel();
        TopicWriter { topic, slot, opened: None, openings: 0, failed, failures, trouble, log }
    }

    pub async fn run(mut self, mut tasks: mpsc::UnboundedReceiver<ReceiptTask>) {
        loop {
            tokio::select! {
                biased;
                Some(FailedTask { task, error, opening }) = self.failures.recv() => {
                    if opening == self.openings && self.opened.take().is_some() {
                        self.topic.refused(&error);
                        self.trouble.pause(&error).await;
                    }
                    self.send(task).await;
                }
                task = tasks.recv() => match task {
                    Some(task) => self.send(task).await,
                    None => return,
                }
            }
        }
    }

    async fn send(&mut self, task: ReceiptTask) {
        match task.in_transaction.clone() {
            Some(topic) => self.send_in_transaction(&topic, task),
            None => self.send_alone(task).await,
        }
    }

    /// Sends receipts in the transaction of their events. A failure ends the session.
    fn send_in_transaction(&self, topic: &Arc<PipelinedTopic>, task: ReceiptTask) {
        let ReceiptTask { part, then, .. } = task;
        let (failing, receipts) = (Arc::clone(topic), Arc::clone(&self.topic));
        let answer = move |answer| match refusal(answer) {
            None => then(),
            Some(error) => {
                receipts.refused(&error);
                failing.fail(repeated(error));
            }
        };
        let records = self.topic.records(&self.slot, &part);
        topic.send(RecordBatch { records, places: None, answer: Box::new(answer) });
    }

    async fn send_alone(&mut self, task: ReceiptTask) {
        let records = self.topic.records(&self.slot, &task.part);
        let (failed, opening) = (self.failed.clone(), self.opened().await);
        let Some(topic) = &self.opened else { return };
        let answer = move |answer| match refusal(answer) {
            None => (task.then)(),
            // Where the writer is gone, the pipeline has ended.
            Some(error) => drop(failed.send(FailedTask { task, error, opening })),
        };
        topic.send(RecordBatch { records, places: None, answer: Box::new(answer) });
    }

    /// Opens the topic if it is not open, however long that takes. Returns the opening's number.
    async fn opened(&mut self) -> u64 {
        while self.opened.is_none() {
            match self.open().await {
                Ok(topic) => {
                    (self.opened, self.openings) = (Some(topic), self.openings + 1);
                    self.trouble.is_over();
                    info!(self.log, "topic of receipts opened"; "topic" => &**self.topic.name());
                }
                Err(error) => self.trouble.pause(&error).await,
            }
        }
        self.openings
    }

    async fn open(&self) -> Result<PipelinedTopic> {
        let batch_bytes = self.topic.create(&self.log).await?;
        self.topic.open(batch_bytes).await
    }
}

/// The error with which a transaction is repeated: a refused receipt does not end the relay.
fn repeated(error: Error) -> Error {
    if error.is_transient() {
        return error;
    }
    let what = "the topic of receipts does not take its records";
    Error::new(ErrorKind::TransactionAborted, what).caused_by(error)
}

/// The reason why records were not taken, if they were not.
fn refusal(answer: Answer) -> Option<Error> {
    match answer {
        Answer::Delivered => None,
        Answer::Failed(error, _) => Some(error),
        Answer::Refused(refused) => refused.into_iter().next().map(|refused| refused.error),
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use factlib_testing::fake_broker::{Api, Code, FakeCluster};
    use prost::Message as _;
    use slog::{Discard, Logger, o};

    use super::*;
    use crate::{
        Event, Lsn,
        actors::receipt_writer::{NAME, ReceiptTarget, ReceiptWriter},
        config::{Config, ReceiptStore},
        kafka::{
            pipelined::{ClientThread, PipelinedClient},
            unobserved,
        },
        messages::ByteWindow,
        proto::OutboxEvent,
        receipts::{EndedPart, ReceiptReader, receipt_queue},
        record::Place,
        status::Status,
    };

    fn part(offset: i64) -> EndedPart {
        let event = OutboxEvent {
            id: format!("event-{offset}"),
            aggregate_type: "user".into(),
            ..Default::default()
        };
        let event = Event::parse(event.encode_to_vec().into(), Lsn::new(7)).expect("an event");
        let place = Place { partition: 0, offset: Some(offset) };
        EndedPart::sent("t".into(), Arc::new(vec![event]), vec![Some(place)])
    }

    #[actix::test]
    async fn what_ended_waits_for_a_topic_that_takes_no_receipts() {
        let cluster = FakeCluster::start().await.expect("a cluster");
        let denied = cluster.on(Api::Produce).topic("factlib.receipts");
        let denied = denied.always().answer(Code::TopicAuthorizationFailed);
        let mut config = Config::default();
        config.kafka.brokers = vec![cluster.bootstrap()];
        config.receipts.store = ReceiptStore::Topic;
        let (config, log) = (Arc::new(config), Logger::root(Discard, o!()));
        let client = PipelinedClient::start(
            &config.kafka.settings(),
            ClientThread::Own,
            unobserved(),
            log.clone(),
        );
        let client = Arc::new(client.expect("a client"));
        let status = Arc::new(Status::new(ByteWindow::new(1)));
        let (sender, tasks) = receipt_queue();
        let writer = ReceiptWriter {
            target: ReceiptTarget::Topic(Arc::new(ReceiptTopic::new(&config, Some(client)))),
            tasks,
            slot: "slot".into(),
            retention: config.receipts.retention,
            status: Arc::clone(&status),
            log: log.clone(),
        };
        actix::spawn(writer.run());
        let (written, mut done) = mpsc::unbounded_channel();
        for offset in 0..3 {
            let written = written.clone();
            sender.write(part(offset), move || {
                let _ = written.send(offset);
            });
        }
        let complains = || status.snapshot().actors.get(NAME)?.last_error.clone();
        while complains().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(done.try_recv().is_err(), "nothing may count as done");
        denied.lift();
        let mut ended = Vec::new();
        for _ in 0..3 {
            ended.push(done.recv().await.expect("written"));
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2]);
        let reader = ReceiptReader::open(&config, &log).expect("settings").expect("a store");
        for offset in 0..3 {
            let found = reader.find(&format!("event-{offset}"), None).await.expect("readable");
            assert!(!found.is_empty(), "event {offset} lacks a receipt");
        }
    }
}
