//! Messages router ⇄ delivering actors (topic producers and handlers), one *lane* per topic.
//!
//! # Life of a part
//! The router cuts a batch into one part per topic and keeps each part until its [`AckToken`] says
//! that it is done. If a token fails or is dropped, its lane is closed. The supervisor reopens the
//! lane, and the router sends it every part it still keeps, in order. Of a part that was partly
//! delivered, only the rest is sent again: see [`PartProgress`].
//!
//! An *epoch* is one opening of a lane. A token is valid only for the epoch its part was sent in:
//! after the part was sent again, the old token is ignored.

use std::{fmt, sync::Arc, time::Duration};

use actix::{Message, Recipient};

use super::{BatchFailure, HandlerOutput, PartProgress, Record, Refused, WindowPermit};
use crate::{Error, ErrorKind, Event, Result, record::Answer, routing::Plans};

/// Events of one topic, in order, and the token with which to answer for them.
///
/// Deliver `events` in their order, then call [`AckToken::ack`]. Batches of a
/// topic come in order; several may be in flight at a time.
#[derive(Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub struct TopicBatch {
    /// The topic of the events.
    pub topic: Arc<str>,
    /// The events, never empty.
    pub events: Arc<Vec<Event>>,
    /// The token with which to answer.
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

/// Token with which an actor answers for a [`TopicBatch`]: [`ack`](Self::ack),
/// [`refuse`](Self::refuse), [`hand_on`](Self::hand_on) or [`fail`](Self::fail). **A dropped
/// token counts as failed**: an actor that panics or forgets it can delay events, never lose them.
///
/// If a [`Refused`] has an index that is out of range, or two have the same index, the batch counts
/// as dropped, and the log says why.
pub struct AckToken {
    part: u64,
    epoch: u32,
    lane: usize,
    /// Number of events of the part.
    events: usize,
    to: Option<Recipient<PartDone>>,
    plans: Plans,
    // The part's memory stays counted until the token has been used.
    _permit: WindowPermit,
}

impl AckToken {
    pub(crate) fn new(
        (lane, epoch, part): (usize, u32, u64),
        events: usize,
        to: Recipient<PartDone>,
        permit: WindowPermit,
    ) -> Self {
        let plans = Plans::default();
        AckToken { part, epoch, lane, events, to: Some(to), plans, _permit: permit }
    }

    /// Adds the plans for the records of the part's events.
    pub(crate) fn with_plans(mut self, plans: Plans) -> Self {
        self.plans = plans;
        self
    }

    /// Plans for the records of the part's events.
    pub(crate) fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Acknowledges all events of the batch: they are safe at their destination.
    pub fn ack(mut self) {
        self.finish(Vec::new(), Vec::new());
    }

    /// Acknowledges all events except these, which would be refused each time they are sent.
    /// `dead_letter.policy` decides about them.
    pub fn refuse(self, refused: Vec<Refused>) {
        self.hand_on(Vec::new(), refused);
    }

    /// Reports that the batch was not handled: it comes again, whole and in order, or is parked.
    pub fn fail(mut self, failure: BatchFailure) {
        match failure.into_error() {
            Ok((error, pause)) => self.finish_failed(error, pause, PartProgress::default()),
            Err(error) => {
                let refused = |index| Refused { index, error: error.clone() };
                self.finish((0..self.events).map(refused).collect(), Vec::new());
            }
        }
    }

    /// Answers for a handler that is done with all events: these records go on to Kafka in their
    /// place, in this order, and these events it can never handle. To keep the order of an
    /// aggregate, batches must be handed on in the order in which they came.
    pub fn hand_on(self, records: Vec<Record>, refused: Vec<Refused>) {
        // The handler gives the event up, whatever the kind of its error means elsewhere.
        let given_up = |Refused { index, error }| {
            let what = "its handler refuses it";
            Refused { index, error: Error::new(ErrorKind::HandlerFailed, what).caused_by(error) }
        };
        let refused = refused.into_iter().map(given_up).collect();
        self.forward(records.into_iter().map(HandlerOutput::from).collect(), refused);
    }

    /// Like [`hand_on`](Self::hand_on), for events that go on unchanged; keeps each error's kind.
    pub(crate) fn forward(mut self, output: Vec<HandlerOutput>, refused: Vec<Refused>) {
        self.finish(refused, output);
    }

    /// Answers for a topic: all records are safe except these.
    pub(crate) fn refuse_records(self, refused: Vec<Refused>) {
        self.forward(Vec::new(), refused);
    }

    /// Answers as a client answers for the records of the part.
    pub(crate) fn answer_for_records(self, answer: Answer) {
        match answer {
            Answer::Delivered => self.ack(),
            Answer::Refused(refused) => self.refuse_records(refused),
            Answer::Failed(error, progress) => self.fail_after(error, progress),
        }
    }

    /// Reports that the part was not delivered; it comes again, after this pause or one that grows.
    pub(crate) fn fail_with(mut self, error: Error, pause: Option<Duration>) {
        self.finish_failed(error, pause, PartProgress::default());
    }

    /// Reports that the part was partly delivered; the rest of it comes again.
    pub(crate) fn fail_after(mut self, error: Error, progress: PartProgress) {
        self.finish_failed(error, None, progress);
    }

    /// Makes a token for one event of the batch, for an actor that answers for all of it.
    #[must_use]
    pub(crate) fn for_one_event(&self, part: u64, to: Recipient<PartDone>) -> Self {
        AckToken::new((self.lane, self.epoch, part), 1, to, self._permit.clone())
    }

    fn finish(&mut self, refused: Vec<Refused>, output: Vec<HandlerOutput>) {
        match checked(refused, self.events) {
            Ok(refused) => self.answer(Ok(refused), output, None, PartProgress::default()),
            Err(error) => self.finish_failed(error, None, PartProgress::default()),
        }
    }

    fn finish_failed(&mut self, error: Error, pause: Option<Duration>, progress: PartProgress) {
        self.answer(Err(error), Vec::new(), pause, progress);
    }

    fn answer(
        &mut self,
        result: Result<Vec<Refused>>,
        output: Vec<HandlerOutput>,
        pause: Option<Duration>,
        progress: PartProgress,
    ) {
        if let Some(to) = self.to.take() {
            // A router that is gone needs no answer: its generation is over.
            let AckToken { lane, epoch, part, .. } = *self;
            to.do_send(PartDone { lane, epoch, part, result, output, pause, progress });
        }
    }
}

/// Checks the indexes of an answer for a part of `events` events.
///
/// # Errors
/// [`ErrorKind::ActorFailed`], as for a dropped batch: an index is out of range, or comes twice.
fn checked(refused: Vec<Refused>, events: usize) -> Result<Vec<Refused>> {
    let wrong = |what: String| Err(Error::new(ErrorKind::ActorFailed, what));
    let mut indexes: Vec<_> = refused.iter().map(|refused| refused.index).collect();
    indexes.sort_unstable();
    if let Some(last) = indexes.last().filter(|last| **last >= events) {
        return wrong(format!("the answer refuses event {last} of a batch of {events}, from 0 on"));
    }
    match indexes.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
        Some(twice) => wrong(format!("the answer refuses event {twice} of a batch twice")),
        None => Ok(refused),
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if self.to.is_some() {
            let what = "a batch was dropped without an answer";
            self.finish_failed(
                Error::new(ErrorKind::ActorFailed, what),
                None,
                PartProgress::default(),
            );
        }
    }
}

impl fmt::Debug for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AckToken(part {} of epoch {})", self.part, self.epoch)
    }
}

/// Token → router: the result of a part.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PartDone {
    pub lane: usize,
    pub epoch: u32,
    pub part: u64,
    /// Events refused for good; everything else of the part is safe.
    pub result: Result<Vec<Refused>>,
    /// Records and events that are sent on in place of its events.
    pub output: Vec<HandlerOutput>,
    /// After a failure: pause before the part comes again, in place of one that grows.
    pub pause: Option<Duration>,
    /// After a failure: what was delivered and refused before it.
    pub progress: PartProgress,
}

/// Router → supervisor: open the lane of this topic, after `failures` openings in a row that
/// delivered nothing.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct OpenLane {
    pub generation: u64,
    pub lane: usize,
    pub topic: Arc<str>,
    pub epoch: u32,
    pub failures: u32,
    /// The reason why it has to be reopened.
    pub error: Option<Error>,
    /// Pause before that, in place of one that grows with the failures.
    pub pause: Option<Duration>,
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

    /// A token of part 3 in epoch 2 of lane 1, and its answers.
    fn token(window: &ByteWindow) -> (AckToken, mpsc::UnboundedReceiver<PartDone>) {
        let (to, answers) = probe();
        let permit = window.try_acquire(10).expect("room");
        (AckToken::new((1, 2, 3), 2, to, permit), answers)
    }

    /// The one answer, after which the token's bytes are free.
    async fn answer(
        window: &ByteWindow,
        mut answers: mpsc::UnboundedReceiver<PartDone>,
    ) -> Result<(), ErrorKind> {
        let done = answers.recv().await.expect("an answer");
        assert_eq!((done.lane, done.epoch, done.part), (1, 2, 3));
        // The token is gone, and with it the last sender: nothing else can come.
        assert!(answers.recv().await.is_none());
        assert_eq!(window.used(), 0);
        done.result.map(|_| ()).map_err(|error| error.kind())
    }

    #[actix::test]
    async fn an_ack_says_that_the_part_is_safe() {
        let window = ByteWindow::new(100);
        let (token, answers) = token(&window);
        assert_eq!(window.used(), 10);
        token.ack();
        assert_eq!(answer(&window, answers).await, Ok(()));
    }

    #[actix::test]
    async fn a_failure_gives_its_reason() {
        let window = ByteWindow::new(100);
        let (token, answers) = token(&window);
        token.fail_with(Error::new(ErrorKind::KafkaUnavailable, "the broker is away"), None);
        assert_eq!(answer(&window, answers).await, Err(ErrorKind::KafkaUnavailable));
    }

    #[actix::test]
    async fn a_handler_fails_a_batch_for_now_or_for_good_and_in_no_other_way() {
        let window = ByteWindow::new(100);
        let minute = Duration::from_secs(60);
        for (failure, pause) in [
            (BatchFailure::retry("the database is away"), None),
            (BatchFailure::retry_after(minute, "the database is away"), Some(minute)),
        ] {
            let (token, mut answers) = token(&window);
            token.fail(failure);
            let done = answers.recv().await.expect("an answer");
            let error = done.result.expect_err("failed");
            assert!(error.is_transient() && error.kind() != ErrorKind::ActorFailed, "{error}");
            assert!(error.to_string().ends_with("comes again: the database is away"), "{error}");
            assert_eq!(done.pause, pause);
        }
        let (token, mut answers) = token(&window);
        token.fail(BatchFailure::park("no user has such an age"));
        let refused = answers.recv().await.expect("an answer").result.expect("answered for");
        assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [0, 1]);
        for Refused { error, .. } in refused {
            assert_eq!(error.kind(), ErrorKind::HandlerFailed);
            let text = "its handler gives its batch up: no user has such an age";
            assert_eq!(error.to_string(), text);
        }
    }

    #[actix::test]
    async fn what_a_handler_refuses_is_given_up_whatever_kind_the_error_has() {
        let window = ByteWindow::new(100);
        for kind in [ErrorKind::PostgresUnavailable, ErrorKind::RecordTooLarge] {
            let (token, mut answers) = token(&window);
            token.refuse(vec![Refused { index: 1, error: Error::new(kind, "too old") }]);
            let refused = answers.recv().await.expect("an answer").result.expect("answered for");
            assert_eq!(refused[0].error.kind(), ErrorKind::HandlerFailed);
            assert_eq!(refused[0].error.to_string(), "its handler refuses it: too old");
        }
    }

    #[actix::test]
    async fn an_answer_that_names_no_event_or_one_twice_is_none() {
        let window = ByteWindow::new(100);
        for (indexes, text) in [
            (&[2][..], "the answer refuses event 2 of a batch of 2, from 0 on"),
            (&[1, 0, 1], "the answer refuses event 1 of a batch twice"),
        ] {
            let (token, mut answers) = token(&window);
            let error = || Error::new(ErrorKind::HandlerFailed, "no");
            let refused = indexes.iter().map(|&index| Refused { index, error: error() });
            token.refuse(refused.collect());
            let done = answers.recv().await.expect("an answer");
            let error = done.result.expect_err("no answer");
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::ActorFailed, text.into()));
        }
    }

    #[actix::test]
    async fn dropping_is_failing() {
        let window = ByteWindow::new(100);
        let (token, answers) = token(&window);
        drop(token);
        assert_eq!(answer(&window, answers).await, Err(ErrorKind::ActorFailed));
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
        let (ack, answers) = token(&window);
        let batch = TopicBatch { topic: "t".into(), events: Arc::default(), ack };
        Panics.start().do_send(batch);
        assert_eq!(answer(&window, answers).await, Err(ErrorKind::ActorFailed));
    }

    #[actix::test]
    async fn a_batch_for_an_actor_that_is_gone_is_a_failure() {
        let window = ByteWindow::new(100);
        let (ack, answers) = token(&window);
        let gone = Panics.start();
        let (other, _) = token(&window);
        gone.do_send(TopicBatch { topic: "t".into(), events: Arc::default(), ack: other });
        while gone.connected() {
            tokio::task::yield_now().await;
        }
        gone.do_send(TopicBatch { topic: "t".into(), events: Arc::default(), ack });
        assert_eq!(answer(&window, answers).await, Err(ErrorKind::ActorFailed));
    }
}
