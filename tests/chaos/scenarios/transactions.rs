//! Exactly once: no fault explains a duplicate.

use std::time::Duration;

use factlib::testing::{KafkaServer, shared_postgres};
use tokio::time::sleep;

use super::{data::in_one_transaction, postgres::end_walsenders};
use crate::{Ctx, Launch, Outcome, support::Bed};

fn launch(ctx: &Ctx, bed: &Bed<'_>) -> Launch {
    ctx.launch(bed).set("delivery.mode", "exactly-once")
}

/// SIGKILL at random moments under load, also while it starts.
pub async fn transactions_killed(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = launch(ctx, &bed);
    launch.command(&["setup"]).await;
    let (kills, rate) = ctx.pick((5, 500), (50, 2_000));
    let emitters = ctx.load(&bed, rate).await;
    for n in 0..kills {
        let relay = if n % 3 == 0 { launch.spawn() } else { launch.start().await };
        sleep(ctx.random_ms(0..1_500)).await;
        relay.kill().await;
    }
    let history = emitters.stop().await;
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("{kills} kills"))
}

/// Aborts the process at every step of a transaction.
pub async fn transactions_aborted(ctx: &mut Ctx) -> Outcome {
    let sites = [
        "after_produce",
        "before_position",
        "before_commit",
        "after_commit",
        "before_save",
        "after_save",
    ];
    let bed = ctx.shared().await;
    let launch = launch(ctx, &bed).set("pipeline.batch", "4KiB").set("checkpoint.interval", "20ms");
    launch.command(&["setup"]).await;
    let emitters = ctx.load(&bed, 500).await;
    for _ in 0..ctx.pick(1, 8) {
        for site in sites {
            let times = ctx.random(1..=20);
            launch.clone().fault(format!("{site}:abort:{times}")).spawn().aborted().await;
        }
    }
    let history = emitters.stop().await;
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("at {}", sites.join(", ")))
}

/// Each of three brokers is killed once a round: also the one that coordinates.
pub async fn transaction_coordinator_killed(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let relay = launch(ctx, &bed).start().await;
    let emitters = ctx.load(&bed, ctx.pick(300, 1_000)).await;
    for broker in 1..=3 {
        emitters.emitted(emitters.count() + 300).await;
        kafka.kill(broker).await.expect("the broker is killed");
        sleep(ctx.pick(Duration::from_secs(2), Duration::from_secs(12))).await;
        kafka.start_again(broker).await.expect("the broker comes back");
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note("three brokers, one after the other")
}

/// The process stands still, as in a machine that is moved, for longer than Kafka waits for the
/// end of a transaction: the coordinator gives it up and fences whoever began it.
pub async fn frozen_past_the_time_out(ctx: &mut Ctx) -> Outcome {
    // It looks for such transactions every ten seconds by itself.
    let often = "transaction.abort.timed.out.transaction.cleanup.interval.ms";
    let kafka = KafkaServer::builder().property(often, "200");
    let kafka = kafka.start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let launch = launch(ctx, &bed).set("delivery.transaction_timeout", "5s");
    // Transactions that are open nearly always.
    let relay = launch.set("delivery.interval", "1s").start().await;
    let emitters = ctx.load(&bed, ctx.pick(300, 2_000)).await;
    let times = ctx.pick(1, 6);
    let given_up = || relay.count("starting again after a pause");
    let mut frozen = 0;
    // A freeze now and then falls between two transactions, and then Kafka gives up none.
    while frozen < times || (given_up() == 0 && frozen < times + 5) {
        // Long enough for it to have begun again.
        emitters.emitted(emitters.count() + ctx.pick(300, 6_000)).await;
        sleep(ctx.random_ms(0..100)).await;
        relay.freeze(Duration::from_secs(8)).await;
        relay.settled(&bed).await;
        frozen += 1;
    }
    let history = emitters.stop().await;
    let again = given_up();
    assert!(again > 0, "no transaction was given up");
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("frozen {frozen} times, began again {again} times"))
}

/// Two instances, whose connections an administrator ends again and again: each takes the
/// slot, and with it the transactions, from the other.
pub async fn two_instances_fight(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = launch(ctx, &bed).set("pipeline.restart_backoff_max", "200ms");
    let (one, two) = (launch.start().await, launch.spawn());
    let emitters = ctx.load(&bed, 300).await;
    let wanted = ctx.pick(8, 60);
    let ended = end_walsenders(ctx, &bed, wanted, 100..600).await;
    let history = emitters.stop().await;
    let took_over = two.count("Kafka transactions begin");
    one.settled(&bed).await;
    one.stop().await;
    let report = two.finish(&bed, &history).await;
    Outcome::exact(report)
        .note(format!("{ended} connections ended; the second took over {took_over} times"))
}

/// One transaction in PostgreSQL is many in Kafka, and the process is killed in between.
pub async fn huge_transaction_cut(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = launch(ctx, &bed).set("delivery.max_bytes", "256KiB");
    launch.command(&["setup"]).await;
    let count = ctx.pick(40_000, 1_000_000);
    let history = in_one_transaction(ctx, &bed, count).await;
    let aborts = ctx.pick(3, 12);
    for _ in 0..aborts {
        let commits = ctx.random(2..=ctx.pick(8, 100));
        launch.clone().fault(format!("after_commit:abort:{commits}")).spawn().aborted().await;
    }
    let relay = launch.start().await;
    let before = relay.last("position in Kafka", "events_of_next_transaction");
    let before = before.and_then(|events| events.as_u64()).expect("a position in its middle");
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!(
        "{count} facts in one transaction, {aborts} aborts in its middle, the last behind {before}"
    ))
}
