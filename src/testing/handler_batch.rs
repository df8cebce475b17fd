//! A batch for a handler actor under test, without a pipeline.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::sync::oneshot;

use crate::{
    Error, Event, Refused, TopicBatch,
    messages::{AckToken, ByteWindow, HandlerOutput, PartDone, Record},
};

/// Makes a batch of these events to send to a handler actor, and returns it with its answer.
///
/// ```
/// use factlib::{Event, Lsn, emit::Fact, handlers::Record, testing};
/// use prost::Message;
///
/// # actix_rt::System::new().block_on(async {
/// let fact = Fact::new("user", "u1", "user.created").to_event().expect("valid");
/// let event = Event::parse(fact.encode_to_vec().into(), Lsn::new(1)).expect("an event");
/// let (batch, answer) = testing::handler_batch(vec![event.clone()]);
/// // A handler actor of yours would be sent the batch and do:
/// batch.ack.hand_on(vec![Record::of(&event).payload("redacted")], Vec::new());
/// let (records, refused) = answer.get().await.expect("no failure");
/// assert_eq!(records, [Record::of(&event).payload("redacted")]);
/// assert!(refused.is_empty());
/// # });
/// ```
///
/// # Panics
/// Outside an actix `System`.
pub fn handler_batch(events: Vec<Event>) -> (TopicBatch, BatchAnswer) {
    let (sender, answer) = oneshot::channel();
    let recipient = AnswerCollector(Some(sender)).start().recipient();
    let permit = ByteWindow::new(1).try_acquire(1).expect("the window is free");
    let ack = AckToken::new((0, 0, 0), events.len(), recipient, permit);
    let topic = events.first().map(Event::aggregate_type).unwrap_or_default();
    let topic = format!("handler:{topic}").into();
    (TopicBatch { topic, events: Arc::new(events), ack }, BatchAnswer(answer))
}

/// A handler actor's answer for a batch; see [`handler_batch`].
#[derive(Debug)]
pub struct BatchAnswer(oneshot::Receiver<PartDone>);

impl BatchAnswer {
    /// Waits for the answer: the records to produce, and the refused events.
    ///
    /// # Errors
    /// The actor failed the batch, dropped it, or refused an event that the batch does not have.
    pub async fn get(self) -> Result<(Vec<Record>, Vec<Refused>), Error> {
        let done = self.0.await.expect("a token answers, also when it is dropped");
        let records = done.output.into_iter().filter_map(|one| match one {
            HandlerOutput::Record(record) => Some(*record),
            // Only handlers that are no actors hand events on.
            HandlerOutput::Event(_) => None,
        });
        done.result.map(|refused| (records.collect(), refused))
    }
}

struct AnswerCollector(Option<oneshot::Sender<PartDone>>);

impl Actor for AnswerCollector {
    type Context = Context<Self>;
}

impl Handler<PartDone> for AnswerCollector {
    type Result = ();

    fn handle(&mut self, done: PartDone, _: &mut Self::Context) {
        if let Some(sender) = self.0.take() {
            // The test may have dropped the receiver.
            let _ = sender.send(done);
        }
    }
}
