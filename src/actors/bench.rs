//! Actors of the chain by themselves, for `benches/parts.rs` and fuzzing; no promise.

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler};
use bytes::Bytes;
use slog::{Discard as NoLog, Logger, o};
use tokio::sync::mpsc;

pub use crate::checkpoint::ack_window::AckWindow;

use super::{
    decoder::{Decoder, EventDecoder},
    router::{ChosenTopics, DeadLetters, Deliveries, EventSorter, Router},
    topic_producer::Discard,
};
use crate::{
    Event, Lsn, Result,
    config::{Config, OutboxTable, RefusalPolicy, Route},
    faults::Faults,
    handlers::HandlerLaneNames,
    messages::{
        ActorExited, ActorKind, BatchDone, BatchId, ByteWindow, ChainFailed, ExitGuard, LaneOpened,
        OpenLane, WalBatch,
    },
    outbox::{OutboxReader, TableFacts},
    routing::{CachedRoutes, OwnTopics},
    status::Status,
};

/// Decodes the frames of a batch as if they were the first: a decoder skips what it has decoded
/// once.
pub struct Decoding(Box<dyn Fn() -> EventDecoder>);

impl Decoding {
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Decoding(Box::new(move || EventDecoder::new(&prefix, Lsn::ZERO)))
    }

    /// The same for the rows of these tables.
    pub fn of_tables(tables: Vec<OutboxTable>) -> Self {
        let log = Logger::root(NoLog, o!());
        Decoding(Box::new(move || {
            let tables = OutboxReader::new(tables.clone(), TableFacts::default(), log.clone());
            EventDecoder::of_tables(tables, Lsn::ZERO)
        }))
    }

    pub fn decode(&self, frames: &Bytes) -> Result<Vec<Event>> {
        self.0().decode(frames)
    }
}

/// Decoder and Router, and lanes that drop what they get, on the caller's arbiter.
pub struct Chain {
    prefix: String,
    surroundings: Addr<Surroundings>,
    router: Addr<Router>,
    done: mpsc::UnboundedReceiver<BatchDone>,
    window: ByteWindow,
    batches: u64,
}

impl Chain {
    pub fn with_routes(prefix: &str, route: Vec<Route>) -> Self {
        let mut config = Config { route, ..Config::default() };
        config.kafka.topic_prefix = Some(prefix.to_owned());
        let window = ByteWindow::new(u32::MAX >> 3);
        let status = Arc::new(Status::new(window.clone()));
        let (reports, done) = mpsc::unbounded_channel();
        let log = Logger::root(NoLog, o!());
        let mut chain = None;
        let surroundings = Surroundings::create(|ctx| {
            let to = ctx.address();
            let router = Router {
                sorter: EventSorter {
                    handlers: HandlerLaneNames::default(),
                    topics_of_handlers: ChosenTopics::of_kafka(0, OwnTopics::new(&config)),
                    routing: CachedRoutes::new(&config).expect("routes that can be used"),
                    usual_topics: 1,
                    filtered_lane: None,
                    dead_letters: DeadLetters { policy: RefusalPolicy::Stop, topic: prefix.into() },
                    status: Arc::clone(&status),
                    log: log.clone(),
                },
                deliveries: Deliveries::default(),
                exactly_once: None,
                lanes: to.clone().recipient(),
                done: to.clone().recipient(),
                failed: to.clone().recipient(),
                status,
                faults: Faults::default(),
                log,
                exit: exit(ActorKind::Router, &to),
            }
            .start();
            chain = Some(router.clone());
            Surroundings { router, reports }
        });
        let router = chain.expect("create has run it");
        Chain { prefix: prefix.into(), surroundings, router, done, window, batches: 0 }
    }

    /// A new one: what it has decoded once, it passes over.
    fn decoder(&self) -> Addr<Decoder> {
        let to = &self.surroundings;
        let decoder = Decoder {
            new_tables: None,
            decoder: EventDecoder::new(&self.prefix, Lsn::ZERO),
            batches: 0,
            router: self.router.clone().recipient(),
            done: to.clone().recipient(),
            failed: to.clone().recipient(),
            faults: Faults::default(),
            log: Logger::root(NoLog, o!()),
            exit: exit(ActorKind::Decoder, to),
        };
        decoder.start()
    }

    /// Sends the batches in and waits until all are acknowledged; gives their events.
    pub async fn relay(&mut self, batches: &[Bytes]) -> usize {
        let decoder = self.decoder();
        for frames in batches {
            let id = BatchId { generation: 0, seq: self.batches };
            self.batches += 1;
            let permit = self.window.acquire(frames.len()).await;
            let (frames, commit_end_lsn) = (frames.clone(), None);
            decoder.do_send(WalBatch { id, frames, commit_end_lsn, permit });
        }
        let mut events = 0;
        for _ in batches {
            events += self.done.recv().await.map_or(0, |done| done.events);
        }
        events
    }
}

fn exit(actor: ActorKind, to: &Addr<Surroundings>) -> ExitGuard {
    ExitGuard { actor, generation: 0, to: to.clone().recipient() }
}

/// Supervisor and Checkpointer to the chain.
struct Surroundings {
    router: Addr<Router>,
    reports: mpsc::UnboundedSender<BatchDone>,
}

impl Actor for Surroundings {
    type Context = Context<Self>;
}

impl Handler<BatchDone> for Surroundings {
    type Result = ();

    fn handle(&mut self, done: BatchDone, _: &mut Self::Context) {
        // Nobody waits any more once the chain was dropped.
        let _ = self.reports.send(done);
    }
}

impl Handler<OpenLane> for Surroundings {
    type Result = ();

    fn handle(&mut self, open: OpenLane, _: &mut Self::Context) {
        let OpenLane { lane, epoch, .. } = open;
        let recipient = Discard::default().start().recipient();
        self.router.do_send(LaneOpened { lane, epoch, recipient });
    }
}

impl Handler<ChainFailed> for Surroundings {
    type Result = ();

    fn handle(&mut self, failed: ChainFailed, _: &mut Self::Context) {
        panic!("{} failed: {}", failed.actor, failed.error);
    }
}

impl Handler<ActorExited> for Surroundings {
    type Result = ();

    fn handle(&mut self, _: ActorExited, _: &mut Self::Context) {}
}
