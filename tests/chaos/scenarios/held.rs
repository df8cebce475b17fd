//! Aggregates are held behind events that Kafka refuses, and redriven under load, while the relay dies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::testing::read_topic;
use tokio::time::{sleep, timeout};

use super::crash::repeatable;
use crate::{
    Ctx, Launch, Outcome, cluster,
    context::EMITTERS,
    outbox_rows::{KIND, Rows, TABLE, Writers},
    support::{Bed, bed::LIMIT, relay::exactly_once},
};

/// The setting that the topic refuses rows for, and a value with which it takes all.
const TAKES_ALL: (&str, &str) = ("message.timestamp.after.max.ms", "9223372036854775807");

/// Events of a line that a redrive sends together.
const SENT_TOGETHER: u64 = 500;

const REPEATED: &str =
    "behind the saved position when the relay died, or sent by a redrive that was killed";

/// Aggregates in the table, for the memory that they take.
const MANY: u64 = 100_000;

/// Rows for the table of held events, as the relay writes them, each of an aggregate of its own.
const FILL: &str = "\
INSERT INTO factlib.held_events (
    slot, aggregate_type, aggregate_id, commit_lsn, ordinal, event_id, topic, error, key, headers)
SELECT $1, 'thing', 'held-' || n, '0/1', n, 'e' || n, $2, 'no', '', ''
FROM generate_series(1, $3::bigint) AS n";

/// One row in a hundred is refused for a while; the relay is killed meanwhile, and while the lines are
/// redriven under load, and so is a redrive. Each aggregate is complete and in order.
pub async fn held_and_redriven(ctx: &mut Ctx) -> Outcome {
    redriven_under_load(ctx, exactly_once()).await
}

/// The same with exactly-once, whatever the mode of the other scenarios.
pub async fn held_in_transactions(ctx: &mut Ctx) -> Outcome {
    redriven_under_load(ctx, true).await
}

async fn redriven_under_load(ctx: &mut Ctx, in_transactions: bool) -> Outcome {
    let bed = ctx.shared().await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    let topic = format!("{}.{KIND}", bed.name);
    let launch = holding(ctx, &bed, in_transactions);
    launch.command(&["setup"]).await;
    let (seed, ahead) = (ctx.random(0..u64::MAX), Arc::new(AtomicBool::new(true)));
    let rate = ctx.pick(300, 1_000);
    let writers = Writers::start_with(&bed, seed, EMITTERS, rate, &[], Arc::clone(&ahead)).await;
    let (mut most, rounds) = (0, ctx.pick(2, 6));
    let mut relay = launch.start().await;
    let pause = ctx.time(Duration::from_secs(4)).as_millis() as u64 / (2 * rounds);
    for _ in 0..rounds {
        sleep(ctx.random_ms(pause / 2..pause * 3 / 2)).await;
        relay.kill().await;
        most += repeated(&bed, in_transactions).await;
        relay = launch.start().await;
    }
    let client = cluster::client(&bed);
    cluster::await_topic(&client, &topic, true).await;
    sleep(ctx.random_ms(pause / 2..pause)).await;
    let refused = async {
        while held(&bed).await == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, refused).await.expect("some are refused");
    let lines = held(&bed).await;

    let set = client.set_topic_setting(&topic, TAKES_ALL.0, TAKES_ALL.1).await;
    set.expect("the topic takes all");
    for round in 0..rounds {
        let redrive = launch.program(&["dead-letter", "redrive", "--all"]);
        sleep(ctx.random_ms(200..1_500)).await;
        // A redrive is not part of a transaction: killed, it may repeat an event.
        if round % 2 == 0 || in_transactions {
            relay.kill().await;
            most += repeated(&bed, in_transactions).await;
            relay = launch.start().await;
        } else {
            redrive.kill();
            most += SENT_TOGETHER;
        }
        redrive.ended(LIMIT).await.expect("the redrive ends");
        sleep(ctx.random_ms(0..pause)).await;
    }
    ahead.store(false, Relaxed);
    launch.command(&["dead-letter", "redrive", "--all"]).await;
    sleep(ctx.random_ms(200..800)).await;
    let rows = writers.stop().await;
    relay.settled(&bed).await;
    let emptying = async {
        while held(&bed).await > 0 {
            launch.command(&["dead-letter", "redrive", "--all"]).await;
        }
    };
    timeout(LIMIT, emptying).await.expect("all lines come to their end");
    relay.settled(&bed).await;
    relay.stop().await;
    finish(&bed, &topic, &rows, most).await.note(format!("{lines} lines before the first redrive"))
}

/// 100,000 aggregates are held: the relay knows each of them, and needs little memory for it.
pub async fn hundred_thousand_held(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    let topic = format!("{}.{KIND}", bed.name);
    let launch = holding(ctx, &bed, exactly_once());
    launch.command(&["setup"]).await;
    let seed = ctx.random(0..u64::MAX);
    let relay = launch.start().await;
    let writers = Writers::start(&bed, seed, EMITTERS, 500, &[]).await;
    sleep(Duration::from_secs(2)).await;
    let rows = writers.stop().await;
    relay.settled(&bed).await;
    let before_mb = relay.rss_mb();
    relay.stop().await;
    let client = bed.client().await;
    let many = i64::try_from(MANY).expect("a number");
    client.execute(FILL, &[&bed.name, &topic, &many]).await.expect("the table is filled");
    let relay = launch.start().await;
    for n in [1, 2, MANY / 2, MANY] {
        let insert = "INSERT INTO outbox_events VALUES ($1, 'thing', $2, 'changed', '0', '{}')";
        let (id, aggregate) = (format!("late-{n}"), format!("held-{n}"));
        client.execute(insert, &[&id, &aggregate]).await.expect("a row");
    }
    relay.settled(&bed).await;
    let count = "SELECT count(*) FROM factlib.held_events WHERE slot = $1";
    let held: i64 = client.query_one(count, &[&bed.name]).await.expect("a count").get(0);
    assert_eq!(held, many + 4, "each waits behind its own");
    let rss_mb = relay.rss_mb();
    relay.stop().await;
    let grown = rss_mb.saturating_sub(before_mb);
    assert!(
        grown < 40,
        "{MANY} held aggregates take {grown} MB: {before_mb} MB before, {rss_mb} MB"
    );
    let outcome = finish(&bed, &topic, &rows, 0).await;
    outcome.note(format!("{before_mb} MB without, {rss_mb} MB with {MANY} held aggregates"))
}

fn holding(ctx: &Ctx, bed: &Bed<'_>, in_transactions: bool) -> Launch {
    let mode = if in_transactions { "exactly-once" } else { "at-least-once" };
    ctx.launch(bed)
        .set("postgres.source", "tables")
        .set("dead_letter.policy", "hold-aggregate")
        .set("dead_letter.held_limit", "1000000")
        .set("delivery.mode", mode)
        .set("pipeline.restart_backoff", "50ms")
}

/// What may come again after the relay was killed.
async fn repeated(bed: &Bed<'_>, in_transactions: bool) -> u64 {
    if in_transactions { 0 } else { repeatable(bed, 10).await }
}

/// Number of held events.
async fn held(bed: &Bed<'_>) -> i64 {
    let count = "SELECT count(*) FROM factlib.held_events WHERE slot = $1";
    bed.client().await.query_one(count, &[&bed.name]).await.expect("a count").get(0)
}

async fn finish(bed: &Bed<'_>, topic: &str, rows: &Rows, most: u64) -> Outcome {
    let records = read_topic(&bed.kafka.admin_bootstrap(), topic).await.expect("the topic");
    let report = rows.check(&records);
    bed.drop_slot().await;
    Outcome::duplicates(report, most, REPEATED)
}
