//! Checkpointer: saves the position, then lets it be confirmed.
//!
//! # Life
//! One for the pipeline's life; each chain resets its window, and a reader that follows
//! on another's goes on with it. At most one save is under way at a time, so positions
//! reach the store in rising order.
//!
//! # Backpressure
//! Positions coalesce: while a save runs, or the interval has not passed, only
//! the newest safe position is kept.
//!
//! # Failure
//! A store that can't be reached is tried again for ever; events flow on, and
//! nothing is confirmed. A store that holds what can't be right ends the pipeline.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, Recipient,
    SpawnHandle, WrapFuture,
};
use slog::{Logger, debug, error, info, warn};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Lsn, Result,
    checkpoint::{AckWindow, Checkpoint, CheckpointStore},
    config::CheckpointConfig,
    faults::{FaultSite, Faults},
    messages::{ActorKind, BatchDone, ChainFailed, ConfirmLsn, ExitGuard},
    status::Status,
};

/// First pause after a save that failed; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Of WAL without events of ours, after which a save is due as if there were some:
/// the server frees whole segments, of 16 MB unless it was built otherwise.
const WAL_SEGMENT: u64 = 16 << 20;

/// A new generation: acknowledgements of older ones are ignored from here on, unless
/// it continues the one before.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginGeneration {
    pub generation: u64,
    /// Where it starts: slot, system and the saved position.
    pub from: Checkpoint,
    /// Only the reader is new: what is in flight counts on, and so do the batches' numbers.
    pub continues: bool,
    pub confirm: Recipient<ConfirmLsn>,
}

/// The reader lost its connection: until the next one begins, nothing is saved unless
/// a flush asks for it. Behind the address there may be another server by then, whose
/// positions mean something else.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hold;

/// What do you know of the present chain?
#[derive(Message)]
#[rtype(result = "Known")]
pub(crate) struct Ask;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Batches, done or not.
    pub batches: u64,
    /// The newest position that is in the store.
    pub saved: Lsn,
}

/// Save what is safe at once; with `batches`, after so many batches of this
/// generation are done. The answer is the position that is saved.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush {
    pub batches: Option<u64>,
    pub reply: oneshot::Sender<Lsn>,
}

pub(crate) struct Checkpointer {
    store: Arc<dyn CheckpointStore>,
    config: CheckpointConfig,
    generation: Option<Generation>,
    saving: bool,
    /// When the last save began, and how many failed in a row since one succeeded.
    last_save: Option<Instant>,
    failures: u32,
    /// Events, not only positions, are waiting to be saved.
    events_waiting: bool,
    timer: Option<(Instant, SpawnHandle)>,
    flush: Option<Flush>,
    failed: Recipient<ChainFailed>,
    status: Arc<Status>,
    faults: Faults,
    log: Logger,
    _exit: ExitGuard,
}

struct Generation {
    number: u64,
    /// The generation that its chain began with.
    first: u64,
    window: AckWindow,
    /// The newest position that is in the store.
    saved: Checkpoint,
    /// None while there is no reader.
    confirm: Option<Recipient<ConfirmLsn>>,
}

impl Checkpointer {
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        config: CheckpointConfig,
        failed: Recipient<ChainFailed>,
        status: Arc<Status>,
        faults: Faults,
        log: Logger,
        exit: ExitGuard,
    ) -> Self {
        Checkpointer {
            store,
            config,
            generation: None,
            saving: false,
            last_save: None,
            failures: 0,
            events_waiting: false,
            timer: None,
            flush: None,
            failed,
            status,
            faults,
            log,
            _exit: exit,
        }
    }

    /// Saves now, or sets the timer for when it may, or has nothing to do.
    fn schedule(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = &self.generation else { return self.answer_flush() };
        if self.saving || generation.confirm.is_none() && self.flush.is_none() {
            return;
        }
        if generation.window.safe() <= generation.saved.lsn {
            return self.answer_flush();
        }
        let now = Instant::now();
        let due = self.last_save.map_or(now, |last| last + self.pause());
        if due <= now {
            self.save(ctx);
        } else if self.timer.as_ref().is_none_or(|(at, _)| due < *at) {
            if let Some((_, old)) = self.timer.take() {
                ctx.cancel_future(old);
            }
            let handle = ctx.run_later(due - now, |this, ctx| {
                this.timer = None;
                this.schedule(ctx);
            });
            self.timer = Some((due, handle));
        }
    }

    fn pause(&self) -> Duration {
        if self.failures > 0 {
            return RETRY_FIRST.saturating_mul(1 << (self.failures - 1).min(10)).min(RETRY_MAX);
        }
        let unsaved = self
            .generation
            .as_ref()
            .map_or(0, |generation| generation.window.safe().distance_from(generation.saved.lsn));
        match (&self.flush, self.events_waiting || unsaved >= WAL_SEGMENT) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => self.config.interval,
            // A save in the database moves the WAL's end itself; unhurried, that is no traffic.
            (None, false) => self.config.idle_interval,
        }
    }

    fn save(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = &self.generation else { return };
        let number = generation.number;
        let checkpoint = Checkpoint { lsn: generation.window.safe(), ..generation.saved.clone() };
        self.faults.reach(FaultSite::BeforeSave);
        self.saving = true;
        self.events_waiting = false;
        self.last_save = Some(Instant::now());
        let store = Arc::clone(&self.store);
        let saving = async move {
            let result = store.save(&checkpoint).await;
            (checkpoint, result)
        };
        ctx.spawn(saving.into_actor(self).map(move |(checkpoint, result), this, ctx| {
            this.saving = false;
            this.saved(number, checkpoint, result);
            this.schedule(ctx);
        }));
    }

    fn saved(&mut self, number: u64, checkpoint: Checkpoint, result: Result<()>) {
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    info!(self.log, "checkpoint store is back"; "failures" => self.failures);
                }
                self.failures = 0;
                self.status.actor_waits(ActorKind::Checkpointer.name(), None);
                self.faults.reach(FaultSite::AfterSave);
                let lsn = checkpoint.lsn;
                self.status.saved(lsn);
                // Of a cluster that was left meanwhile, it says nothing.
                if let Some(generation) = &mut self.generation
                    && generation.saved.is_of_the_same_history(&checkpoint)
                    && lsn > generation.saved.lsn
                {
                    generation.saved = checkpoint;
                    if let Some(confirm) = &generation.confirm {
                        confirm.do_send(ConfirmLsn(lsn));
                    }
                }
            }
            Err(error) if error.is_transient() => {
                self.failures += 1;
                self.status.not_saved(ActorKind::Checkpointer.name(), &error);
                warn!(self.log, "cannot save the position, trying again";
                    "store" => self.store.describe(), "lsn" => %checkpoint.lsn,
                    "failures" => self.failures, "error" => %error);
            }
            Err(error) => {
                self.failures += 1;
                let actor = ActorKind::Checkpointer;
                self.failed.do_send(ChainFailed { actor, generation: number, error });
            }
        }
    }

    /// Answers a flush whose batches are done and whose position is saved.
    fn answer_flush(&mut self) {
        let Some(flush) = self.flush.take_if(|flush| match (&self.generation, flush.batches) {
            (Some(generation), Some(batches)) => generation.window.next_seq() >= batches,
            (None, _) | (_, None) => true,
        }) else {
            return;
        };
        let lsn = self.generation.as_ref().map_or(Lsn::ZERO, |generation| generation.saved.lsn);
        // Whoever asked may have stopped waiting.
        let _ = flush.reply.send(lsn);
    }
}

impl Actor for Checkpointer {
    type Context = Context<Self>;
}

impl Handler<BeginGeneration> for Checkpointer {
    type Result = ();

    fn handle(&mut self, begin: BeginGeneration, ctx: &mut Self::Context) {
        let BeginGeneration { generation: number, from, continues, confirm } = begin;
        debug!(self.log, "generation begins"; "generation" => number, "lsn" => %from.lsn,
            "continues" => continues);
        self.status.starts_at(from.lsn);
        match self.generation.as_mut().filter(|_| continues) {
            Some(generation) => {
                generation.number = number;
                // What was saved while nobody was there to confirm it.
                if generation.saved.lsn > from.lsn {
                    confirm.do_send(ConfirmLsn(generation.saved.lsn));
                } else {
                    generation.saved = from;
                }
                generation.confirm = Some(confirm);
            }
            None => {
                self.events_waiting = false;
                let (first, confirm) = (number, Some(confirm));
                let window = AckWindow::new(from.lsn);
                self.generation = Some(Generation { number, first, window, saved: from, confirm });
            }
        }
        self.schedule(ctx);
    }
}

impl Handler<Hold> for Checkpointer {
    type Result = ();

    fn handle(&mut self, _: Hold, _: &mut Self::Context) {
        if let Some(generation) = &mut self.generation {
            generation.confirm = None;
        }
    }
}

impl Handler<Ask> for Checkpointer {
    type Result = MessageResult<Ask>;

    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.generation.as_ref().map_or(Known::default(), |generation| Known {
            batches: generation.window.known(),
            saved: generation.saved.lsn,
        }))
    }
}

impl Handler<BatchDone> for Checkpointer {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Checkpointer);
        let current = self.generation.as_mut().filter(|g| done.id.generation >= g.first);
        let Some(generation) = current else { return };
        self.events_waiting |= done.events > 0;
        if let Err(error) = generation.window.done(done.id.seq, done.commit_end_lsn) {
            error!(self.log, "a batch was acknowledged twice"; "batch" => ?done.id, "error" => %error);
        }
        self.status.safe(generation.window.safe());
        self.schedule(ctx);
    }
}

impl Handler<Flush> for Checkpointer {
    type Result = ();

    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) {
        self.flush = Some(flush);
        self.schedule(ctx);
    }
}

#[cfg(test)]
mod tests {
    use actix::Addr;
    use async_trait::async_trait;
    use slog::{Discard, o};
    use tokio::{
        sync::mpsc,
        time::{pause, timeout},
    };

    use super::*;
    use crate::{
        Error, ErrorKind,
        messages::{
            BatchId, ByteWindow,
            probe::{exit, probe},
        },
    };

    const HOUR: Duration = Duration::from_secs(3600);
    const INTERVAL: Duration = Duration::from_millis(200);
    const IDLE_INTERVAL: Duration = Duration::from_secs(10);

    /// A store whose saves the test answers.
    struct Asking(mpsc::UnboundedSender<Save>);

    struct Save {
        lsn: u64,
        answer: oneshot::Sender<Result<()>>,
    }

    impl Save {
        fn succeed(self) {
            self.answer.send(Ok(())).expect("the save is waited for");
        }

        fn fail(self, kind: ErrorKind) {
            self.answer.send(Err(Error::new(kind, "no"))).expect("the save is waited for");
        }
    }

    #[async_trait]
    impl CheckpointStore for Asking {
        async fn load(&self, _: &str) -> Result<Option<Checkpoint>> {
            Ok(None)
        }

        async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
            let (answer, answered) = oneshot::channel();
            let save = Save { lsn: checkpoint.lsn.as_u64(), answer };
            self.0.send(save).expect("the test lives");
            answered.await.expect("the test answers")
        }

        async fn remove(&self, _: &str) -> Result<()> {
            Ok(())
        }

        fn describe(&self) -> String {
            "asking".into()
        }
    }

    struct Bench {
        checkpointer: Addr<Checkpointer>,
        saves: mpsc::UnboundedReceiver<Save>,
        failures: mpsc::UnboundedReceiver<ChainFailed>,
    }

    type Confirmed = mpsc::UnboundedReceiver<ConfirmLsn>;

    impl Bench {
        /// A checkpointer in time that the test moves.
        fn new() -> Self {
            pause();
            let (sender, saves) = mpsc::unbounded_channel();
            let (failed, failures) = probe();
            let config = CheckpointConfig {
                interval: INTERVAL,
                idle_interval: IDLE_INTERVAL,
                ..CheckpointConfig::default()
            };
            let checkpointer = Checkpointer::new(
                Arc::new(Asking(sender)),
                config,
                failed,
                Arc::new(Status::new(ByteWindow::new(1))),
                Faults::default(),
                Logger::root(Discard, o!()),
                exit(ActorKind::Checkpointer, 0),
            );
            Bench { checkpointer: checkpointer.start(), saves, failures }
        }

        fn begin(&self, generation: u64, lsn: u64) -> Confirmed {
            let (confirm, confirmed) = probe();
            let lsn = Lsn::new(lsn);
            let from = Checkpoint { slot: "s".into(), system_id: 7, timeline: 1, lsn };
            self.checkpointer.do_send(BeginGeneration {
                generation,
                from,
                continues: false,
                confirm,
            });
            confirmed
        }

        /// A generation that only has a new reader.
        fn go_on(&self, generation: u64, lsn: u64) -> Confirmed {
            let (confirm, confirmed) = probe();
            let lsn = Lsn::new(lsn);
            let from = Checkpoint { slot: "s".into(), system_id: 7, timeline: 1, lsn };
            self.checkpointer.do_send(BeginGeneration {
                generation,
                from,
                continues: true,
                confirm,
            });
            confirmed
        }

        fn done(&self, generation: u64, seq: u64, lsn: u64, events: usize) {
            let id = BatchId { generation, seq };
            let commit_end_lsn = Some(Lsn::new(lsn)).filter(|lsn| *lsn > Lsn::ZERO);
            self.checkpointer.do_send(BatchDone { id, commit_end_lsn, events });
        }

        fn flush(&self, batches: Option<u64>) -> oneshot::Receiver<Lsn> {
            let (reply, saved) = oneshot::channel();
            self.checkpointer.do_send(Flush { batches, reply });
            saved
        }

        async fn save(&mut self) -> Save {
            timeout(HOUR, self.saves.recv()).await.expect("a save").expect("the store lives")
        }
    }

    /// Nothing comes, however long one waits.
    async fn nothing<M>(from: &mut mpsc::UnboundedReceiver<M>) -> bool {
        timeout(HOUR, from.recv()).await.is_err()
    }

    /// Timers count whole milliseconds and fire at the end of one.
    fn is_about(took: Duration, due: Duration) -> bool {
        (due..=due + Duration::from_millis(2)).contains(&took)
    }

    async fn confirmed(from: &mut Confirmed) -> u64 {
        let ConfirmLsn(lsn) =
            timeout(HOUR, from.recv()).await.expect("in time").expect("a position");
        lsn.as_u64()
    }

    #[actix::test]
    async fn a_position_is_saved_before_it_is_confirmed() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        assert_eq!(save.lsn, 10);
        assert!(nothing(&mut confirm).await);
        save.succeed();
        assert_eq!(confirmed(&mut confirm).await, 10);
    }

    #[actix::test]
    async fn a_batch_before_that_is_not_done_holds_the_position() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(1, 5);
        bench.done(1, 1, 20, 1);
        assert!(nothing(&mut bench.saves).await);
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        assert_eq!(save.lsn, 20);
        save.succeed();
        assert_eq!(confirmed(&mut confirm).await, 20);
    }

    #[actix::test]
    async fn one_save_at_a_time_and_positions_coalesce() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let first = bench.save().await;
        bench.done(1, 1, 20, 1);
        bench.done(1, 2, 30, 1);
        assert!(nothing(&mut bench.saves).await, "a second save while one is under way");
        first.succeed();
        assert_eq!(confirmed(&mut confirm).await, 10);
        let second = bench.save().await;
        assert_eq!(second.lsn, 30);
        second.succeed();
        assert_eq!(confirmed(&mut confirm).await, 30);
    }

    #[actix::test]
    async fn events_are_saved_once_an_interval_and_bare_positions_once_an_idle_one() {
        let mut bench = Bench::new();
        let _confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let start = Instant::now();
        bench.save().await.succeed();
        bench.done(1, 1, 20, 1);
        bench.save().await.succeed();
        assert!(is_about(start.elapsed(), INTERVAL), "{:?}", start.elapsed());

        let start = Instant::now();
        bench.done(1, 2, 30, 0);
        bench.save().await.succeed();
        assert!(is_about(start.elapsed(), IDLE_INTERVAL), "{:?}", start.elapsed());

        // An event does not wait for the timer of a bare position.
        let start = Instant::now();
        bench.done(1, 3, 40, 0);
        bench.done(1, 4, 50, 1);
        let save = bench.save().await;
        assert!(is_about(start.elapsed(), INTERVAL), "{:?}", start.elapsed());
        assert_eq!(save.lsn, 50);
    }

    #[actix::test]
    async fn a_segment_of_foreign_wal_is_not_held_for_an_idle_interval() {
        let mut bench = Bench::new();
        let _confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        bench.save().await.succeed();
        let start = Instant::now();
        bench.done(1, 1, 10 + WAL_SEGMENT, 0);
        bench.save().await.succeed();
        assert!(is_about(start.elapsed(), INTERVAL), "{:?}", start.elapsed());
    }

    #[actix::test]
    async fn a_store_that_is_away_is_tried_again_and_nothing_is_confirmed_meanwhile() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let mut save = bench.save().await;
        for (seq, pause_ms) in (1..).zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            save.fail(ErrorKind::CheckpointUnavailable);
            bench.done(1, seq, 10 + seq, 1);
            let failed = Instant::now();
            save = bench.save().await;
            assert!(is_about(failed.elapsed(), Duration::from_millis(pause_ms)), "try {seq}");
        }
        assert!(confirm.try_recv().is_err());
        assert_eq!(save.lsn, 18, "the newest position, not the one that failed");
        save.succeed();
        assert_eq!(confirmed(&mut confirm).await, 18);
        assert!(bench.failures.try_recv().is_err());
    }

    #[actix::test]
    async fn a_store_that_refuses_for_good_is_reported_with_its_reason() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(3, 5);
        bench.done(3, 0, 10, 1);
        bench.save().await.fail(ErrorKind::CheckpointInvalid);
        let failed = bench.failures.recv().await.expect("a failure");
        assert_eq!((failed.actor, failed.generation), (ActorKind::Checkpointer, 3));
        assert_eq!(failed.error.kind(), ErrorKind::CheckpointInvalid);
        assert!(confirm.try_recv().is_err());
    }

    #[actix::test]
    async fn acknowledgements_of_an_older_generation_say_nothing() {
        let mut bench = Bench::new();
        let mut old = bench.begin(1, 5);
        let mut new = bench.begin(2, 5);
        bench.done(1, 0, 10, 1);
        assert!(nothing(&mut bench.saves).await);
        bench.done(2, 0, 20, 1);
        bench.save().await.succeed();
        assert_eq!(confirmed(&mut new).await, 20);
        // Its recipient was dropped with its generation.
        assert!(old.recv().await.is_none());
    }

    #[actix::test]
    async fn what_is_in_flight_when_a_reader_follows_another_holds_the_position() {
        let mut bench = Bench::new();
        let _old = bench.begin(1, 5);
        bench.done(1, 1, 20, 1);
        let known = bench.checkpointer.send(Ask).await.expect("an answer");
        assert_eq!(known, Known { batches: 2, saved: Lsn::new(5) });
        let mut new = bench.go_on(2, 5);
        // Read again, and handed on before.
        bench.done(2, 2, 20, 0);
        assert!(nothing(&mut bench.saves).await, "batch 0 is not done");
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        assert_eq!(save.lsn, 20);
        save.succeed();
        assert_eq!(confirmed(&mut new).await, 20);
    }

    #[actix::test]
    async fn without_a_reader_only_a_flush_saves() {
        let mut bench = Bench::new();
        let _old = bench.begin(1, 5);
        bench.checkpointer.do_send(Hold);
        bench.done(1, 0, 10, 1);
        assert!(nothing(&mut bench.saves).await);
        let saved = bench.flush(Some(1));
        bench.save().await.succeed();
        assert_eq!(saved.await, Ok(Lsn::new(10)));
        bench.done(1, 1, 20, 1);
        assert!(nothing(&mut bench.saves).await);
        let mut new = bench.go_on(2, 5);
        assert_eq!(confirmed(&mut new).await, 10);
        bench.save().await.succeed();
        assert_eq!(confirmed(&mut new).await, 20);
    }

    #[actix::test]
    async fn what_was_saved_without_a_reader_is_confirmed_by_the_next() {
        let mut bench = Bench::new();
        let _old = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        save.succeed();
        let mut new = bench.go_on(2, 5);
        assert_eq!(confirmed(&mut new).await, 10);
        assert_eq!(bench.flush(None).await, Ok(Lsn::new(10)));
    }

    #[actix::test]
    async fn a_save_that_outlives_its_generation_counts_for_the_next() {
        let mut bench = Bench::new();
        let _old = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        let mut new = bench.begin(2, 5);
        bench.done(2, 0, 8, 1);
        assert!(nothing(&mut bench.saves).await, "a second save while one is under way");
        save.succeed();
        assert_eq!(confirmed(&mut new).await, 10);
        assert!(nothing(&mut bench.saves).await, "the saved position moved back");
    }

    #[actix::test]
    async fn what_is_confirmed_never_moves_back() {
        let mut bench = Bench::new();
        let _old = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        let save = bench.save().await;
        let mut new = bench.begin(2, 20);
        save.succeed();
        assert!(nothing(&mut new).await);
        assert_eq!(bench.flush(None).await, Ok(Lsn::new(20)));
    }

    #[actix::test]
    async fn a_flush_waits_for_its_batches_and_for_their_save() {
        let mut bench = Bench::new();
        let _confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        bench.save().await.succeed();
        let mut saved = bench.flush(Some(2));
        assert!(timeout(HOUR, &mut saved).await.is_err(), "batch 1 is not done");
        bench.done(1, 1, 20, 0);
        let began = Instant::now();
        let save = bench.save().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "a flush waits for no interval");
        assert!(timeout(HOUR, &mut saved).await.is_err(), "batch 1 is not saved");
        save.succeed();
        assert_eq!(saved.await, Ok(Lsn::new(20)));
    }

    #[actix::test]
    async fn a_flush_of_what_is_saved_answers_at_once() {
        let bench = Bench::new();
        assert_eq!(bench.flush(None).await, Ok(Lsn::ZERO));
        let _confirm = bench.begin(1, 5);
        assert_eq!(bench.flush(None).await, Ok(Lsn::new(5)));
        assert_eq!(bench.flush(Some(0)).await, Ok(Lsn::new(5)));
        // A batch without a commit is done and moves nothing.
        bench.done(1, 0, 0, 1);
        assert_eq!(bench.flush(Some(1)).await, Ok(Lsn::new(5)));
    }

    #[actix::test]
    async fn a_batch_that_is_done_twice_changes_nothing() {
        let mut bench = Bench::new();
        let mut confirm = bench.begin(1, 5);
        bench.done(1, 0, 10, 1);
        bench.save().await.succeed();
        assert_eq!(confirmed(&mut confirm).await, 10);
        bench.done(1, 0, 99, 1);
        assert!(nothing(&mut bench.saves).await);
    }
}
