//! What factlib's design takes for granted of actix, pinned: where a new version
//! behaves otherwise, a test here says so before anything is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler,
    MailboxError, Message, ResponseActFuture, ResponseFuture, WrapFuture, dev::SendError,
};
use actix_rt::Arbiter;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(5);

/// Counts what it gets; does as it is told.
#[derive(Default)]
struct Counter {
    got: Arc<AtomicUsize>,
    /// Held for its drop.
    _guard: Option<Guard>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// Tells of its drop, and whether that was a panic's.
struct Guard(Option<oneshot::Sender<bool>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(std::thread::panicking());
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Count;

impl Handler<Count> for Counter {
    type Result = ();

    fn handle(&mut self, _: Count, _: &mut Self::Context) {
        self.got.fetch_add(1, SeqCst);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for Counter {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("as asked");
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct End;

impl Handler<End> for Counter {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Freezes the actor until it is notified.
#[derive(Message)]
#[rtype(result = "()")]
struct WaitFor(Arc<Notify>);

impl Handler<WaitFor> for Counter {
    type Result = ();

    fn handle(&mut self, WaitFor(notify): WaitFor, ctx: &mut Self::Context) {
        ctx.wait(async move { notify.notified().await }.into_actor(self));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Atomic(Arc<Notify>);

impl Handler<Atomic> for Counter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Atomic(notify): Atomic, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(async move { notify.notified().await }.into_actor(self)))
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Spawned(Arc<Notify>);

impl Handler<Spawned> for Counter {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Spawned(notify): Spawned, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move { notify.notified().await }.into_actor(self))
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Detached(Arc<Notify>, oneshot::Sender<()>);

impl Handler<Detached> for Counter {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Detached(notify, ended): Detached, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            notify.notified().await;
            let _ = ended.send(());
        })
    }
}

/// Sets the mailbox's capacity, spawns a future that frees what `ctx.wait` waits for.
#[derive(Message)]
#[rtype(result = "()")]
struct SpawnThenWait(mpsc::UnboundedSender<&'static str>);

impl Handler<SpawnThenWait> for Counter {
    type Result = ();

    fn handle(&mut self, SpawnThenWait(tell): SpawnThenWait, ctx: &mut Self::Context) {
        let notify = Arc::new(Notify::new());
        let (freeing, waiting) = (Arc::clone(&notify), notify);
        let freed = tell.clone();
        ctx.spawn(
            async move {
                tokio::task::yield_now().await;
                let _ = freed.send("freed");
                freeing.notify_one();
            }
            .into_actor(self),
        );
        ctx.wait(async move { waiting.notified().await }.into_actor(self).map(move |(), _, _| {
            let _ = tell.send("waited");
        }));
    }
}

/// An actor whose mailbox holds `capacity`, frozen until `notify`.
fn frozen(capacity: usize, notify: &Arc<Notify>) -> (Addr<Counter>, Arc<AtomicUsize>) {
    let got = Arc::new(AtomicUsize::new(0));
    let counter = Counter { got: Arc::clone(&got), _guard: None };
    let notify = Arc::clone(notify);
    let address = Counter::create(move |ctx| {
        ctx.set_mailbox_capacity(capacity);
        ctx.wait(async move { notify.notified().await }.into_actor(&counter));
        counter
    });
    (address, got)
}

async fn answered(address: &Addr<Counter>) {
    timeout(SOON, address.send(Count)).await.expect("in time").expect("an answer");
}

#[actix::test]
async fn do_send_ignores_the_mailbox_capacity() {
    let notify = Arc::new(Notify::new());
    let (address, got) = frozen(1, &notify);
    for _ in 0..100 {
        address.do_send(Count);
    }
    notify.notify_one();
    answered(&address).await;
    assert_eq!(got.load(SeqCst), 101);
}

#[actix::test]
async fn awaited_sends_are_not_bounded_by_the_mailbox_capacity() {
    let notify = Arc::new(Notify::new());
    let (address, got) = frozen(1, &notify);
    let mut sends: Vec<_> = (0..100).map(|_| Box::pin(address.send(Count))).collect();
    // Polled once, each has put its message into a mailbox of capacity 1.
    for send in &mut sends {
        assert!(futures_util::poll!(send).is_pending());
    }
    notify.notify_one();
    answered(&address).await;
    assert_eq!(got.load(SeqCst), 101);
}

#[actix::test]
async fn a_send_whose_future_is_dropped_is_not_handled() {
    let notify = Arc::new(Notify::new());
    let (address, got) = frozen(16, &notify);
    let mut given_up = Box::pin(address.send(Count));
    assert!(futures_util::poll!(&mut given_up).is_pending());
    drop(given_up);
    notify.notify_one();
    answered(&address).await;
    assert_eq!(got.load(SeqCst), 1);
}

#[actix::test]
async fn try_send_on_one_address_respects_the_mailbox_capacity() {
    let notify = Arc::new(Notify::new());
    let (address, _) = frozen(4, &notify);
    let taken = (0..100).take_while(|_| address.try_send(Count).is_ok()).count();
    assert!((1..100).contains(&taken), "{taken}");
    assert!(matches!(address.try_send(Count), Err(SendError::Full(_))));
    // A clone has a slot of its own.
    assert!(address.clone().try_send(Count).is_ok());
    notify.notify_one();
}

#[actix::test]
async fn capacity_zero_means_unbounded() {
    let notify = Arc::new(Notify::new());
    let (address, _) = frozen(0, &notify);
    assert!((0..1000).all(|_| address.try_send(Count).is_ok()));
    notify.notify_one();
}

#[actix::test]
async fn a_panic_closes_the_mailbox_drops_the_value_and_spares_the_arbiter() {
    let arbiter = Arbiter::new();
    let (tell, dropped) = oneshot::channel();
    let first = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter {
        _guard: Some(Guard(Some(tell))),
        ..Counter::default()
    });
    let second = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter::default());
    assert_eq!(first.send(Panic).await, Err(MailboxError::Closed));
    // The guard in the actor is how its end is learnt, and that it panicked.
    assert_eq!(timeout(SOON, dropped).await.expect("in time"), Ok(true));
    assert_eq!(first.send(Count).await, Err(MailboxError::Closed));
    // Nothing is said of a message that goes nowhere.
    first.do_send(Count);
    answered(&second).await;
    arbiter.stop();
}

#[actix::test]
async fn an_ordinary_end_drops_the_value_without_a_panic() {
    let (tell, dropped) = oneshot::channel();
    let counter = Counter { _guard: Some(Guard(Some(tell))), ..Counter::default() };
    counter.start().do_send(End);
    assert_eq!(timeout(SOON, dropped).await.expect("in time"), Ok(false));
}

struct Phoenix {
    starts: Arc<AtomicUsize>,
    dropped: Option<Guard>,
}

impl Actor for Phoenix {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.starts.fetch_add(1, SeqCst);
    }
}

impl actix::Supervised for Phoenix {}

impl Handler<End> for Phoenix {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Panic> for Phoenix {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("as asked");
    }
}

#[derive(Message)]
#[rtype(result = "bool")]
struct HasGuard;

impl Handler<HasGuard> for Phoenix {
    type Result = bool;

    fn handle(&mut self, _: HasGuard, _: &mut Self::Context) -> bool {
        self.dropped.is_some()
    }
}

#[actix::test]
async fn actix_supervisor_restarts_the_same_value_after_a_stop_and_not_after_a_panic() {
    let starts = Arc::new(AtomicUsize::new(0));
    let (tell, mut dropped) = oneshot::channel();
    let phoenix = Phoenix { starts: Arc::clone(&starts), dropped: Some(Guard(Some(tell))) };
    let address = actix::Supervisor::start(|_| phoenix);
    address.send(End).await.expect("an answer");
    assert_eq!(address.send(HasGuard).await, Ok(true));
    assert_eq!(starts.load(SeqCst), 2);
    assert!(dropped.try_recv().is_err(), "the same value goes on");

    assert_eq!(address.send(Panic).await, Err(MailboxError::Closed));
    assert_eq!(address.send(HasGuard).await, Err(MailboxError::Closed));
    assert_eq!(starts.load(SeqCst), 2);
}

#[actix::test]
async fn wait_freezes_mailbox_and_spawned_futures() {
    let address = Counter::default().start();
    let (tell, mut told) = mpsc::unbounded_channel();
    address.do_send(SpawnThenWait(tell));
    address.do_send(Count);
    // What it waits for would be freed by a future that it froze: nothing moves.
    let moved = timeout(Duration::from_millis(200), told.recv()).await;
    assert!(moved.is_err(), "{moved:?}");
    assert!(futures_util::poll!(Box::pin(address.send(Count))).is_pending());
}

#[actix::test]
async fn atomic_response_freezes_and_act_future_does_not() {
    let notify = Arc::new(Notify::new());
    let address = Counter::default().start();

    let spawned = actix_rt::spawn(address.send(Spawned(Arc::clone(&notify))));
    tokio::task::yield_now().await;
    answered(&address).await;
    notify.notify_one();
    timeout(SOON, spawned).await.expect("in time").expect("no panic").expect("an answer");

    let atomic = actix_rt::spawn(address.send(Atomic(Arc::clone(&notify))));
    tokio::task::yield_now().await;
    let stuck = timeout(Duration::from_millis(200), address.send(Count)).await;
    assert!(stuck.is_err());
    notify.notify_one();
    timeout(SOON, atomic).await.expect("in time").expect("no panic").expect("an answer");
    answered(&address).await;
}

#[actix::test]
async fn a_response_future_outlives_its_actor() {
    let notify = Arc::new(Notify::new());
    let (tell, ended) = oneshot::channel();
    let (told, gone) = oneshot::channel();
    let counter = Counter { _guard: Some(Guard(Some(told))), ..Counter::default() };
    let address = counter.start();
    address.do_send(Detached(Arc::clone(&notify), tell));
    address.do_send(End);
    assert_eq!(timeout(SOON, gone).await.expect("in time"), Ok(false));
    notify.notify_one();
    assert_eq!(timeout(SOON, ended).await.expect("in time"), Ok(()));
}

#[actix::test]
async fn an_actor_started_on_a_dead_arbiter_is_silently_closed() {
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().expect("no panic");
    let address = Counter::start_in_arbiter(&handle, |_| Counter::default());
    assert_eq!(address.send(Count).await, Err(MailboxError::Closed));
}

#[actix::test]
async fn an_arbiter_is_a_thread() {
    let (one, two) = (Arbiter::new(), Arbiter::new());
    let thread = |arbiter: &Arbiter| {
        let (tell, told) = oneshot::channel();
        arbiter.spawn_fn(move || {
            let _ = tell.send(std::thread::current().id());
        });
        told
    };
    let (one_id, two_id) = (thread(&one).await, thread(&two).await);
    assert_ne!(one_id.expect("an answer"), two_id.expect("an answer"));
    one.stop();
    two.stop();
}

#[actix::test]
async fn messages_of_one_sender_keep_their_order_across_arbiters() {
    struct Order(Vec<usize>);
    impl Actor for Order {
        type Context = Context<Self>;
    }
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Number(usize);
    impl Handler<Number> for Order {
        type Result = ();
        fn handle(&mut self, Number(n): Number, _: &mut Self::Context) {
            self.0.push(n);
        }
    }
    #[derive(Message)]
    #[rtype(result = "Vec<usize>")]
    struct Take;
    impl Handler<Take> for Order {
        type Result = actix::MessageResult<Take>;
        fn handle(&mut self, _: Take, _: &mut Self::Context) -> Self::Result {
            actix::MessageResult(std::mem::take(&mut self.0))
        }
    }
    let arbiter = Arbiter::new();
    let address = Order::start_in_arbiter(&arbiter.handle(), |_| Order(Vec::new()));
    for n in 0..10_000 {
        address.do_send(Number(n));
    }
    let got = timeout(SOON, address.send(Take)).await.expect("in time").expect("an answer");
    assert_eq!(got, (0..10_000).collect::<Vec<_>>());
    arbiter.stop();
}
