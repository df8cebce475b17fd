//! Opens the lanes of handlers, each on a thread of its handler.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Actor, Recipient};
use actix_rt::Arbiter;
use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    HandlerActor,
    attempts::Caller,
    poison_event_isolator::{FirstBatch, PoisonEventIsolator},
};
use crate::{
    Error, ErrorKind, Result,
    actors::lane::{LaneContext, Lanes},
    handlers::{HandlerContext, HandlerFactory, RegisteredHandler},
    messages::{ExitGuard, TopicBatch},
    status::Status,
};

/// Opens the lanes of handlers; all others are opened by `rest`.
pub(crate) struct HandlerLanes {
    threads: HashMap<Arc<str>, HandlerThread>,
    for_ever: bool,
    rest: Arc<dyn Lanes>,
    status: Arc<Status>,
}

/// The thread of a handler, whichever actor calls it.
struct HandlerThread {
    entry: RegisteredHandler,
    arbiter: Arbiter,
    /// Held by the actor that may call the handler.
    call_lock: Arc<tokio::sync::Mutex<()>>,
    current: Mutex<CurrentLane>,
}

/// The lane that was opened last.
#[derive(Default)]
struct CurrentLane {
    cancel: CancellationToken,
    /// Kept here for an actor of the user's, whose end shows in its tokens.
    _exit: Option<ExitGuard>,
}

impl HandlerLanes {
    /// Gives each handler a thread. With `for_ever`, none gives an event up.
    pub fn new(
        entries: Vec<RegisteredHandler>,
        for_ever: bool,
        rest: Arc<dyn Lanes>,
        status: Arc<Status>,
    ) -> Self {
        let thread = |entry: RegisteredHandler| {
            let (arbiter, call_lock) = (Arbiter::new(), Arc::default());
            (
                Arc::clone(&entry.lane),
                HandlerThread { entry, arbiter, call_lock, current: Mutex::default() },
            )
        };
        HandlerLanes { threads: entries.into_iter().map(thread).collect(), for_ever, rest, status }
    }
}

#[async_trait]
impl Lanes for HandlerLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let Some(thread) = self.threads.get(&lane.topic) else { return self.rest.open(lane).await };
        let LaneContext { topic, log, exit, failures } = lane;
        let RegisteredHandler { aggregate_type, factory, options, .. } = &thread.entry;
        match factory {
            HandlerFactory::Events(make) => {
                let cancelled = CancellationToken::new();
                mem::replace(&mut thread.current().cancel, cancelled.clone()).cancel();
                let call_lock = Arc::clone(&thread.call_lock).lock_owned().await;
                let (make, options) = (Arc::clone(make), options.clone());
                let (status, for_ever) = (Arc::clone(&self.status), self.for_ever);
                let actor = HandlerActor::start_in_arbiter(&thread.arbiter.handle(), move |_| {
                    let handler = Default::default();
                    let caller =
                        Caller { make, handler, options, for_ever, lane: topic, status, log };
                    HandlerActor::new(caller, cancelled, exit, call_lock)
                });
                Ok(actor.recipient())
            }
            HandlerFactory::Actor(make) => {
                let cancelled = CancellationToken::new();
                let current = CurrentLane { cancel: cancelled.clone(), _exit: Some(exit) };
                mem::replace(&mut *thread.current(), current).cancel.cancel();
                let (make, (reply, made)) = (Arc::clone(make), oneshot::channel());
                let aggregate = Arc::clone(aggregate_type);
                let context = HandlerContext { aggregate_type: aggregate, log: log.clone() };
                let isolator = (failures > 0).then(|| {
                    let (make, context) = (Arc::clone(&make), context.clone());
                    PoisonEventIsolator {
                        make: Box::new(move || make(&context)),
                        actor: None,
                        options: options.clone(),
                        for_ever: self.for_ever,
                        status: Arc::clone(&self.status),
                        log,
                        cancelled,
                        first: FirstBatch::Awaited,
                    }
                });
                thread.arbiter.spawn_fn(move || {
                    let recipient = match isolator {
                        Some(isolator) => isolator.start().recipient(),
                        None => make(&context),
                    };
                    // Nobody waits any more where the pipeline has ended.
                    let _ = reply.send(recipient);
                });
                made.await.map_err(|error| {
                    let what = format!("the handler actor of {aggregate_type:?} was not made");
                    Error::new(ErrorKind::ActorFailed, what).caused_by(error)
                })
            }
        }
    }

    async fn check(&self, timeout: Duration) -> Result<()> {
        self.rest.check(timeout).await
    }

    async fn is_back(&self) -> bool {
        self.rest.is_back().await
    }
}

impl HandlerThread {
    fn current(&self) -> MutexGuard<'_, CurrentLane> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HandlerThread {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}
