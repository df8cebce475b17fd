//! A checkpointer whose store the test answers for, in time that the test moves.

use std::time::Duration;

use actix::Addr;
use async_trait::async_trait;
use slog::{Discard, o};
use tokio::{
    sync::{mpsc, oneshot},
    time::{pause, timeout},
};

use super::{save_schedule::WAL_SEGMENT, *};
use crate::{
    Error, ErrorKind,
    config::CheckpointConfig,
    messages::{
        BatchId, ByteWindow,
        probe::{exit, probe},
    },
};

const HOUR: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_millis(200);
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// The bytes of the byte window.
const WINDOW: u64 = 4 << 20;

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
            SaveSchedule::new(config, WINDOW),
            failed,
            Arc::new(Status::new(ByteWindow::new(1))),
            Faults::default(),
            Logger::root(Discard, o!()),
            exit(ActorKind::Checkpointer, 0),
        );
        Bench { checkpointer: checkpointer.start(), saves, failures }
    }

    fn begin(&self, generation: u64, lsn: u64) -> Confirmed {
        self.begins(generation, lsn, false)
    }

    /// A generation that only has a new reader.
    fn go_on(&self, generation: u64, lsn: u64) -> Confirmed {
        self.begins(generation, lsn, true)
    }

    fn begins(&self, generation: u64, lsn: u64, continues: bool) -> Confirmed {
        let (confirm, confirmed) = probe();
        let from = Checkpoint { slot: "s".into(), system_id: 7, timeline: 1, lsn: Lsn::new(lsn) };
        self.checkpointer.do_send(BeginGeneration { generation, from, continues, confirm });
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
    let ConfirmLsn(lsn) = timeout(HOUR, from.recv()).await.expect("in time").expect("a position");
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
async fn a_window_of_acknowledged_events_is_saved_at_once() {
    let mut bench = Bench::new();
    let _confirm = bench.begin(1, 5);
    bench.done(1, 0, 10, 1);
    let start = Instant::now();
    let first = bench.save().await;
    bench.done(1, 1, 10 + WINDOW, 1);
    // Still one at a time.
    assert!(bench.saves.try_recv().is_err());
    first.succeed();
    let save = bench.save().await;
    assert_eq!((save.lsn, start.elapsed()), (10 + WINDOW, Duration::ZERO));
    save.succeed();
    bench.done(1, 2, 9 + 2 * WINDOW, 1);
    bench.save().await.succeed();
    assert!(is_about(start.elapsed(), INTERVAL), "{:?}", start.elapsed());
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
    let known = bench.checkpointer.send(GetSavedProgress).await.expect("an answer");
    assert_eq!(known, SavedProgress { batches: 2, saved: Lsn::new(5) });
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
    bench.checkpointer.do_send(HoldSaves);
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
