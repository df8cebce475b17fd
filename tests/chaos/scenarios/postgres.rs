//! PostgreSQL stops, ends the connection, gives the slot to another, changes the password.

use std::ops::Range;

use factlib::testing::{PostgresServer, StopMode, shared_kafka};
use tokio::time::sleep;

use crate::{Ctx, Outcome, support::Bed};

/// Facts that a window of 1 MiB can hold, and those of a second at full rate that
/// may be acknowledged and not be saved.
const PER_KILL: u64 = (1 << 20) / 700 + 2_000;

/// The server stops as in a crash, and comes back.
pub async fn server_stopped_hard(ctx: &mut Ctx) -> Outcome {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let relay = ctx.launch(&bed).start().await;
    let emitters = ctx.load(&bed, ctx.pick(500, 2_000)).await;
    let stops = ctx.pick(3, 10);
    for _ in 0..stops {
        sleep(ctx.random_ms(300..1_500)).await;
        postgres.stop(StopMode::Immediate).await;
        sleep(ctx.random_ms(100..2_000)).await;
        postgres.start_again().await.expect("PostgreSQL comes back");
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("{stops} stops"))
}

/// Ends who reads the slot at least so many times, after pauses of so many milliseconds.
pub async fn end_walsenders(
    ctx: &mut Ctx,
    bed: &Bed<'_>,
    wanted: u64,
    pauses_ms: Range<u64>,
) -> u64 {
    let client = bed.client().await;
    let terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                     WHERE slot_name = $1 AND active_pid IS NOT NULL";
    let mut ended = 0;
    while ended < wanted {
        sleep(ctx.random_ms(pauses_ms.clone())).await;
        ended += client.execute(terminate, &[&bed.name]).await.expect("the walsender is ended");
    }
    ended
}

/// An administrator ends the walsender, again and again.
pub async fn walsender_terminated(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let relay = ctx.launch(&bed).start().await;
    let emitters = ctx.load(&bed, ctx.pick(500, 2_000)).await;
    let wanted = ctx.pick(5, 40);
    let ended = end_walsenders(ctx, &bed, wanted, 50..800).await;
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("{ended} times"))
}

/// A second instance says that the slot is in use, waits, and takes over from one that dies.
pub async fn slot_in_use(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed);
    let mut relay = launch.start().await;
    let emitters = ctx.load(&bed, 500).await;
    let (mut most, rounds) = (0, ctx.pick(2, 8));
    for _ in 0..rounds {
        let standby = launch.spawn();
        standby.says("is active for PID").await;
        sleep(ctx.random_ms(100..1_000)).await;
        relay.kill().await;
        most += PER_KILL;
        standby.says("relay running").await;
        relay = standby;
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::duplicates(report, most, "in flight, or not yet saved, when the first was killed")
        .note(format!("{rounds} times"))
}

/// The password changes while it runs: at the next connection it stops and says
/// what to check; with the new one it goes on.
pub async fn password_changed(ctx: &mut Ctx) -> Outcome {
    let postgres = PostgresServer::builder().password("first").start().await;
    let postgres = postgres.expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let url = |password: &str| {
        format!("postgresql://postgres:{password}@127.0.0.1:{}/{}", postgres.port(), bed.database)
    };
    let relay = ctx.launch(&bed).set("postgres.url", url("first")).start().await;
    let emitters = ctx.load(&bed, 300).await;
    emitters.emitted(300).await;
    let change = "ALTER ROLE postgres PASSWORD 'second'";
    postgres.execute("postgres", change).await.expect("the password is changed");
    // What is connected stays so.
    emitters.emitted(emitters.count() + 300).await;
    assert!(relay.is_running());
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    postgres.execute("postgres", terminate).await.expect("the walsender is ended");
    let (code, last) = relay.ended().await;
    assert_eq!(code, Some(3), "{last}");
    assert!(last.contains("check user and password"), "{last}");
    let relay = ctx.launch(&bed).set("postgres.url", url("second")).start().await;
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(last)
}
