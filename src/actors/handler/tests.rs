use std::{
    cell::RefCell,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::Addr;
use prost::Message as _;
use slog::{Discard, Logger, o};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::{
    Event, Lsn,
    handlers::{AnyHandler, EventHandler, HandlerError, HandlerOptions, Outcome},
    messages::{
        AckToken, ActorKind, ByteWindow, HandlerOutput, PartDone,
        probe::{exit, probe},
    },
    proto::OutboxEvent,
    status::Status,
};

struct Bench {
    actor: Addr<HandlerActor>,
    cancelled: CancellationToken,
    answers: UnboundedReceiver<PartDone>,
    to: actix::Recipient<PartDone>,
}

impl Bench {
    fn new<H: EventHandler>(
        options: HandlerOptions,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(move || -> Rc<dyn AnyHandler> { Rc::new(make()) });
        let window = ByteWindow::new(1);
        let caller = Caller {
            make,
            handler: RefCell::default(),
            options,
            for_ever: false,
            lane: "handler:t".into(),
            status: Arc::new(Status::new(window)),
            log: Logger::root(Discard, o!()),
        };
        let cancelled = CancellationToken::new();
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        let exit = exit(ActorKind::Lane { lane: 0, epoch: 0 }, 1);
        let call_lock = lock.try_lock_owned().expect("nobody else has it");
        let actor = HandlerActor::new(caller, cancelled.clone(), exit, call_lock);
        let (to, answers) = probe();
        Bench { actor: actor.start(), cancelled, answers, to }
    }

    /// A part with an event of this aggregate.
    fn send(&self, part: u64, aggregate: &str) {
        let wire = OutboxEvent {
            aggregate_type: "t".into(),
            aggregate_id: aggregate.into(),
            ..Default::default()
        };
        let event = Event::parse(wire.encode_to_vec().into(), Lsn::ZERO).expect("an event");
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        let ack = AckToken::new((0, 0, part), 1, self.to.clone(), permit);
        self.actor.do_send(TopicBatch {
            topic: "handler:t".into(),
            events: vec![event].into(),
            ack,
        });
    }

    async fn answer(&mut self) -> PartDone {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.answers.recv()).await;
        answer.expect("in time").expect("an answer")
    }
}

/// Awaits nothing, and counts.
struct Quick(Arc<AtomicUsize>);

impl EventHandler for Quick {
    async fn handle(&self, _: &Event) -> Result<Outcome, HandlerError> {
        self.0.fetch_add(1, SeqCst);
        Ok(Outcome::Forward)
    }
}

#[actix::test]
async fn others_on_the_thread_have_their_turn_however_much_waits() {
    const PARTS: usize = 1_000;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let mut bench = Bench::new(HandlerOptions::default(), move || Quick(Arc::clone(&count)));
    for part in 0..PARTS as u64 {
        bench.send(part, "a");
    }
    let (mut before, mut turns) = (0, 0);
    while before < PARTS {
        tokio::task::yield_now().await;
        let now = handled.load(SeqCst);
        assert!(now - before <= 2 * AT_ONCE, "{} were handled at a stretch", now - before);
        (before, turns) = (now, turns + 1);
    }
    assert!(turns >= PARTS / AT_ONCE / 2, "{turns}");
    for part in 0..PARTS as u64 {
        let answer = bench.answer().await;
        assert_eq!(answer.part, part);
        assert!(matches!(answer.output[..], [HandlerOutput::Event(0)]), "{answer:?}");
    }
}

#[actix::test]
async fn one_whose_router_is_gone_stops_in_the_middle_of_what_waits() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let bench = Bench::new(HandlerOptions::default(), move || Quick(Arc::clone(&count)));
    for part in 0..1_000 {
        bench.send(part, "a");
    }
    while handled.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    bench.cancelled.cancel();
    while bench.actor.connected() {
        tokio::task::yield_now().await;
    }
    assert!(handled.load(SeqCst) < 1_000);
}

/// Hangs, and panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as futures of users may");
    }
}

struct Hangs;

impl EventHandler for Hangs {
    async fn handle(&self, event: &Event) -> Result<Outcome, HandlerError> {
        if event.aggregate_id() == "a" {
            let _bomb = Bomb;
            pending::<()>().await;
        }
        Ok(Outcome::Skip)
    }
}

#[actix::test]
async fn one_that_panics_when_its_time_is_over_is_given_up_and_the_next_is_handled() {
    let millis = Duration::from_millis;
    let options = HandlerOptions::default().timeout(millis(20)).tries(2);
    let mut bench = Bench::new(options.backoff(millis(1), millis(2)), || Hangs);
    bench.send(0, "a");
    bench.send(1, "a");
    bench.send(2, "b");
    for part in 0..3 {
        let answer = bench.answer().await;
        let refused = answer.result.expect("answered for").len();
        assert_eq!((answer.part, refused), (part, usize::from(part < 2)));
    }
}
