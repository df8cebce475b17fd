//! The pipeline as one thing: build it, start it, ask it, stop it.
//!
//! It runs inside the actix `System` that is there, or in one on a thread of its own. It has three
//! arbiters (threads): one reads the WAL, one saves positions, one does the rest. Where the
//! configuration has a port for them, it serves health and metrics. It installs no signal handler
//! and never stops a system of the application's, so several can run in one process. They share
//! only the list of slots that they read.
//!
//! | file | idea |
//! | --- | --- |
//! | `handle` | a running pipeline: asked, paused, stopped |
//! | `own_thread` | a system for programs that have none |

mod handle;
mod own_thread;

use std::{collections::HashSet, sync::Arc};

use actix::Recipient;
use actix_rt::{Arbiter, System};
use slog::Logger;
use tokio::sync::{oneshot, watch};

pub use self::handle::PipelineHandle;

#[cfg(feature = "metrics")]
use crate::ops::Facade;
use crate::{
    Error, ErrorKind, Event, Result,
    actors::{HandlerLanes, KafkaLanes, Lanes, PipelineResources, Supervisor, TableLanes, Threads},
    checkpoint::CheckpointStore,
    config::{Config, RefusalPolicy},
    exactly_once::{Positions, Transactions},
    faults::Faults,
    handlers::{
        self, EventHandler, HandlerContext, HandlerError, HandlerLaneNames, HandlerOptions,
        HandlerRegistry,
    },
    kafka::producer::KafkaProducer,
    logging,
    messages::{ByteWindow, TopicBatch},
    ops::Ops,
    startup::{SlotClaim, Startup},
    status::Status,
};
#[cfg(feature = "client-kafka")]
use crate::{actors::PlainLanes, config::KafkaClient};

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
    /// What a pipeline needs to know before it starts; all of it has a default.
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
            faults: Faults::default(),
            #[cfg(feature = "metrics")]
            facade: Facade::default(),
        }
    }
}

/// Collects what a [`Pipeline`] is made of.
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
    faults: Faults,
    #[cfg(feature = "metrics")]
    facade: Facade,
}

impl PipelineBuilder {
    /// Every setting; see [`Config`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the logger. Without one, log lines go to the subscriber of `tracing` (feature
    /// `tracing`, if the program has one), and otherwise warnings and errors go to stderr.
    /// `Logger::root(slog::Discard, slog::o!())` silences it.
    pub fn logger(mut self, log: Logger) -> Self {
        self.log = log;
        self
    }

    /// Which recorder gets what `/metrics` has, each with the label `slot`; the one that is
    /// installed for the process when not given.
    #[cfg(feature = "metrics")]
    pub fn metrics_recorder(mut self, recorder: Arc<dyn metrics::Recorder + Send + Sync>) -> Self {
        self.facade = Facade::to(recorder);
        self
    }

    /// Where the position is kept, in place of what `config.checkpoint` says.
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

    /// Adds such a handler, which is called as the options say.
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

    /// Adds such a handler, which is called as the options say.
    pub fn event_handler_with<H: EventHandler>(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        self.handlers.events(aggregate_type.into(), options, make);
        self
    }

    /// Adds an actor as a handler. `make` starts it on a thread of its own: at the first event,
    /// and again whenever a batch of it was failed or dropped. All that is not answered for
    /// then comes again, in order, the first batch event by event: one that the actor panics at
    /// as often as [`HandlerOptions::tries`] says is given up. Order and time-outs are the
    /// actor's own.
    pub fn handler_actor(
        self,
        aggregate_type: impl Into<Arc<str>>,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) -> Self {
        self.handler_actor_with(aggregate_type, HandlerOptions::default(), make)
    }

    /// Adds such an actor. Of the options, only `tries` and `backoff` are used.
    pub fn handler_actor_with(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) -> Self {
        self.handlers.actor(aggregate_type.into(), options, make);
        self
    }

    /// There is no Kafka: handlers are the end of the line, and dead letters are kept in the
    /// table `factlib.dead_letters`. So is what a handler forwards, or what has no handler.
    pub fn without_kafka(mut self) -> Self {
        self.kafka = false;
        self
    }

    /// Holds a topic back from the start, as [`PipelineHandle::pause_topic`] does later. Takes any
    /// name, also of a topic to which nothing has gone yet.
    pub fn pause_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.paused.insert(topic.into());
        self
    }

    /// Makes the pipeline behave like a replica in another process: where another pipeline of this
    /// process reads the slot, it stands by and is not refused. For tests.
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

    /// Delivers to nothing in place of Kafka, for benchmarks of what is above it:
    /// every event counts as delivered when its topic's actor gets it.
    #[cfg(feature = "test-util")]
    pub fn discard(mut self) -> Self {
        self.lanes = Some(Arc::new(crate::actors::DiscardLanes));
        self
    }

    /// Starts the pipeline, and waits until it reads for the first time or
    /// [stands by](crate::PipelineState::StandingBy): another instance reads the slot, and this
    /// one takes over when that ends. [`PipelineHandle::running`] waits for that.
    ///
    /// It needs the actix `System` of the application; where there is none, use
    /// [`start_on_own_thread`](Self::start_on_own_thread). Dropping the future stops what was
    /// started.
    ///
    /// # Errors
    /// A problem that can't pass by itself, at once; a server that can't be reached, after
    /// `pipeline.startup_timeout`. Once started, the pipeline waits for the end of an outage.
    pub async fn start(self) -> Result<PipelineHandle> {
        let handle = self.start_in_background().await?;
        handle.started().await?;
        Ok(handle)
    }

    /// Starts the pipeline and returns at once: its [routes](PipelineHandle::routes) answer while
    /// it connects. [`PipelineHandle::running`] waits until it reads, and [`PipelineHandle::wait`]
    /// has the error of a start that fails.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a mistake in the configuration or the handlers; a port that can't be
    /// used; no actix `System`; another pipeline of this process that reads the slot.
    pub async fn start_in_background(self) -> Result<PipelineHandle> {
        if System::try_current().is_none() {
            let what = "a pipeline starts inside an actix System, and this thread has none";
            let remedy = "call start_on_own_thread() in place of start(), or begin the program \
                          with #[actix_rt::main]";
            return Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        }
        let PipelineBuilder {
            config,
            log,
            store,
            lanes,
            handlers,
            kafka,
            paused,
            claims_slot,
            faults,
            #[cfg(feature = "metrics")]
            facade,
        } = self;
        config.validate()?;
        let handlers = handlers.into_registered()?;
        let config = Arc::new(config);
        let startup = Startup::new(&config)?;
        let claim = match claims_slot {
            true => SlotClaim::new(startup.info.describe_hosts(), &config.postgres.slot)?,
            false => SlotClaim::default(),
        };
        let store = match store {
            Some(store) => store,
            None => startup.store(&log),
        };
        let window = ByteWindow::new(config.window_bytes());
        let status = Arc::new(Status::new(window.clone()));
        // First, so that probes are answered while the servers are waited for.
        let ops = Ops::start(
            &config,
            kafka,
            &status,
            &log,
            #[cfg(feature = "metrics")]
            facade,
        )?;
        let (mut positions, mut transactions) = (None, None);
        let lanes: Arc<dyn Lanes> = match lanes {
            Some(lanes) => lanes,
            None if !kafka => {
                refuse_exactly_once(&config)?;
                Arc::new(TableLanes::new(startup.dead_letter_table(&log)))
            }
            #[cfg(feature = "client-kafka")]
            None if config.kafka.client == KafkaClient::Kafka => {
                let table = TableLanes::new(startup.dead_letter_table(&log));
                let (config, status) = (Arc::clone(&config), Arc::clone(&status));
                Arc::new(PlainLanes::new(config, table, status, faults.clone(), log.clone())?)
            }
            None => {
                let (window, status) = (window.size(), Arc::clone(&status));
                let of_topics = Arc::clone(&status);
                let producer = KafkaProducer::new(
                    &config.kafka.settings(),
                    window,
                    status.clone(),
                    log.clone(),
                )?;
                let kept = Arc::new(Positions::new(&config, producer.clone(), log.clone()));
                transactions = config.is_exactly_once().then(|| {
                    let (kept, faults, log) = (Arc::clone(&kept), faults.clone(), log.clone());
                    Arc::new(Transactions::new(&config, window, kept, status, faults, log))
                });
                positions = Some(kept);
                let table = startup.dead_letter_table(&log);
                let (transactions, faults) = (transactions.clone(), faults.clone());
                Arc::new(KafkaLanes::new(
                    &config,
                    producer,
                    table,
                    transactions,
                    of_topics,
                    faults,
                )?)
            }
        };
        let topics_of_handlers = HandlerLaneNames::new(&handlers);
        let mut known: HashSet<_> = handlers.iter().map(|entry| Arc::clone(&entry.lane)).collect();
        known.insert(config.dead_letter_topic().into());
        known.extend(paused.iter().cloned());
        let lanes: Arc<dyn Lanes> = match handlers.is_empty() {
            true => lanes,
            false => {
                let for_ever = config.dead_letter.policy == RefusalPolicy::Block;
                Arc::new(HandlerLanes::new(handlers, for_ever, lanes, Arc::clone(&status)))
            }
        };
        let startup = Arc::new(startup);
        let resources = PipelineResources {
            config,
            startup,
            store,
            lanes,
            handlers: topics_of_handlers,
            kafka,
            positions,
            transactions,
            window,
            paused,
            claim,
            status: Arc::clone(&status),
            faults,
            log,
        };
        spawn(resources, status, ops, known).await
    }
}

fn refuse_exactly_once(config: &Config) -> Result<()> {
    if !config.is_exactly_once() {
        return Ok(());
    }
    let what = "delivery.mode = \"exactly-once\" needs Kafka, which this pipeline is without";
    Err(Error::new(ErrorKind::Config, what).remedy("a handler does so by the event's id"))
}

/// Starts the supervisor on arbiters of its own.
async fn spawn(
    resources: PipelineResources,
    status: Arc<Status>,
    ops: Ops,
    known: HashSet<Arc<str>>,
) -> Result<PipelineHandle> {
    let claim = resources.claim.clone();
    let arbiters = vec![Arbiter::new(), Arbiter::new(), Arbiter::new()];
    let relay = &arbiters[0];
    let threads = Threads { reading: arbiters[1].handle(), saving: arbiters[2].handle() };
    let (running, is_running) = watch::channel(false);
    let (outcome, ended) = watch::channel(None);
    let (reply, launched) = oneshot::channel();
    relay.spawn_fn(move || {
        // The caller may have stopped waiting; the handle's drop stops the actors.
        let _ = reply.send(Supervisor::launch(resources, threads, running, outcome));
    });
    let what = "the pipeline's thread ended before the pipeline started";
    let supervisor = launched
        .await
        .map_err(|error| Error::new(ErrorKind::ActorFailed, what).caused_by(error))?;
    ops.set_control(supervisor.clone().recipient());
    Ok(PipelineHandle {
        supervisor,
        arbiters,
        running: is_running,
        ended,
        status,
        known,
        claim,
        system: None,
        ops,
    })
}
