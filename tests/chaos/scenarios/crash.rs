//! The relay itself dies, stops or panics.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    Ctx, Outcome,
    context::EMITTERS,
    support::{Bed, Workload},
};

pub const KILLED: &str = "acknowledged or in flight beyond the saved position when it died";

/// What may come again after a crash at this moment: all that stands behind the
/// saved position, and the rest of transactions that straddle it.
pub async fn repeatable(bed: &Bed<'_>, largest_transaction: usize) -> u64 {
    // What the dead process sent last may still be on its way through the broker.
    sleep(Duration::from_millis(300)).await;
    let saved = match bed.saved().await {
        Some(saved) => saved,
        None => bed.slot().await.0,
    };
    bed.records_behind(saved).await + (EMITTERS * largest_transaction) as u64
}

/// SIGKILL at random moments under load, also while it starts.
pub async fn killed_at_random_moments(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed);
    let (kills, rate) = ctx.pick((4, 500), (20, 2_000));
    let pause_ms = (ctx.time(Duration::from_secs(4)).as_millis() as u64 / kills).max(1);
    // The slot is there before the first fact is.
    launch.command(&["setup"]).await;
    let emitters = ctx.load(&bed, rate).await;
    let mut most = 0;
    for n in 0..kills {
        // Every other time from its first moment on.
        let relay = if n % 2 == 0 { launch.start().await } else { launch.spawn() };
        sleep(ctx.random_ms(0..2 * pause_ms)).await;
        relay.kill().await;
        most += repeatable(&bed, 10).await;
    }
    let history = emitters.stop().await;
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::duplicates(report, most, KILLED).note(format!("{kills} kills"))
}

/// SIGTERM while there is far more to do than it can finish: it ends in time,
/// and nothing is sent again.
pub async fn stopped_in_mid_backlog(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed).set("pipeline.drain_timeout", "20s");
    launch.command(&["setup"]).await;
    let facts = ctx.pick(20_000, 200_000);
    let workload = Workload { transaction: 1..=200, ..ctx.workload(&bed) };
    let workload = Workload { facts, aggregates: 500, ..workload };
    let history = workload.emit(&mut bed.client().await).await;
    let end = bed.wal_end().await;
    let (mut stops, mut slowest) = (0, Duration::ZERO);
    for _ in 0..ctx.pick(3, 10) {
        let relay = launch.start().await;
        sleep(ctx.random_ms(1..100)).await;
        let begin = Instant::now();
        relay.stop().await;
        slowest = slowest.max(begin.elapsed());
        stops += u32::from(bed.slot().await.0 < end);
    }
    assert!(stops > 0, "no stop came in mid-backlog");
    // The limit, and as much again for a busy machine.
    assert!(slowest < Duration::from_secs(40), "stopping took {slowest:?}");
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::exact(report)
        .note(format!("{stops} stops in mid-backlog, the slowest took {} ms", slowest.as_millis()))
}

/// Aborts the process at a failpoint, some passages after the start, several times.
async fn aborted(ctx: &mut Ctx, site: &str, largest_transaction: usize) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed).set("pipeline.batch", "4KiB").set("checkpoint.interval", "50ms");
    launch.command(&["setup"]).await;
    let small = Workload { transaction: 1..=10, ..ctx.workload(&bed) };
    let workload = match largest_transaction {
        10 => small,
        facts => Workload { transaction: facts / 2..=facts, ..small },
    };
    let emitters = crate::support::emitters::Emitters::start(&bed, &workload, EMITTERS, 500).await;
    let (mut most, aborts) = (0, ctx.pick(2, 10));
    for _ in 0..aborts {
        let times = ctx.random(1..=ctx.pick(10, 40));
        // It may die before it has said that it runs.
        launch.clone().fault(format!("{site}:abort:{times}")).spawn().aborted().await;
        most += repeatable(&bed, largest_transaction).await;
    }
    let history = emitters.stop().await;
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::duplicates(report, most, KILLED).note(format!("{aborts} aborts"))
}

/// Kafka has acknowledged, the relay does not know yet.
pub async fn aborted_after_produce(ctx: &mut Ctx) -> Outcome {
    aborted(ctx, "after_produce", 10).await
}

/// All is acknowledged, the position is not saved.
pub async fn aborted_before_save(ctx: &mut Ctx) -> Outcome {
    aborted(ctx, "before_save", 10).await
}

/// The position is saved, PostgreSQL does not know yet.
pub async fn aborted_after_save(ctx: &mut Ctx) -> Outcome {
    aborted(ctx, "after_save", 10).await
}

/// A part of a transaction is delivered: none of it may count as done.
pub async fn aborted_in_mid_transaction(ctx: &mut Ctx) -> Outcome {
    aborted(ctx, "router", 400).await
}

/// It was asked to stop, and dies before it has.
pub async fn aborted_while_draining(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed);
    launch.command(&["setup"]).await;
    let emitters = ctx.load(&bed, 1_000).await;
    let (mut most, aborts) = (0, ctx.pick(2, 10));
    for _ in 0..aborts {
        let relay = launch.clone().fault("draining:abort:1").start().await;
        sleep(ctx.random_ms(200..1_000)).await;
        relay.terminate();
        relay.aborted().await;
        most += repeatable(&bed, 10).await;
    }
    let history = emitters.stop().await;
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::duplicates(report, most, KILLED).note(format!("{aborts} aborts"))
}

/// Every actor panics, one after the other: each is started again.
pub async fn actors_that_panic(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let actors = ["wal_reader", "decoder", "router", "topic_producer", "checkpointer"];
    let faults = (1..).zip(actors).map(|(n, site)| format!("{site}:panic:{}", 20 * n));
    let launch = ctx.launch(&bed).fault(faults.collect::<Vec<_>>().join(","));
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, 500).await;
    sleep(ctx.time(Duration::from_secs(4))).await;
    let history = emitters.stop().await;
    relay.settled(&bed).await;
    let panics = relay.panics();
    assert_eq!(panics, actors.len(), "each actor panicked");
    let report = relay.finish(&bed, &history).await;
    // A window and what is acknowledged before the next save, each time.
    Outcome::duplicates(report, 5 * WINDOW_FACTS, "in flight when an actor panicked, five times")
}

/// Facts that a window of 1 MiB can hold: each is charged some 700 bytes.
const WINDOW_FACTS: u64 = (1 << 20) / 700;
