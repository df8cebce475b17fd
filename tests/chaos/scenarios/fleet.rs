//! Several instances share the pipelines of many databases, under load on all of them.

use std::time::Duration;

use factlib::testing::shared_kafka;
use tokio::time::sleep;

use crate::{
    Ctx, Outcome,
    fleet::{Fleet, Server},
    support::History,
};

/// Within which all pipelines of an instance that is gone go on, after its session has timed out.
const TAKEOVER: Duration = Duration::from_secs(15);
/// The longest that an orderly move may hold up a fact. Two seconds are the aim, and reached on a machine
/// that does nothing else.
const MOVE: Duration = Duration::from_secs(6);
/// Within which a new tenant is read.
const NEW_TENANT: Duration = Duration::from_secs(10);
/// Facts a second of all tenants: PostgreSQL wakes the readers of all slots at each commit.
const RATE: f64 = 50.0;

async fn start<'a>(ctx: &Ctx, server: &'a Server, tenants: usize) -> Fleet<'a> {
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = ctx.on(server.get().await, kafka).await;
    let tenants = ctx.pick(12, tenants);
    let mut fleet = Fleet::start(ctx, bed, tenants, 3).await;
    fleet.load(ctx, RATE / tenants as f64).await;
    sleep(ctx.pick(Duration::from_secs(1), Duration::from_secs(10))).await;
    fleet
}

/// One of three is killed, one is added, one stops in order; a tenant comes and goes.
pub async fn instances_come_and_go(ctx: &mut Ctx) -> Outcome {
    let server = Server::start(ctx).await;
    let mut fleet = start(ctx, &server, 200).await;
    fleet.kill_one().await;
    fleet.add_one().await;
    fleet.stop_one().await;
    let (read_after, history) = fleet.tenant_comes_and_goes(ctx).await;
    assert!(read_after < NEW_TENANT, "a new tenant was read after {read_after:?}");
    let (outcome, verdicts) = fleet.finish(history).await;
    println!("{}", outcome.notes.join("\n"));
    let (takeover, longest_move) = (verdicts.takeover(), verdicts.longest_move());
    assert!(takeover < TAKEOVER, "a pipeline went on {takeover:?} after the time-out");
    assert!(longest_move < MOVE, "a move took {longest_move:?}");
    let others = verdicts.longest_of_others();
    assert!(others < MOVE, "a pipeline that did not move was held up for {others:?}");
    outcome.note(format!("a new tenant was read after {} ms", read_after.as_millis()))
}

/// One stands still for longer than its session: others take over, and then it goes on.
pub async fn instance_frozen(ctx: &mut Ctx) -> Outcome {
    let server = Server::start(ctx).await;
    let mut fleet = start(ctx, &server, 60).await;
    for _ in 0..ctx.pick(1, 3) {
        fleet.freeze_one().await;
    }
    let (outcome, verdicts) = fleet.finish(History::default()).await;
    println!("{}", outcome.notes.join("\n"));
    let takeover = verdicts.takeover();
    assert!(takeover < TAKEOVER, "a pipeline went on {takeover:?} after the time-out");
    outcome
}
