//! Handlers: your own code for the events of an aggregate type.
//!
//! Without a handler, an event goes to its topic. With one, the event goes to the handler, whose
//! [`Outcome`] decides whether anything goes on to Kafka. There are three levels; use the
//! first that is sufficient.
//!
//! 1. **A closure or an `async fn`**,
//!    [`PipelineBuilder::handler`](crate::PipelineBuilder::handler):
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
//! 2. **A struct with state**, [`EventHandler`], created by a factory, again after a panic:
//!    [`PipelineBuilder::event_handler`](crate::PipelineBuilder::event_handler).
//! 3. **An actor of your own** that takes [`TopicBatch`](crate::TopicBatch), whole batches with
//!    their [`AckToken`](crate::AckToken):
//!    [`PipelineBuilder::handler_actor`](crate::PipelineBuilder::handler_actor). For example:
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
//!    An actor that panics or never answers loses nothing: it is created again, and an event at
//!    which it always fails goes to the dead letters.
//!
//! # Guarantees for the first two
//! - **Order.** Events of one aggregate are handled one after the other, in order, whatever the
//!   handler awaits, and their records go to Kafka in that order. With
//!   [`HandlerOptions::concurrency`], different aggregates are handled at the same time.
//! - **At least once.** PostgreSQL forgets an event only after its handler is done with it and
//!   the records that the handler sent on are acknowledged. After a crash the event comes again,
//!   with the same [`Event::id`]: a handler that must not do its work twice stores that id in the
//!   same transaction.
//! - **Failure.** A try fails with an error, a panic or after [`HandlerOptions::timeout`]. After
//!   [`HandlerOptions::tries`] failed tries the event goes to the dead letters and the events behind
//!   it continue; with `dead_letter.policy = "block"` it is retried for ever. [`Outcome::RetryLater`]
//!   is not a failure and has no limit.
//! - **A thread of its own** for each handler. A handler must not block that thread, or its
//!   timeout can't fire; use `spawn_blocking` for blocking calls. The relay itself continues either
//!   way, and its status says which handler has events waiting.
//!
//! # Backpressure
//! An event occupies its bytes of `pipeline.window` until it is done. A slow handler gradually
//! fills the window, and the relay then reads no faster than the handler works.

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

/// The aggregate type of the handler for all types that have no handler of their own.
pub const ANY: &str = "*";

/// A handler's decision about an event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The event goes on to its topic, unchanged.
    Forward,
    /// These records go on in its place, in this order; see [`Record`].
    Replace(Vec<Record>),
    /// The event is done and nothing goes on to Kafka.
    Skip,
    /// The event is handled again after this pause, without limit. Later events of its aggregate
    /// wait.
    RetryLater(Duration),
    /// The event can never be handled, for this reason: it goes to the dead letters at once.
    DeadLetter(String),
}

/// A handler with state.
///
/// It lives on one thread, so its state needs no lock: use a `Cell`, or a `RefCell` that is not
/// borrowed across an `.await`.
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
    /// Handles one event. The future is polled once in place, and becomes a task only if it is
    /// still pending. It is dropped at an `.await` if it takes too long or the pipeline ends.
    ///
    /// # Errors
    /// Any error: the event is tried again, see [`HandlerOptions`].
    fn handle(&self, event: &Event) -> impl Future<Output = Result<Outcome, HandlerError>>;
}
