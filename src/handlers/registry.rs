//! Collects a pipeline's handlers, checks them, and names the lane of each.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use actix::Recipient;
use futures_util::future::LocalBoxFuture;
use slog::Logger;

use super::{ANY, EventHandler, HandlerError, HandlerOptions, Outcome};
use crate::{Error, ErrorKind, Event, Result, TopicBatch};

/// Arguments for the factory of a handler actor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandlerContext {
    /// The aggregate type of its events; [`ANY`] for all types without a handler of their own.
    pub aggregate_type: Arc<str>,
    /// Logger with the handler as a key.
    pub log: Logger,
}

/// An [`EventHandler`] of any type, as a trait object.
pub(crate) trait AnyHandler {
    /// Starts to handle the event at `index`.
    fn handle(self: Rc<Self>, events: Arc<Vec<Event>>, index: usize) -> HandlerFuture;
}

/// The running call of a handler.
pub(crate) type HandlerFuture = LocalBoxFuture<'static, Result<Outcome, HandlerError>>;

impl<H: EventHandler> AnyHandler for H {
    fn handle(self: Rc<Self>, events: Arc<Vec<Event>>, index: usize) -> HandlerFuture {
        Box::pin(async move { EventHandler::handle(&*self, &events[index]).await })
    }
}

/// Adapts a closure to [`EventHandler`].
struct FromFn<F>(Arc<F>);

impl<F> EventHandler for FromFn<F>
where
    F: AsyncFn(&Event) -> Result<Outcome, HandlerError> + 'static,
{
    async fn handle(&self, event: &Event) -> Result<Outcome, HandlerError> {
        (self.0)(event).await
    }
}

/// Factory that creates a handler on its own thread.
#[derive(Clone)]
pub(crate) enum HandlerFactory {
    Events(MakeHandler),
    Actor(MakeActor),
}

pub(crate) type MakeHandler = Arc<dyn Fn() -> Rc<dyn AnyHandler> + Send + Sync>;
pub(crate) type MakeActor = Arc<dyn Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync>;

/// A handler with its lane and options.
pub(crate) struct RegisteredHandler {
    pub aggregate_type: Arc<str>,
    /// The name of its lane; no topic can have that name.
    pub lane: Arc<str>,
    pub factory: HandlerFactory,
    pub options: HandlerOptions,
}

/// The handlers that a pipeline's builder has collected.
#[derive(Default)]
pub(crate) struct HandlerRegistry {
    entries: Vec<(Arc<str>, HandlerOptions, HandlerFactory)>,
}

impl HandlerRegistry {
    pub fn function<F>(&mut self, aggregate_type: Arc<str>, options: HandlerOptions, function: F)
    where
        F: AsyncFn(&Event) -> Result<Outcome, HandlerError> + Send + Sync + 'static,
    {
        let function = Arc::new(function);
        self.events(aggregate_type, options, move || FromFn(Arc::clone(&function)));
    }

    pub fn events<H: EventHandler>(
        &mut self,
        aggregate_type: Arc<str>,
        options: HandlerOptions,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) {
        let factory = HandlerFactory::Events(Arc::new(move || Rc::new(make())));
        self.entries.push((aggregate_type, options, factory));
    }

    pub fn actor(
        &mut self,
        aggregate_type: Arc<str>,
        options: HandlerOptions,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) {
        self.entries.push((aggregate_type, options, HandlerFactory::Actor(Arc::new(make))));
    }

    /// Checks the handlers and names their lanes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for two handlers of one aggregate type, or invalid options.
    pub fn into_registered(self) -> Result<Vec<RegisteredHandler>> {
        let mut entries: Vec<RegisteredHandler> = Vec::new();
        for (aggregate_type, options, factory) in self.entries {
            options.check(&aggregate_type)?;
            if entries.iter().any(|entry| entry.aggregate_type == aggregate_type) {
                let what = format!("aggregate type {aggregate_type:?} has two handlers");
                return Err(Error::new(ErrorKind::Config, what).remedy("leave one out"));
            }
            let lane = format!("handler:{aggregate_type}").into();
            entries.push(RegisteredHandler { aggregate_type, lane, factory, options });
        }
        Ok(entries)
    }
}

/// Lane names of handlers, by aggregate type.
#[derive(Clone, Default)]
pub(crate) struct HandlerLaneNames {
    by_type: HashMap<Arc<str>, Arc<str>>,
    any: Option<Arc<str>>,
}

impl HandlerLaneNames {
    pub fn new(entries: &[RegisteredHandler]) -> Self {
        let lanes = entries
            .iter()
            .map(|entry| (Arc::clone(&entry.aggregate_type), Arc::clone(&entry.lane)));
        let mut by_type: HashMap<_, _> = lanes.collect();
        let any = by_type.remove(ANY);
        HandlerLaneNames { by_type, any }
    }

    /// True if there is no handler.
    pub fn is_empty(&self) -> bool {
        self.by_type.is_empty() && self.any.is_none()
    }

    /// The lane of the handler that an event goes to, if any.
    pub fn lane(&self, event: &Event) -> Option<&Arc<str>> {
        self.by_type.get(event.aggregate_type()).or(self.any.as_ref())
    }

    /// True if the lane is a handler's and not a topic's.
    pub fn is_handler(lane: &str) -> bool {
        Self::handler(lane).is_some()
    }

    /// The aggregate type of the handler whose lane this is.
    pub fn handler(lane: &str) -> Option<&str> {
        // Kafka does not allow a colon in a topic name.
        lane.strip_prefix("handler:")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn skip(_: &Event) -> Result<Outcome, HandlerError> {
        Ok(Outcome::Skip)
    }

    fn problem(handlers: HandlerRegistry) -> String {
        let error = handlers.into_registered().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn two_handlers_of_one_type_are_refused() {
        let mut handlers = HandlerRegistry::default();
        for aggregate_type in ["user", "order", "user"] {
            handlers.function(aggregate_type.into(), HandlerOptions::default(), skip);
        }
        let text = "aggregate type \"user\" has two handlers (leave one out)";
        assert_eq!(problem(handlers), text);
    }

    #[test]
    fn options_must_be_sound() {
        let (usual, second) = (HandlerOptions::default(), Duration::from_secs(1));
        for (options, why) in [
            (usual.clone().concurrency(0), "concurrency must be at least 1"),
            (usual.clone().tries(0), "tries must be at least 1"),
            (usual.clone().timeout(Duration::ZERO), "timeout must be above zero"),
            (usual.clone().backoff(Duration::ZERO, second), "backoff must be above zero"),
            (usual.backoff(second * 2, second), "the longest backoff must not be below the first"),
        ] {
            let mut handlers = HandlerRegistry::default();
            handlers.function("user".into(), options, skip);
            let what = "the handler of \"user\" has invalid options";
            assert_eq!(problem(handlers), format!("{what}: {why}"));
        }
    }
}
