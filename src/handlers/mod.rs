//! Write your own handler: what becomes of the events of an aggregate type.
//!
//! Without one, an event goes to its topic. With one, it goes to the handler first, or
//! for good: see [`Outcome`]. There are three levels; take the first that does.
//!
//! 1. **A closure or an `async fn`**, [`PipelineBuilder::handler`](crate::PipelineBuilder::handler):
//!    ```no_run
//!    use factlib::{Event, Pipeline, handlers::{HandlerError, Outcome, Record}};
//!
//!    async fn redact(event: &Event) -> Result<Outcome, HandlerError> {
//!        let mut user: serde_json::Value = serde_json::from_slice(&event.decode()?.payload)?;
//!        user["email"] = "redacted".into();
//!        Ok(Outcome::Replace(vec![Record::of(event).payload(user.to_string())]))
//!    }
//!
//!    let builder = Pipeline::builder().handler("user", redact);
//!    ```
//! 2. **A struct with state**, [`EventHandler`], made by a factory and made again after a panic:
//!    [`PipelineBuilder::event_handler`](crate::PipelineBuilder::event_handler).
//! 3. **An actor of your own** that takes [`TopicBatch`](crate::TopicBatch), whole batches with
//!    their [`AckToken`](crate::AckToken):
//!    [`PipelineBuilder::handler_actor`](crate::PipelineBuilder::handler_actor). A whole one:
//!    ```no_run
//!    use actix::{Actor, Context, Handler};
//!    use factlib::{Pipeline, Refused, TopicBatch, handlers::Record};
//!
//!    struct MyActor;
//!
//!    impl Actor for MyActor {
//!        type Context = Context<Self>;
//!    }
//!
//!    impl Handler<TopicBatch> for MyActor {
//!        type Result = ();
//!
//!        fn handle(&mut self, TopicBatch { events, ack, .. }: TopicBatch, _: &mut Self::Context) {
//!            let (mut records, mut refused) = (Vec::new(), Vec::new());
//!            for (index, event) in events.iter().enumerate() {
//!                match event.decode() {
//!                    Ok(fact) => records.push(Record::of(event).payload(fact.payload)),
//!                    Err(error) => refused.push(Refused::new(index, error)), // To the dead letters.
//!                }
//!            }
//!            ack.hand_on(records, refused) // Or `ack()`: nothing goes on. Or `fail(…)`: see BatchFailure.
//!        }
//!    }
//!
//!    let builder = Pipeline::builder().handler_actor("user", |_| MyActor.start().recipient());
//!    ```
//!    One that panics or forgets to answer loses nothing: it is made again, and an event at which
//!    it always does so ends in the dead letters.
//!
//! # What the first two can rely on
//! - **Order.** Events of one aggregate are handled one after the other, in their order,
//!   whatever the handler awaits; what goes on to Kafka does so in that order. Different
//!   aggregates are handled at the same time where [`HandlerOptions::concurrency`] says so.
//! - **At least once.** PostgreSQL forgets an event only after its handler has ended with it and
//!   what it handed on is safe. After a crash it comes again, with the same [`Event::id`]:
//!   a handler that must not do its work twice remembers that id, in the same transaction.
//! - **Failure.** An error, a panic and a try that takes longer than
//!   [`HandlerOptions::timeout`] are failed tries. After [`HandlerOptions::tries`] of them the
//!   event goes to the dead letters and those behind it go on; with `dead_letter.policy =
//!   "block"` it is tried for ever. [`Outcome::RetryLater`] is no failure and has no limit.
//! - **A thread of its own**, one a handler. It must not block that thread, or no timeout of it
//!   can fire; blocking calls go to `spawn_blocking`. The relay itself goes on either way, and
//!   its status says which handler has events waiting.
//!
//! # Backpressure
//! An event holds its bytes of `pipeline.window` until it is done. A slow handler fills the
//! window by and by, and the relay then reads no faster than it.

mod options;
mod registry;

use std::time::Duration;

pub(crate) use self::registry::{
    AnyHandler, HandlerFactory, HandlerFuture, HandlerLaneNames, HandlerRegistry, MakeHandler,
    RegisteredHandler,
};
pub use self::{options::HandlerOptions, registry::HandlerContext};
use crate::Event;
pub use crate::messages::{BatchFailure, HandlerError, Record};

/// The aggregate type of a handler for all that have none of their own.
pub const ANY: &str = "*";

/// What a handler made of an event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It goes on to its topic, as it is.
    Forward,
    /// These go on in its place, in this order; see [`Record`].
    Replace(Vec<Record>),
    /// It is done with: nothing goes on. So a handler is the end of the line.
    Skip,
    /// Not now: the same event again after so long, as often as the handler says so. What is
    /// behind it of its aggregate waits.
    RetryLater(Duration),
    /// It can never be handled, for this reason: to the dead letters at once.
    DeadLetter(String),
}

/// A handler with state.
///
/// It lives on one thread, so that state needs no lock: a `Cell` or a `RefCell` does, as long
/// as no borrow is held over an `.await`.
///
/// ```no_run
/// use std::cell::Cell;
/// use factlib::{Event, Pipeline, handlers::{EventHandler, HandlerError, Outcome}};
///
/// #[derive(Default)]
/// struct Sample(Cell<u64>);
///
/// impl EventHandler for Sample {
///     async fn handle(&self, _: &Event) -> Result<Outcome, HandlerError> {
///         self.0.set(self.0.get() + 1);
///         Ok(if self.0.get() % 100 == 0 { Outcome::Forward } else { Outcome::Skip })
///     }
/// }
///
/// let builder = Pipeline::builder().event_handler("click", Sample::default);
/// ```
pub trait EventHandler: 'static {
    /// Handles one event. The future is polled where it is made, and only one that is still open
    /// then becomes a task. Dropped at an `.await` when it takes too long or the pipeline ends.
    ///
    /// # Errors
    /// The event is tried again, see [`HandlerOptions`].
    fn handle(&self, event: &Event) -> impl Future<Output = Result<Outcome, HandlerError>>;
}
