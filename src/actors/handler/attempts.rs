//! The tries of one event: until its handler ends with it, or it is given up.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use slog::{Logger, debug, warn};
use tokio::time::{sleep, timeout};

use super::event_queue::{EventEnd, Turn};
use crate::{
    Error, ErrorKind,
    handlers::{AnyHandler, HandlerError, HandlerFuture, HandlerOptions, MakeHandler, Outcome},
    status::Status,
};

/// A handler, and how it is called.
pub(super) struct Caller {
    pub make: MakeHandler,
    /// None before its first event and after a panic.
    pub handler: RefCell<Option<Rc<dyn AnyHandler>>>,
    pub options: HandlerOptions,
    /// An event is never given up, as `dead_letter.policy = "block"` wants it.
    pub for_ever: bool,
    pub lane: Arc<str>,
    pub status: Arc<Status>,
    pub log: Logger,
}

/// A try that was begun.
pub(super) enum Begun {
    Over(Try),
    /// It awaits something.
    Open(HandlerFuture),
}

/// The result of one try.
pub(super) enum Try {
    Ended(EventEnd),
    Later(Duration),
    Failed(Error),
    /// A further try can't help.
    GivenUp(Error),
}

impl Caller {
    /// Begins a try. One that awaits nothing is over then, without a timer or a task.
    pub fn begin(&self, turn: &Turn) -> Begun {
        // A panic is of this try alone: the other events of the handler go on.
        let begun = catch_unwind(AssertUnwindSafe(|| {
            let mut trying = self.handler().handle(Arc::clone(&turn.events), turn.index);
            // No waker yet: an open one is polled again as soon as it is waited for.
            match trying.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => Begun::Over(result.into()),
                Poll::Pending => Begun::Open(trying),
            }
        }));
        begun.unwrap_or_else(|panic| Begun::Over(self.panicked(&*panic)))
    }

    async fn finish(&self, trying: HandlerFuture) -> Try {
        let limit = self.options.timeout;
        // In a block of its own, so that it is dropped in there as well.
        let trying = async { timeout(limit, trying).await };
        match AssertUnwindSafe(trying).catch_unwind().await {
            Ok(Ok(result)) => result.into(),
            Ok(Err(_)) => Try::Failed(failed(format!("the handler did not end in {limit:?}"))),
            Err(panic) => self.panicked(&*panic),
        }
    }

    /// From a first try on, until the handler ends with the event or has failed often enough.
    pub async fn handle(&self, turn: &Turn, mut begun: Begun) -> EventEnd {
        let event = turn.event();
        let mut pauses = self.options.pauses();
        let (mut tries, mut trouble) = (0, false);
        let end = loop {
            let tried = match begun {
                Begun::Over(tried) => tried,
                Begun::Open(trying) => self.finish(trying).await,
            };
            let failed_call = !matches!(tried, Try::Later(_));
            let (pause, error) = match tried {
                Try::Ended(end) => break end,
                Try::Later(pause) => (pause, None),
                Try::GivenUp(error) if !self.for_ever => break EventEnd::Refused(error),
                Try::GivenUp(error) => (self.options.backoff_max, Some(error)),
                Try::Failed(error) => {
                    (pauses.next().unwrap_or(self.options.backoff_max), Some(error))
                }
            };
            trouble = true;
            let text = match error {
                None => {
                    debug!(self.log, "handler asks for the event later"; "event" => ?event,
                        "pause_ms" => pause.as_millis());
                    format!("the handler wants event {} later", event.id())
                }
                Some(error) => {
                    tries += 1;
                    warn!(self.log, "handler failed"; "event" => ?event, "try" => tries,
                        "of" => self.options.tries, "error" => %error);
                    if tries >= self.options.tries && !self.for_ever {
                        let what = format!("its handler failed {tries} times, the last time");
                        break EventEnd::Refused(failed(what).caused_by(error));
                    }
                    format!("event {}, try {tries}: {error}", event.id())
                }
            };
            self.status.handler_retries(&self.lane, text, failed_call);
            sleep(pause).await;
            begun = self.begin(turn);
        };
        if trouble {
            self.status.handler_goes_on(&self.lane);
        }
        end
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Try {
        // What it left behind half done is not called again.
        self.handler.take();
        Try::Failed(failed(format!("the handler panicked: {}", text(panic))))
    }

    fn handler(&self) -> Rc<dyn AnyHandler> {
        // Its factory is the user's and may panic: nothing is borrowed then.
        let present = self.handler.borrow().clone();
        present.unwrap_or_else(|| {
            let handler = (self.make)();
            Rc::clone(self.handler.borrow_mut().insert(handler))
        })
    }
}

impl From<Result<Outcome, HandlerError>> for Try {
    fn from(result: Result<Outcome, HandlerError>) -> Self {
        match result {
            Ok(Outcome::Forward) => Try::Ended(EventEnd::Forwarded),
            Ok(Outcome::Replace(records)) => Try::Ended(EventEnd::Replaced(records)),
            Ok(Outcome::Skip) => Try::Ended(EventEnd::Replaced(Vec::new())),
            Ok(Outcome::RetryLater(pause)) => Try::Later(pause),
            Ok(Outcome::DeadLetter(reason)) => {
                Try::GivenUp(failed(format!("its handler gives it up: {reason}")))
            }
            Err(error) => Try::Failed(failed("the handler failed".into()).caused_by(error)),
        }
    }
}

fn failed(what: String) -> Error {
    Error::new(ErrorKind::HandlerFailed, what)
}

/// The message of a panic.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
