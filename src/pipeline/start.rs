//! Starts a pipeline: checks the configuration, makes the shared parts and launches the supervisor.

use std::{collections::HashSet, sync::Arc};

use actix::Addr;
use actix_rt::{Arbiter, System};
use slog::o;
use tokio::sync::{mpsc, oneshot, watch};

use super::{PipelineBuilder, PipelineHandle, handle::OwnThreads};
#[cfg(feature = "client-kafka")]
use crate::actors::PlainLanes;
use crate::{
    Error, ErrorKind, Result,
    actors::{
        HandlerLanes, HeldEventLanes, KafkaLanes, Lanes, PartitionWatch, PipelineResources,
        ReceiptTarget, ReceiptWriter, Supervisor, TableLanes, Threads, TopicClient,
    },
    checkpoint::CheckpointStore,
    config::{Config, ReceiptStore, RefusalPolicy},
    exactly_once::{Positions, Transactions},
    handlers::HandlerLaneNames,
    kafka::pipelined::{ClientThread, PipelinedClient},
    messages::{ByteWindow, Stop},
    ops::Ops,
    receipts::{ReceiptTask, ReceiptTopic, receipt_queue},
    startup::{SlotClaim, StandbyPositions, Startup},
    status::Status,
    threads::ThreadPool,
};

impl PipelineBuilder {
    /// Starts the pipeline, and waits until it reads for the first time or
    /// [stands by](crate::PipelineState::StandingBy), which means that another instance reads the
    /// slot and this one takes over when it ends. [`PipelineHandle::running`] waits for that.
    ///
    /// It needs the application's actix `System`; a program without one uses
    /// [`start_on_own_thread`](Self::start_on_own_thread). Dropping the future stops everything that
    /// was started.
    ///
    /// # Errors
    /// A permanent problem fails at once; an unreachable server fails after
    /// `pipeline.startup_timeout`. Once started, the pipeline waits for the end of an outage.
    pub async fn start(self) -> Result<PipelineHandle> {
        let handle = self.start_in_background().await?;
        handle.started().await?;
        Ok(handle)
    }

    /// Starts the pipeline and returns at once: its [routes](PipelineHandle::routes) answer while
    /// it connects. [`PipelineHandle::running`] waits until it reads, and [`PipelineHandle::wait`]
    /// returns the error of a failed start.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the configuration or the handlers are wrong, a port is not available,
    /// there is no actix `System`, or another pipeline of this process reads the slot.
    pub async fn start_in_background(self) -> Result<PipelineHandle> {
        if System::try_current().is_none() {
            let failure = "a pipeline starts inside an actix System, and this thread has none";
            let remedy = "call start_on_own_thread() instead of start(), or begin the program with \
                          #[actix_rt::main]";
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
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
            threads,
            position_readers,
            may_take_slot,
            faults,
            #[cfg(feature = "metrics")]
            facade,
            #[cfg(feature = "otlp")]
            traced,
        } = self;
        config.validate()?;
        let handlers = handlers.into_registered()?;
        let config = Arc::new(config);
        let startup = Startup::new(&config)?;
        let claim = match claims_slot {
            true => SlotClaim::new(startup.info.describe_hosts(), &config.postgres.slot)?,
            false => SlotClaim::default(),
        };
        let keeps_partitions = store.is_none();
        let store = match store {
            Some(store) => store,
            None => startup.store(&log),
        };
        let store: Arc<dyn CheckpointStore> = match config.postgres.primary_url {
            Some(_) => Arc::new(StandbyPositions::new(store, &startup, &log)),
            None => store,
        };
        let window = ByteWindow::new(config.window_bytes());
        let status = Arc::new(Status::new(window.clone()));
        // First, so that probes are answered during the wait for the servers.
        let ops = Ops::start(
            &config,
            kafka,
            &status,
            &log,
            #[cfg(feature = "metrics")]
            facade,
        )?;
        let (mut positions, mut transactions, mut partition_watch) = (None, None, None);
        let (mut receipts, mut receipt_tasks) = (None, None);
        let lanes: Arc<dyn Lanes> = match lanes {
            Some(lanes) => lanes,
            None if !kafka => {
                refuse_exactly_once(&config)?;
                refuse_receipts(&config)?;
                Arc::new(TableLanes::new(startup.dead_letter_table(&log)))
            }
            #[cfg(feature = "client-kafka")]
            None if config.kafka.client == crate::config::KafkaClient::Kafka => {
                let table = TableLanes::new(startup.dead_letter_table(&log));
                let (config, status) = (Arc::clone(&config), Arc::clone(&status));
                Arc::new(PlainLanes::new(config, table, status, faults.clone(), log.clone())?)
            }
            None => {
                let status = Arc::clone(&status);
                let kept = Arc::new(Positions::new(&config, &position_readers, log.clone()));
                let client_thread = match &threads {
                    Some(threads) => ClientThread::Shared(threads.next()),
                    None => ClientThread::Own,
                };
                let counts = startup.topic_partitions(&log).filter(|_| keeps_partitions);
                let watch = PartitionWatch::new(&config, counts, status.clone(), log.clone());
                partition_watch = Some(watch.clone());
                let observer = Arc::new(watch.clone());
                let mut shared = None;
                let client = match config.is_exactly_once() {
                    true => {
                        let kept = Arc::clone(&kept);
                        let (faults, log) = (faults.clone(), log.clone());
                        let made =
                            Transactions::new(&config, kept, client_thread, observer, faults, log);
                        let made = Arc::new(made);
                        transactions = Some(Arc::clone(&made));
                        TopicClient::ExactlyOnce(made)
                    }
                    false => {
                        let settings = config.kafka.settings();
                        let log = log.clone();
                        let client =
                            PipelinedClient::start(&settings, client_thread, observer, log)?;
                        let client = shared.insert(Arc::new(client));
                        TopicClient::AtLeastOnce(Arc::clone(client))
                    }
                };
                positions = Some(kept);
                receipts = match config.receipts.store {
                    ReceiptStore::Off => None,
                    ReceiptStore::Topic => {
                        let topic = ReceiptTopic::new(&config, shared);
                        Some(ReceiptTarget::Topic(Arc::new(topic)))
                    }
                    ReceiptStore::Table => {
                        Some(ReceiptTarget::Table(Arc::new(startup.receipt_table(&log))))
                    }
                };
                let sender = receipts.as_ref().map(|_| {
                    let (sender, tasks) = receipt_queue();
                    receipt_tasks = Some(tasks);
                    sender
                });
                let table = startup.dead_letter_table(&log);
                let (status, faults) = (status, faults.clone());
                Arc::new(KafkaLanes::new(&config, client, table, sender, watch, status, faults)?)
            }
        };
        let handler_lanes = HandlerLaneNames::new(&handlers);
        let mut known_topics: HashSet<_> =
            handlers.iter().map(|entry| Arc::clone(&entry.lane)).collect();
        known_topics.insert(config.dead_letter_topic().into());
        known_topics.extend(paused.iter().cloned());
        let lanes: Arc<dyn Lanes> = match handlers.is_empty() {
            true => lanes,
            false => {
                let retries_for_ever = config.dead_letter.policy == RefusalPolicy::Block;
                Arc::new(HandlerLanes::new(handlers, retries_for_ever, lanes, Arc::clone(&status)))
            }
        };
        let held = startup.held_events(&log);
        if held.is_some() && !handler_lanes.is_empty() {
            return Err(hold_with_handlers());
        }
        let lanes: Arc<dyn Lanes> = match &held {
            Some(held) => {
                Arc::new(HeldEventLanes::new(Arc::clone(held), lanes, Arc::clone(&status)))
            }
            None => lanes,
        };
        let startup = Arc::new(startup);
        let resources = PipelineResources {
            config,
            startup,
            store,
            lanes,
            handlers: handler_lanes,
            held,
            kafka,
            positions,
            transactions,
            partition_watch,
            receipts,
            window,
            paused,
            claim,
            is_ready: Arc::new(watch::channel(false).0),
            may_take_slot,
            status: Arc::clone(&status),
            faults,
            #[cfg(feature = "otlp")]
            traced,
            log,
        };
        spawn(resources, receipt_tasks, threads, status, ops, known_topics).await
    }
}

fn refuse_exactly_once(config: &Config) -> Result<()> {
    if !config.is_exactly_once() {
        return Ok(());
    }
    let failure = "delivery.mode = \"exactly-once\" needs Kafka, which this pipeline is without";
    Err(Error::new(ErrorKind::Config, failure)
        .remedy("let the handler skip events whose id it has seen"))
}

fn refuse_receipts(config: &Config) -> Result<()> {
    if config.receipts.store == ReceiptStore::Off {
        return Ok(());
    }
    let failure = "receipts.store needs Kafka, which this pipeline is without";
    Err(Error::new(ErrorKind::Config, failure).remedy("set receipts.store = \"off\""))
}

fn hold_with_handlers() -> Error {
    let failure = "dead_letter.policy = \"hold-aggregate\" holds events of topics, and this pipeline \
                   has handlers";
    Error::new(ErrorKind::Config, failure)
        .remedy("use \"dead-letter\" or \"block\", or read the slot without handlers")
}

/// Starts the supervisor on these threads, or else on its own.
async fn spawn(
    resources: PipelineResources,
    receipt_tasks: Option<mpsc::UnboundedReceiver<ReceiptTask>>,
    threads: Option<Arc<ThreadPool>>,
    status: Arc<Status>,
    ops: Ops,
    known_topics: HashSet<Arc<str>>,
) -> Result<PipelineHandle> {
    let claim = resources.claim.clone();
    let mut arbiters = OwnThreads::default();
    let mut thread = || match &threads {
        Some(threads) => threads.next(),
        None => {
            let arbiter = Arbiter::new();
            let thread = arbiter.handle();
            arbiters.0.push(arbiter);
            thread
        }
    };
    let relay = thread();
    let threads = Threads { reading: thread(), saving: thread(), are_shared: threads.is_some() };
    if let (Some(target), Some(tasks)) = (resources.receipts.clone(), receipt_tasks) {
        let config = &resources.config;
        let writer = ReceiptWriter {
            target,
            tasks,
            slot: config.postgres.slot.clone(),
            retention: config.receipts.retention,
            status: Arc::clone(&status),
            log: resources.log.new(o!("actor" => "receipt_writer")),
        };
        threads.saving.spawn(writer.run());
    }
    let ready = resources.is_ready.subscribe();
    let (running_sender, running) = watch::channel(false);
    let (outcome_sender, ended) = watch::channel(None);
    let (reply, launched) = oneshot::channel();
    relay.spawn_fn(move || {
        let supervisor = Supervisor::launch(resources, threads, running_sender, outcome_sender);
        let _ = reply.send(Launched::new(supervisor));
    });
    let failure = "the pipeline's thread ended before the pipeline started";
    let launched = launched
        .await
        .map_err(|error| Error::new(ErrorKind::ActorFailed, failure).caused_by(error))?;
    let supervisor = launched.taken();
    ops.set_control(supervisor.clone().recipient());
    Ok(PipelineHandle {
        supervisor,
        _arbiters: arbiters,
        running,
        ready,
        ended,
        status,
        known_topics,
        claim,
        system: None,
        ops,
    })
}

/// A supervisor on its way to its handle. Where nobody waits for it any more, its pipeline ends.
struct Launched {
    supervisor: Addr<Supervisor>,
    is_taken: bool,
}

impl Launched {
    fn new(supervisor: Addr<Supervisor>) -> Self {
        Launched { supervisor, is_taken: false }
    }

    /// The supervisor, which its handle stops from now on.
    fn taken(mut self) -> Addr<Supervisor> {
        self.is_taken = true;
        self.supervisor.clone()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.is_taken {
            self.supervisor.do_send(Stop);
        }
    }
}
