//! The chain: the reader, and what is between it and the lanes.

use std::{collections::HashSet, sync::Arc, time::Instant};

use actix::{Actor, Addr, Recipient};
use slog::{Logger, o};

use super::{PipelineResources, Supervisor, Threads};
#[cfg(feature = "otlp")]
use crate::actors::router::SpanMaker;
use crate::{
    Result,
    actors::{
        checkpointer::Checkpointer,
        commit_gate::CommitGate,
        decoder::{Decoder, EventDecoder},
        outbox_tables::PublicationWatch,
        router::{
            ChosenTopics, Coordinator, DeadLetters, Deliveries, EventSorter, ExactlyOnce,
            HeldAggregates, Router, TransactionLimits,
        },
        wal_reader::{ReadFrom, WalReader},
    },
    checkpoint::Checkpoint,
    config::{OutboxTable, RefusalPolicy},
    messages::{ActorKind, CheckPublication, EventBatch, ExitGuard, Stop},
    outbox::{NewTables, OutboxReader},
    postgres::{Reconnecting, commit_report::CommitReporter, logged},
    receipts::FILTERED_LANE,
    routing::{CachedRoutes, OwnTopics},
    startup::Start,
    status::ActorState,
};

/// The actors of the present generation.
pub(super) struct Chain {
    /// None from the loss of its connection to the next generation.
    pub reader: Option<Addr<WalReader>>,
    /// The gate of the reader, or of the last one until it is closed; none without a rule.
    pub gate: Option<Addr<CommitGate>>,
    pub decoder: Addr<Decoder>,
    pub router: Addr<Router>,
    /// None without exactly-once.
    coordinator: Option<Addr<Coordinator>>,
    /// The generation that it began with.
    pub first: u64,
    /// Start of the present reader, or of the last one.
    pub launched: Instant,
    pub from: Checkpoint,
}

impl Chain {
    pub fn stop(&self) {
        if let Some(reader) = &self.reader {
            reader.do_send(Stop);
        }
        if let Some(gate) = &self.gate {
            gate.do_send(Stop);
        }
        self.decoder.do_send(Stop);
        self.router.do_send(Stop);
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(Stop);
        }
    }
}

/// The parts of which the actors of a generation are built.
pub(super) struct Launch<'a> {
    pub resources: &'a PipelineResources,
    pub generation: u64,
    pub start: &'a Start,
    pub supervisor: Addr<Supervisor>,
    pub checkpointer: &'a Addr<Checkpointer>,
    pub publication_watch: &'a Addr<PublicationWatch>,
}

impl Launch<'_> {
    /// All but the reader; `paused` topics are held back, and so are the aggregates with the hashes
    /// in `held`.
    ///
    /// # Errors
    /// Routes that can't be used; they were checked before anything was started.
    pub fn chain(&self, paused: &HashSet<Arc<str>>, held: Vec<u64>) -> Result<Chain> {
        let coordinator = self.coordinator();
        let router = self.router(coordinator.clone(), paused.clone(), held)?;
        let decoder = self.decoder(router.clone().recipient());
        for actor in [ActorKind::Decoder, ActorKind::Router] {
            self.resources.status.actor_is(actor.name(), ActorState::Running);
        }
        Ok(Chain {
            reader: None,
            gate: None,
            decoder,
            router,
            coordinator,
            first: self.generation,
            launched: Instant::now(),
            from: self.start.from.clone(),
        })
    }

    /// None without exactly-once.
    fn coordinator(&self) -> Option<Addr<Coordinator>> {
        let transactions = Arc::clone(self.resources.transactions.as_ref()?);
        let coordinator = Coordinator {
            transactions,
            from: self.start.from.clone(),
            done: self.checkpointer.clone().recipient(),
            failed: self.supervisor.clone().recipient(),
            exit: self.exit(ActorKind::Coordinator),
        };
        Some(coordinator.start())
    }

    fn router(
        &self,
        coordinator: Option<Addr<Coordinator>>,
        paused: HashSet<Arc<str>>,
        held: Vec<u64>,
    ) -> Result<Addr<Router>> {
        let (resources, config) = (self.resources, &self.resources.config);
        let log = self.log(ActorKind::Router);
        let exactly_once = coordinator.map(|coordinator| {
            let limits = TransactionLimits::from(&config.delivery);
            ExactlyOnce::new(limits, self.start.from.lsn, paused.clone(), coordinator)
        });
        let deliveries = Deliveries::new(
            config.dead_letter.policy == RefusalPolicy::Block,
            match exactly_once {
                Some(_) => HashSet::new(),
                None => paused,
            },
        );
        let deliveries = match &resources.held {
            Some(events) => {
                let in_transactions = exactly_once.is_some();
                let refused_before = events.refused_before.clone();
                deliveries.holding(HeldAggregates::new(held, refused_before, in_transactions))
            }
            None => deliveries,
        };
        #[cfg(feature = "otlp")]
        let deliveries = match resources.traced {
            true => deliveries.traced(SpanMaker::new(&config.postgres.slot)),
            false => deliveries,
        };
        let router = Router {
            sorter: EventSorter {
                handlers: resources.handlers.clone(),
                topics_of_handlers: match resources.kafka {
                    true => {
                        ChosenTopics::of_kafka(config.kafka.topics.max, OwnTopics::new(&**config))
                    }
                    false => ChosenTopics::none(),
                },
                routing: CachedRoutes::new(&**config).map_err(|mistake| mistake.error(None))?,
                usual_topics: 1,
                dead_letters: DeadLetters {
                    policy: config.dead_letter.policy,
                    topic: config.dead_letter_topic().into(),
                },
                filtered_lane: resources.receipts.is_some().then(|| FILTERED_LANE.into()),
                status: Arc::clone(&resources.status),
                log: log.clone(),
            },
            deliveries,
            exactly_once,
            lanes: self.supervisor.clone().recipient(),
            done: self.checkpointer.clone().recipient(),
            failed: self.supervisor.clone().recipient(),
            status: Arc::clone(&resources.status),
            faults: resources.faults.clone(),
            log,
            exit: self.exit(ActorKind::Router),
        };
        Ok(router.start())
    }

    fn decoder(&self, router: Recipient<EventBatch>) -> Addr<Decoder> {
        let (config, from) = (&self.resources.config, self.start.from.lsn);
        let log = self.log(ActorKind::Decoder);
        let tables = config.outbox_tables();
        let new_tables = tables.iter().any(OutboxTable::is_pattern).then(|| {
            let (info, limit) =
                (self.resources.startup.info.clone(), config.postgres.connect_timeout);
            Arc::new(NewTables::new(Reconnecting::new(info, limit, log.clone())))
        });
        let mut decoder = match tables.is_empty() {
            true => EventDecoder::new(&config.postgres.message_prefix, from),
            false => {
                let watch = self.publication_watch.clone();
                let reader = OutboxReader::new(tables, self.start.tables.clone(), log.clone())
                    .needs_text(self.resources.startup.needs_text())
                    .on_table_change(move || watch.do_send(CheckPublication));
                EventDecoder::of_tables(reader, from)
            }
        };
        decoder = decoder.in_encoding(self.start.encoding.clone());
        if let Some(partial) = self.start.partial {
            decoder.resume(partial);
        }
        let decoder = Decoder {
            decoder,
            new_tables,
            batches: 0,
            router,
            done: self.checkpointer.clone().recipient(),
            failed: self.supervisor.clone().recipient(),
            faults: self.resources.faults.clone(),
            log,
            exit: self.exit(ActorKind::Decoder),
        };
        decoder.start()
    }

    /// The gate between the reader and the decoder; none if there is nothing to wait for.
    pub fn gate(&self, decoder: &Addr<Decoder>) -> Option<Addr<CommitGate>> {
        let (resources, startup) = (self.resources, &self.resources.startup);
        let (rules, log) = (self.start.commit_rules.clone(), self.log(ActorKind::CommitGate));
        if !rules.apply() {
            return None;
        }
        let (info, limit) =
            (logged(&startup.info, &log), resources.config.postgres.connect_timeout);
        let gate = CommitGate::new(
            rules.clone(),
            resources.config.delivery.standby_timeout,
            CommitReporter::new(info, limit, rules),
            startup.own_backend(),
            decoder.clone().recipient(),
            self.checkpointer.clone().recipient(),
            Arc::clone(&resources.status),
            log,
            self.exit(ActorKind::CommitGate),
        );
        Some(gate.start())
    }

    /// The reader, on the thread for reading; `first_batch` is its first one's number. It sends
    /// through `gate`, if there is one.
    pub fn reader(
        &self,
        first_batch: u64,
        gate: Option<Addr<CommitGate>>,
        decoder: Addr<Decoder>,
        threads: &Threads,
    ) -> Addr<WalReader> {
        let (batches, done) = match gate {
            Some(gate) => (gate.clone().recipient(), gate.recipient()),
            None => (decoder.recipient(), self.checkpointer.clone().recipient()),
        };
        let (resources, start, postgres) =
            (self.resources, self.start, &self.resources.config.postgres);
        let reader = WalReader::new(
            ReadFrom {
                info: resources.startup.replication_info.clone(),
                connect_timeout: postgres.connect_timeout,
                slot: postgres.slot.clone(),
                publication: postgres.publication.clone(),
                encoding: start.encoding.clone(),
                binary: start.binary,
                needs_text: resources.startup.needs_text(),
                start: start.from.lsn,
                first_batch,
                system_id: start.from.system_id,
                timeline: start.from.timeline,
                status_interval: start.status_interval,
                batch_bytes: resources.config.batch_bytes(),
                silence_limit: resources.startup.silence_limit(),
                own_backend: resources.startup.own_backend(),
                shares_thread: threads.are_shared,
            },
            resources.window.clone(),
            batches,
            done,
            (self.supervisor.clone().recipient(), self.supervisor.clone().recipient()),
            Arc::clone(&resources.status),
            resources.faults.clone(),
            self.log(ActorKind::WalReader),
            self.exit(ActorKind::WalReader),
        );
        WalReader::start_in_arbiter(&threads.reading, move |_| reader)
    }

    fn log(&self, actor: ActorKind) -> Logger {
        self.resources.log.new(o!("actor" => actor.name(), "generation" => self.generation))
    }

    fn exit(&self, actor: ActorKind) -> ExitGuard {
        ExitGuard { actor, generation: self.generation, to: self.supervisor.clone().recipient() }
    }
}
