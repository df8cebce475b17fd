//! The pipeline as one thing: build it, start it, ask it, stop it.
//!
//! It runs inside the actix `System` that is there, on two arbiters (threads)
//! of its own: one reads the WAL, one does the rest; where the configuration has
//! a port for it, health and metrics are answered. It installs no signal
//! handler, keeps no global state and never stops the system, so several can
//! run in one process.

use std::{fmt, sync::Arc};

use actix::{Addr, Recipient};
use actix_rt::Arbiter;
use slog::{Discard, Logger, o};
use tokio::sync::{oneshot, watch};

#[cfg(feature = "metrics")]
use crate::ops::Facade;
use crate::{
    Error, ErrorKind, Event, Result,
    actors::{HandlerLanes, KafkaLanes, Lanes, Outcome, Plan, Supervisor, TableLanes},
    checkpoint::CheckpointStore,
    config::{Config, RefusalPolicy},
    faults::Faults,
    handlers::{
        self, EventHandler, HandlerContext, HandlerError, HandlerOptions, HandlerTopics, Handlers,
    },
    kafka::{positions::Positions, producer::KafkaProducer, transactions::Transactions},
    messages::{ByteWindow, PauseTopic, Shutdown, Stop, TopicBatch},
    ops::{Ops, Routes},
    startup::Startup,
    status::{PipelineState, PipelineStatus, Status},
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
pub struct Pipeline;

impl Pipeline {
    /// What a pipeline needs to know before it starts; all of it has a default.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder {
            config: Config::default(),
            log: Logger::root(Discard, o!()),
            store: None,
            lanes: None,
            handlers: Handlers::default(),
            kafka: true,
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
    handlers: Handlers,
    kafka: bool,
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

    /// Where log lines go; nowhere when not given.
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

    /// What becomes of the events of an aggregate type, or with [`handlers::ANY`] of all that
    /// have no handler of their own; see [`handlers`].
    pub fn handler<F>(mut self, aggregate_type: impl Into<Arc<str>>, handler: F) -> Self
    where
        F: AsyncFn(&Event) -> Result<handlers::Outcome, HandlerError> + Send + Sync + 'static,
    {
        self.handlers.function(aggregate_type.into(), handler);
        self
    }

    /// The same by a handler with state, which `make` makes on the handler's thread, again
    /// after a panic.
    pub fn event_handler<H: EventHandler>(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        self.handlers.events(aggregate_type.into(), make);
        self
    }

    /// How such a handler is called. Of an actor, only `tries` and `backoff` mean something.
    pub fn handler_options(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        options: HandlerOptions,
    ) -> Self {
        self.handlers.options(aggregate_type.into(), options);
        self
    }

    /// The same by an actor, which `make` starts on a thread of its own: at the first event,
    /// and again whenever a batch of it was failed or dropped. All that is not answered for
    /// then comes again, in order, the first batch event by event: one that the actor panics at
    /// as often as `tries` says is given up. Order and time-outs are the actor's own.
    pub fn handler_actor(
        mut self,
        aggregate_type: impl Into<Arc<str>>,
        make: impl Fn(&HandlerContext) -> Recipient<TopicBatch> + Send + Sync + 'static,
    ) -> Self {
        self.handlers.actor(aggregate_type.into(), make);
        self
    }

    /// There is no Kafka: handlers are the end of the line, and dead letters are kept in the
    /// table `factlib.dead_letters`. So is what a handler forwards, or what has no handler.
    pub fn without_kafka(mut self) -> Self {
        self.kafka = false;
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

    /// Starts the pipeline and waits until it reads for the first time.
    ///
    /// Dropping the future stops what was started.
    ///
    /// # Errors
    /// What can't get better by itself, at once; a server that can't be reached,
    /// after `pipeline.startup_timeout`. Once started, outages are waited for.
    ///
    /// # Panics
    /// Outside an actix `System`.
    pub async fn start(self) -> Result<PipelineHandle> {
        let PipelineBuilder {
            config,
            log,
            store,
            lanes,
            handlers,
            kafka,
            faults,
            #[cfg(feature = "metrics")]
            facade,
        } = self;
        config.validate()?;
        let handlers = handlers.into_entries()?;
        let config = Arc::new(config);
        let startup = Startup::new(&config)?;
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
                let producer =
                    KafkaProducer::new(&config.kafka, window, Arc::clone(&status), log.clone())?;
                let kept = Arc::new(Positions::new(&config, producer.clone(), log.clone()));
                transactions = config.is_exactly_once().then(|| {
                    let (kept, faults, log) = (Arc::clone(&kept), faults.clone(), log.clone());
                    Arc::new(Transactions::new(&config, window, kept, status, faults, log))
                });
                positions = Some(kept);
                let table = startup.dead_letter_table(&log);
                let (transactions, faults) = (transactions.clone(), faults.clone());
                Arc::new(KafkaLanes::new(&config, producer, table, transactions, faults)?)
            }
        };
        let topics_of_handlers = HandlerTopics::new(&handlers);
        let lanes: Arc<dyn Lanes> = match handlers.is_empty() {
            true => lanes,
            false => {
                let for_ever = config.dead_letter.policy == RefusalPolicy::Block;
                Arc::new(HandlerLanes::new(handlers, for_ever, lanes, Arc::clone(&status)))
            }
        };
        let startup = Arc::new(startup);
        let plan = Plan {
            config,
            startup,
            store,
            lanes,
            handlers: topics_of_handlers,
            kafka,
            positions,
            transactions,
            window,
            status: Arc::clone(&status),
            faults,
            log,
        };
        let handle = spawn(plan, status, ops).await?;
        handle.started().await?;
        Ok(handle)
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
async fn spawn(plan: Plan, status: Arc<Status>, ops: Ops) -> Result<PipelineHandle> {
    let arbiters = vec![Arbiter::new(), Arbiter::new()];
    let (relay, reader) = (&arbiters[0], arbiters[1].handle());
    let (running, is_running) = watch::channel(false);
    let (outcome, ended) = watch::channel(None);
    let (reply, launched) = oneshot::channel();
    relay.spawn_fn(move || {
        // The caller may have stopped waiting; the handle's drop stops the actors.
        let _ = reply.send(Supervisor::launch(plan, reader, running, outcome));
    });
    let what = "the pipeline's thread ended before the pipeline started";
    let supervisor = launched
        .await
        .map_err(|error| Error::new(ErrorKind::ActorFailed, what).caused_by(error))?;
    ops.steer(supervisor.clone().recipient());
    Ok(PipelineHandle { supervisor, arbiters, running: is_running, ended, status, ops })
}

/// A running pipeline.
///
/// Dropping it ends the pipeline at once, without waiting for what is in
/// flight: that is sent again at the next start. Call
/// [`shutdown`](Self::shutdown) to end it in order.
pub struct PipelineHandle {
    supervisor: Addr<Supervisor>,
    arbiters: Vec<Arbiter>,
    running: watch::Receiver<bool>,
    ended: watch::Receiver<Outcome>,
    status: Arc<Status>,
    ops: Ops,
}

impl PipelineHandle {
    /// Stops reading, lets what is in flight finish, saves and confirms the position.
    ///
    /// # Errors
    /// [`ErrorKind::DrainTimeout`] when that takes longer than
    /// `pipeline.drain_timeout`; nothing is lost by it. Or the error that the
    /// pipeline had ended with before.
    pub async fn shutdown(&self) -> Result<()> {
        self.supervisor.do_send(Shutdown);
        self.wait().await
    }

    /// Waits until the pipeline has ended, for whatever reason.
    ///
    /// # Errors
    /// Why it ended, if nobody asked it to.
    pub async fn wait(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(error) => {
                let what = "the supervisor ended without a word";
                Err(Error::new(ErrorKind::ActorFailed, what).caused_by(error))
            }
        }
    }

    /// What it is doing now.
    pub fn status(&self) -> PipelineStatus {
        self.status.snapshot()
    }

    /// The state that it is in, and each change of it, until it has stopped.
    ///
    /// ```no_run
    /// # async fn example(pipeline: &factlib::PipelineHandle) {
    /// let mut states = pipeline.subscribe();
    /// while states.changed().await.is_ok() {
    ///     println!("{:?}", *states.borrow_and_update());
    /// }
    /// # }
    /// ```
    pub fn subscribe(&self) -> watch::Receiver<PipelineState> {
        self.status.subscribe()
    }

    /// Sends nothing more to a topic, or to the handler `handler:{aggregate_type}`, until it
    /// is [resumed](Self::resume_topic). What was sent may still arrive. What waits holds its
    /// bytes of `pipeline.window`: when that is full, nothing is read for other topics either,
    /// and a [`shutdown`](Self::shutdown) waits for it in vain.
    pub fn pause_topic(&self, topic: impl Into<Arc<str>>) {
        self.supervisor.do_send(PauseTopic { topic: topic.into(), paused: true });
    }

    /// Goes on with a topic, in order.
    pub fn resume_topic(&self, topic: impl Into<Arc<str>>) {
        self.supervisor.do_send(PauseTopic { topic: topic.into(), paused: false });
    }

    /// Health, readiness, status, metrics and the status page, to mount in an application's own server.
    pub fn routes(&self) -> Routes {
        self.ops.routes()
    }

    /// Waits until it reads for the first time, or has ended.
    async fn started(&self) -> Result<()> {
        let mut running = self.running.clone();
        tokio::select! {
            biased;
            Ok(_) = running.wait_for(|running| *running) => Ok(()),
            result = self.wait() => result,
        }
    }
}

impl Drop for PipelineHandle {
    fn drop(&mut self) {
        self.supervisor.do_send(Stop);
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

impl fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}
