//! Builds, starts and stops a pipeline: the public entry to the relay.
//!
//! A pipeline runs inside the application's actix `System`, or in one on its own thread. It has
//! three arbiters (threads): one reads the WAL, one saves positions, one does the rest. If the
//! configuration has ports for them, it serves health and metrics. It installs no signal handler
//! and never stops the application's system, so several pipelines can run in one process. They
//! share only the list of slots that they read.
//!
//! | file | idea |
//! | --- | --- |
//! | `handle` | the handle of a running pipeline: status, pausing topics, shutdown |
//! | `own_thread` | an actix system for programs that have none |
//! | `start` | checks, shared parts, and the launch of the supervisor |

mod handle;
mod own_thread;
mod start;

use std::{collections::HashSet, sync::Arc};

use actix::Recipient;
use slog::Logger;
use tokio::sync::watch;

pub use self::handle::PipelineHandle;

#[cfg(feature = "metrics")]
use crate::ops::Facade;
use crate::{
    Event, Result,
    actors::Lanes,
    checkpoint::CheckpointStore,
    config::Config,
    exactly_once::PositionReaders,
    faults::Faults,
    handlers::{self, EventHandler, HandlerContext, HandlerError, HandlerOptions, HandlerRegistry},
    kafka::pipelined::SharedConnections,
    logging,
    messages::TopicBatch,
    threads::ThreadPool,
};

/// A relay from one replication slot to Kafka.
///
/// ```no_run
/// # async fn example() -> factlib::Result<()> {
/// use factlib::{Pipeline, config::Config};
///
/// let mut config = Config::default();
/// config.postgres.url = "postgresql://relay@db/shop".into();
/// config.kafka.brokers = vec!["kafka:9092".into()];
///
/// let pipeline = Pipeline::builder().config(config).start().await?;
/// // … until your application ends:
/// pipeline.shutdown().await
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Pipeline;

impl Pipeline {
    /// Starts building a pipeline; everything has a default.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder {
            config: Config::default(),
            log: logging::default_logger(),
            store: None,
            lanes: None,
            handlers: HandlerRegistry::default(),
            kafka: true,
            paused: HashSet::new(),
            claims_slot: true,
            threads: None,
            position_readers: PositionReaders::default(),
            may_take_slot: watch::channel(true).1,
            faults: Faults::default(),
            #[cfg(feature = "metrics")]
            facade: Facade::default(),
            #[cfg(feature = "otlp")]
            traced: false,
        }
    }
}

/// Collects the configuration and the parts of a [`Pipeline`].
#[must_use = "a builder does nothing until `start`"]
pub struct PipelineBuilder {
    config: Config,
    log: Logger,
    store: Option<Arc<dyn CheckpointStore>>,
    lanes: Option<Arc<dyn Lanes>>,
    handlers: HandlerRegistry,
    kafka: bool,
    paused: HashSet<Arc<str>>,
    claims_slot: bool,
    threads: Option<Arc<ThreadPool>>,
    position_readers: PositionReaders,
    may_take_slot: watch::Receiver<bool>,
    faults: Faults,
    #[cfg(feature = "metrics")]
    facade: Facade,
    #[cfg(feature = "otlp")]
    traced: bool,
}

impl PipelineBuilder {
    /// Sets the configuration; see [`Config`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the logger. Without one, log lines go to the subscriber of `tracing` (with the feature
    /// `tracing`, if the program has one); otherwise only warnings and errors go to stderr.
    /// `Logger::root(slog::Discard, slog::o!())` silences it.
    pub fn logger(mut self, log: Logger) -> Self {
        self.log = log;
        self
    }

    /// Sets the recorder that gets the metrics of `/metrics`, each with the label `slot`. Without
    /// one, the recorder installed for the process gets them.
    #[cfg(feature = "metrics")]
    pub fn metrics_recorder(mut self, recorder: Arc<dyn metrics::Recorder + Send + Sync>) -> Self {
        self.facade = Facade::to(recorder);
        self
    }

    /// Makes spans of what is delivered, with the process's OpenTelemetry tracer provider
    /// (`opentelemetry::global`): set that first. Each part of a batch that goes to a topic is a span
    /// with links to the spans in which its events were emitted. An event whose emitter's trace is
    /// sampled has a span in that trace, from its commit to its acknowledgement.
    #[cfg(feature = "otlp")]
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// Sets the store of the position; overrides `config.checkpoint`.
    pub fn store(mut self, store: Arc<dyn CheckpointStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds a handler for the events of an aggregate type, or with [`handlers::ANY`] for all
    /// that have no handler of their own; see [`handlers`].
    pub fn handler<F>(self, aggregate_type: impl Into<Arc<str>>, handler: F) -> Self
    where
        F: AsyncFn(&Event) -> Result<handlers::Outcome, HandlerError> + Send + Sync + 'static,
    {
        self.handler_with(aggregate_type, HandlerOptions::default(), handler)
    }

    /// Adds a handler with options for its calls.
    pub fn handler_with<F>(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
        handler: F,
    ) -> Self
    where
        F: AsyncFn(&Event) -> Result<handlers::Outcome, HandlerError> + Send + Sync + 'static,
    {
        self.handlers.function(aggregate_type.into(), options, handler);
        self
    }

    /// Adds a handler with state, which `make` makes on the handler's thread, again after a
    /// panic.
    pub fn event_handler<H: EventHandler>(
        self,
        aggregate_type: impl Into<Arc<str>>,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        self.event_handler_with(aggregate_type, HandlerOptions::default(), make)
    }

    /// Adds a handler with state and with options for its calls.
    pub fn event_handler_with<H: EventHandler>(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        self.handlers.events(aggregate_type.into(), options, make);
        self
    }

    /// Adds an actor as a handler. `make` starts it on its own thread, at the first event and again
    /// whenever it failed or dropped a batch. Unacknowledged batches are then redelivered in order,
    /// the first one event by event; an event at which the actor panics
    /// [`HandlerOptions::tries`] times is given up. Order and timeouts are the actor's own matter.
    pub fn handler_actor(
        self,
        aggregate_type: impl Into<Arc<str>>,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) -> Self {
        self.handler_actor_with(aggregate_type, HandlerOptions::default(), make)
    }

    /// Adds an actor as a handler with options, of which only `tries` and `backoff` are used.
    pub fn handler_actor_with(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) -> Self {
        self.handlers.actor(aggregate_type.into(), options, make);
        self
    }

    /// Makes it one of a fleet, which has the threads, the connections to Kafka, the readers of positions
    /// there, the ports and the logger. `shared`: other instances may run it too, and while it is false
    /// one of them does.
    pub(crate) fn in_fleet(
        mut self,
        threads: &Arc<ThreadPool>,
        connections: &SharedConnections,
        position_readers: &PositionReaders,
        shared: Option<watch::Receiver<bool>>,
        log: Logger,
    ) -> Self {
        self.threads = Some(Arc::clone(threads));
        self.config.kafka.connections = Some(connections.clone());
        self.position_readers = position_readers.clone();
        if let Some(may_take_slot) = shared {
            self.may_take_slot = may_take_slot;
        }
        self.config.http.health_port = None;
        self.config.http.metrics_port = None;
        self.log = log;
        self
    }

    /// Runs without Kafka: events end at their handlers. Dead letters, events that a handler forwards
    /// and events without a handler are kept in the table `factlib.dead_letters`.
    pub fn without_kafka(mut self) -> Self {
        self.kafka = false;
        self
    }

    /// Starts with a topic paused, as [`PipelineHandle::pause_topic`] does later. Takes any name, also
    /// of a topic that has had no events yet.
    pub fn pause_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.paused.insert(topic.into());
        self
    }

    /// Makes the pipeline behave like a replica in another process, for tests: if another pipeline of
    /// this process reads the slot, it stands by instead of being refused.
    #[cfg(feature = "test-util")]
    pub fn as_another_process(mut self) -> Self {
        self.claims_slot = false;
        self
    }

    /// Puts faults into the pipeline, for tests.
    #[cfg(feature = "faults")]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Discards events instead of sending them to Kafka, for benchmarks of the stages before it: an
    /// event counts as delivered when its topic's actor gets it.
    #[cfg(feature = "test-util")]
    pub fn discard(mut self) -> Self {
        self.lanes = Some(Arc::new(crate::actors::DiscardLanes));
        self
    }
}
