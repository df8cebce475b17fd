//! Router ⇄ the actors that deliver: one *lane* a topic.
//!
//! # Life of a part
//! The router cuts a batch into one part a topic and keeps each part until its
//! [`AckToken`] says that it is done. A lane whose token failed, or was dropped,
//! is closed; the supervisor opens it again, and the router hands it every part
//! that it still keeps, whole and in order.
//!
//! An *epoch* is one opening of a lane. A token speaks for the epoch that its
//! part was sent in: after a part went out again, its old token says nothing.

use std::{fmt, sync::Arc};

use actix::{Message, Recipient};

use super::WindowPermit;
use crate::{
    Error, ErrorKind, Event,
    handlers::{Onward, Record},
};

/// Events of one topic, in order, and the duty to answer for them.
///
/// Deliver `events` in their order, then call [`AckToken::ack`]. Batches of a
/// topic come in order; several may be under way at a time.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TopicBatch {
    /// Where they go.
    pub topic: Arc<str>,
    /// The events, never empty.
    pub events: Arc<Vec<Event>>,
    /// Says how it went.
    pub ack: AckToken,
}

impl fmt::Debug for TopicBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicBatch")
            .field("topic", &self.topic)
            .field("events", &self.events.len())
            .field("ack", &self.ack)
            .finish()
    }
}

/// An event of a [`TopicBatch`] that can never be delivered.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its place in [`TopicBatch::events`].
    pub index: usize,
    /// Who refuses it, and why.
    pub error: Error,
}

/// The duty to say how a [`TopicBatch`] ended: [`ack`](Self::ack),
/// [`refuse`](Self::refuse), [`hand_on`](Self::hand_on) or [`fail`](Self::fail). **Dropped, it
/// counts as failed**: an actor that panics or forgets can delay events, never lose them.
pub struct AckToken {
    part: u64,
    epoch: u32,
    lane: usize,
    to: Option<Recipient<PartDone>>,
    // What the part holds in memory stays counted until it is answered for.
    _permit: WindowPermit,
}

impl AckToken {
    pub(crate) fn new(
        (lane, epoch, part): (usize, u32, u64),
        to: Recipient<PartDone>,
        permit: WindowPermit,
    ) -> Self {
        AckToken { part, epoch, lane, to: Some(to), _permit: permit }
    }

    /// All events of the batch are safe where they belong.
    pub fn ack(mut self) {
        self.finish(Ok(Vec::new()), Vec::new());
    }

    /// All events are safe but these, which can never be: sent again, they would be
    /// refused again. What becomes of them is for `dead_letter.policy` to say.
    pub fn refuse(mut self, refused: Vec<Refused>) {
        self.finish(Ok(refused), Vec::new());
    }

    /// The batch was not delivered whole; it comes again.
    pub fn fail(mut self, error: Error) {
        self.finish(Err(error), Vec::new());
    }

    /// Of a handler: it is done with all events, these records go on to Kafka in their place,
    /// in this order, and these events it can never handle. To keep the order of an
    /// aggregate, batches must be handed on in the order in which they came.
    pub fn hand_on(self, records: Vec<Record>, refused: Vec<Refused>) {
        self.pass_on(records.into_iter().map(Onward::from).collect(), refused);
    }

    /// The same, with events that go on as they are.
    pub(crate) fn pass_on(mut self, onward: Vec<Onward>, refused: Vec<Refused>) {
        self.finish(Ok(refused), onward);
    }

    /// For an event of the batch by itself: answered to someone who answers for all.
    #[must_use]
    pub(crate) fn of_one_event(&self, part: u64, to: Recipient<PartDone>) -> Self {
        AckToken::new((self.lane, self.epoch, part), to, self._permit.clone())
    }

    fn finish(&mut self, result: Result<Vec<Refused>, Error>, onward: Vec<Onward>) {
        if let Some(to) = self.to.take() {
            // A router that is gone needs no answer: its generation is over.
            let AckToken { lane, epoch, part, .. } = *self;
            to.do_send(PartDone { lane, epoch, part, result, onward });
        }
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if self.to.is_some() {
            let what = "a batch was dropped without an answer";
            self.finish(Err(Error::new(ErrorKind::ActorFailed, what)), Vec::new());
        }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AckToken(part {} of epoch {})", self.part, self.epoch)
    }
}

/// Token → router: how a part ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PartDone {
    pub lane: usize,
    pub epoch: u32,
    pub part: u64,
    /// What was refused for good; everything else of the part is safe.
    pub result: Result<Vec<Refused>, Error>,
    /// What goes on in place of its events.
    pub onward: Vec<Onward>,
}

/// Router → supervisor: open the lane of this topic, after `failures` openings in a row that delivered nothing.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct OpenLane {
    pub generation: u64,
    pub lane: usize,
    pub topic: Arc<str>,
    pub epoch: u32,
    pub failures: u32,
    /// Why it has to be opened again.
    pub error: Option<Error>,
}

/// Supervisor → router: the lane is open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LaneOpened {
    pub lane: usize,
    pub epoch: u32,
    pub recipient: Recipient<TopicBatch>,
}

/// Supervisor → router: the lane could not be opened.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LaneFailed {
    pub lane: usize,
    pub epoch: u32,
    pub error: Error,
}

/// Supervisor → router: the lane's actor ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LaneLost {
    pub lane: usize,
    pub epoch: u32,
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler};
    use tokio::sync::mpsc;

    use super::*;
    use crate::messages::{ByteWindow, probe::probe};

    /// A token of part 3 in epoch 2 of lane 1, and what it says.
    fn token(window: &ByteWindow) -> (AckToken, mpsc::UnboundedReceiver<PartDone>) {
        let (to, said) = probe();
        let permit = window.try_acquire(10).expect("room");
        (AckToken::new((1, 2, 3), to, permit), said)
    }

    /// The one answer, after which the token's bytes are free.
    async fn answer(
        window: &ByteWindow,
        mut said: mpsc::UnboundedReceiver<PartDone>,
    ) -> Result<(), ErrorKind> {
        let done = said.recv().await.expect("an answer");
        assert_eq!((done.lane, done.epoch, done.part), (1, 2, 3));
        // The token is gone, and with it the last sender: nothing else can come.
        assert!(said.recv().await.is_none());
        assert_eq!(window.used(), 0);
        done.result.map(|_| ()).map_err(|error| error.kind())
    }

    #[actix::test]
    async fn an_ack_says_that_the_part_is_safe() {
        let window = ByteWindow::new(100);
        let (token, said) = token(&window);
        assert_eq!(window.used(), 10);
        token.ack();
        assert_eq!(answer(&window, said).await, Ok(()));
    }

    #[actix::test]
    async fn a_failure_gives_its_reason() {
        let window = ByteWindow::new(100);
        let (token, said) = token(&window);
        token.fail(Error::new(ErrorKind::KafkaUnavailable, "the broker is away"));
        assert_eq!(answer(&window, said).await, Err(ErrorKind::KafkaUnavailable));
    }

    #[actix::test]
    async fn dropping_is_failing() {
        let window = ByteWindow::new(100);
        let (token, said) = token(&window);
        drop(token);
        assert_eq!(answer(&window, said).await, Err(ErrorKind::ActorFailed));
    }

    struct Panics;

    impl Actor for Panics {
        type Context = Context<Self>;
    }

    impl Handler<TopicBatch> for Panics {
        type Result = ();

        fn handle(&mut self, _batch: TopicBatch, _: &mut Self::Context) {
            panic!("as handlers of users may");
        }
    }

    #[actix::test]
    async fn a_panic_of_the_actor_that_has_the_batch_is_a_failure() {
        let window = ByteWindow::new(100);
        let (ack, said) = token(&window);
        let batch = TopicBatch { topic: "t".into(), events: Arc::default(), ack };
        Panics.start().do_send(batch);
        assert_eq!(answer(&window, said).await, Err(ErrorKind::ActorFailed));
    }

    #[actix::test]
    async fn a_batch_for_an_actor_that_is_gone_is_a_failure() {
        let window = ByteWindow::new(100);
        let (ack, said) = token(&window);
        let gone = Panics.start();
        let (other, _) = token(&window);
        gone.do_send(TopicBatch { topic: "t".into(), events: Arc::default(), ack: other });
        while gone.connected() {
            tokio::task::yield_now().await;
        }
        gone.do_send(TopicBatch { topic: "t".into(), events: Arc::default(), ack });
        assert_eq!(answer(&window, said).await, Err(ErrorKind::ActorFailed));
    }
}
