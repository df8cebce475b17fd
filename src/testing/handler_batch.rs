//! A batch for a handler actor under test, without a pipeline.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use tokio::sync::oneshot;

use crate::{
    Error, Event, Refused, TopicBatch,
    messages::{AckToken, ByteWindow, Onward, PartDone, Record},
};

/// A batch of these events, to be sent to a handler actor, and its answer.
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
    let (said, answer) = oneshot::channel();
    let to = Answers(Some(said)).start().recipient();
    let permit = ByteWindow::new(1).try_acquire(1).expect("nobody else has it");
    let ack = AckToken::new((0, 0, 0), events.len(), to, permit);
    let topic = events.first().map(Event::aggregate_type).unwrap_or_default();
    let topic = format!("handler:{topic}").into();
    (TopicBatch { topic, events: Arc::new(events), ack }, BatchAnswer(answer))
}

/// A handler actor's answer for a batch; see [`handler_batch`].
#[derive(Debug)]
pub struct BatchAnswer(oneshot::Receiver<PartDone>);

impl BatchAnswer {
    /// Waits for the answer: the records that go on, and what is refused.
    ///
    /// # Errors
    /// The actor failed the batch, dropped it, or answered for events that are not there.
    pub async fn get(self) -> Result<(Vec<Record>, Vec<Refused>), Error> {
        let done = self.0.await.expect("a token answers, also when it is dropped");
        let records = done.onward.into_iter().filter_map(|one| match one {
            Onward::Record(record) => Some(*record),
            // Only handlers that are no actors hand events on.
            Onward::Event(_) => None,
        });
        done.result.map(|refused| (records.collect(), refused))
    }
}

struct Answers(Option<oneshot::Sender<PartDone>>);

impl Actor for Answers {
    type Context = Context<Self>;
}

impl Handler<PartDone> for Answers {
    type Result = ();

    fn handle(&mut self, done: PartDone, _: &mut Self::Context) {
        if let Some(said) = self.0.take() {
            // The test may not want to know.
            let _ = said.send(done);
        }
    }
}
