//! The tries of one event: until its handler ends with it, or it is given up.

use std::{any::Any, cell::RefCell, panic::AssertUnwindSafe, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use slog::{Logger, debug, warn};
use tokio::time::{sleep, timeout};

use super::lineup::End;
use crate::{
    Error, ErrorKind, Event,
    handlers::{Handle, HandlerOptions, MakeHandler, Outcome, Record},
    status::Status,
};

/// A handler, and how it is called.
pub(super) struct Caller {
    pub make: MakeHandler,
    /// None before its first event and after a panic.
    pub handler: RefCell<Option<Rc<dyn Handle>>>,
    pub options: HandlerOptions,
    /// An event is never given up, as `dead_letter.policy = "block"` wants it.
    pub for_ever: bool,
    pub lane: Arc<str>,
    pub status: Arc<Status>,
    pub log: Logger,
}

/// What one try came to.
enum Try {
    Ended(End),
    Later(Duration),
    Failed(Error),
    /// No further try can help.
    GivenUp(Error),
}

impl Caller {
    /// Calls the handler until it ends with the event, or has failed often enough.
    pub async fn handle(&self, event: &Event) -> End {
        let mut pauses = self.options.pauses();
        let (mut tries, mut trouble) = (0, false);
        let end = loop {
            let (pause, error) = match self.attempt(event).await {
                Try::Ended(end) => break end,
                Try::Later(pause) => {
                    debug!(self.log, "the handler wants the event later"; "event" => ?event,
                        "pause_ms" => pause.as_millis());
                    trouble = true;
                    let text = format!("the handler wants event {} later", event.id());
                    self.status.handler_retries(&self.lane, text);
                    sleep(pause).await;
                    continue;
                }
                Try::GivenUp(error) if !self.for_ever => break End::Refused(error),
                Try::GivenUp(error) => (self.options.backoff_max, error),
                Try::Failed(error) => (pauses.next().unwrap_or(self.options.backoff_max), error),
            };
            tries += 1;
            trouble = true;
            warn!(self.log, "handler failed"; "event" => ?event, "try" => tries,
                "error" => %error);
            if tries >= self.options.tries && !self.for_ever {
                let what = format!("its handler failed {tries} times, the last time");
                break End::Refused(Error::new(ErrorKind::HandlerFailed, what).caused_by(error));
            }
            let text = format!("event {}, try {tries}: {error}", event.id());
            self.status.handler_retries(&self.lane, text);
            sleep(pause).await;
        };
        if trouble {
            self.status.handler_goes_on(&self.lane);
        }
        end
    }

    async fn attempt(&self, event: &Event) -> Try {
        let failed = |what: String| Error::new(ErrorKind::HandlerFailed, what);
        let limit = self.options.timeout;
        // A panic is of this try alone: the other events of the handler go on.
        let trying = AssertUnwindSafe(async {
            let handler = self.handler();
            timeout(limit, handler.handle(event)).await
        });
        match trying.catch_unwind().await {
            Ok(Ok(Ok(outcome))) => match outcome {
                Outcome::Forward => Try::Ended(End::HandedOn(vec![Record::of(event)])),
                Outcome::Replace(records) => Try::Ended(End::HandedOn(records)),
                Outcome::Skip => Try::Ended(End::HandedOn(Vec::new())),
                Outcome::RetryLater(pause) => Try::Later(pause),
                Outcome::DeadLetter(reason) => {
                    Try::GivenUp(failed(format!("its handler gives it up: {reason}")))
                }
            },
            Ok(Ok(Err(error))) => Try::Failed(failed("the handler failed".into()).caused_by(error)),
            Ok(Err(_)) => Try::Failed(failed(format!("the handler did not end in {limit:?}"))),
            Err(panic) => {
                // What it left behind half done is not called again.
                self.handler.take();
                Try::Failed(failed(format!("the handler panicked: {}", text(&*panic))))
            }
        }
    }

    fn handler(&self) -> Rc<dyn Handle> {
        // Its factory is the user's and may panic: nothing is borrowed then.
        let present = self.handler.borrow().clone();
        present.unwrap_or_else(|| {
            let handler = (self.make)();
            Rc::clone(self.handler.borrow_mut().insert(handler))
        })
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
