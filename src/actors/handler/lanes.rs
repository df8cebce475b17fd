//! Lanes to handlers, and to the rest.

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
    careful::{CarefulActor, First},
};
use crate::{
    Error, ErrorKind, Result,
    actors::lane::{LaneContext, Lanes},
    handlers::{Entry, HandlerContext, Kind},
    messages::{ExitGuard, TopicBatch},
    status::Status,
};

/// Opens the lanes of handlers; all others are opened by `rest`.
pub(crate) struct HandlerLanes {
    places: HashMap<Arc<str>, Place>,
    for_ever: bool,
    rest: Arc<dyn Lanes>,
    status: Arc<Status>,
}

/// Where a handler runs, whichever actor calls it.
struct Place {
    entry: Entry,
    arbiter: Arbiter,
    /// Whoever has it may call the handler.
    room: Arc<tokio::sync::Mutex<()>>,
    present: Mutex<Present>,
}

/// What belongs to the lane that was opened last.
#[derive(Default)]
struct Present {
    cancel: CancellationToken,
    /// An actor of the user's has none: the end of it shows in its tokens.
    _exit: Option<ExitGuard>,
}

impl HandlerLanes {
    /// Gives each handler a thread. With `for_ever`, none gives an event up.
    pub fn new(
        entries: Vec<Entry>,
        for_ever: bool,
        rest: Arc<dyn Lanes>,
        status: Arc<Status>,
    ) -> Self {
        let place = |entry: Entry| {
            let (arbiter, room) = (Arbiter::new(), Arc::default());
            (Arc::clone(&entry.lane), Place { entry, arbiter, room, present: Mutex::default() })
        };
        HandlerLanes { places: entries.into_iter().map(place).collect(), for_ever, rest, status }
    }
}

#[async_trait]
impl Lanes for HandlerLanes {
    async fn open(&self, lane: LaneContext) -> Result<Recipient<TopicBatch>> {
        let Some(place) = self.places.get(&lane.topic) else { return self.rest.open(lane).await };
        let LaneContext { topic, log, exit, failures } = lane;
        let Entry { aggregate_type, kind, options, .. } = &place.entry;
        match kind {
            Kind::Events(make) => {
                let cancelled = CancellationToken::new();
                mem::replace(&mut place.present().cancel, cancelled.clone()).cancel();
                let room = Arc::clone(&place.room).lock_owned().await;
                let (make, options) = (Arc::clone(make), options.clone());
                let (status, for_ever) = (Arc::clone(&self.status), self.for_ever);
                let actor = HandlerActor::start_in_arbiter(&place.arbiter.handle(), move |_| {
                    let handler = Default::default();
                    let caller =
                        Caller { make, handler, options, for_ever, lane: topic, status, log };
                    HandlerActor::new(caller, cancelled, exit, room)
                });
                Ok(actor.recipient())
            }
            Kind::Actor(make) => {
                let cancelled = CancellationToken::new();
                let present = Present { cancel: cancelled.clone(), _exit: Some(exit) };
                mem::replace(&mut *place.present(), present).cancel.cancel();
                let (make, (reply, made)) = (Arc::clone(make), oneshot::channel());
                let aggregate = Arc::clone(aggregate_type);
                let context = HandlerContext { aggregate_type: aggregate, log: log.clone() };
                let careful = (failures > 0).then(|| {
                    let (make, context) = (Arc::clone(&make), context.clone());
                    CarefulActor {
                        make: Box::new(move || make(&context)),
                        actor: None,
                        options: options.clone(),
                        for_ever: self.for_ever,
                        status: Arc::clone(&self.status),
                        log,
                        cancelled,
                        first: First::Awaited,
                    }
                });
                place.arbiter.spawn_fn(move || {
                    let recipient = match careful {
                        Some(careful) => careful.start().recipient(),
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

impl Place {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}
