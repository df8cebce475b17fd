//! The primary dies under load, and one of two physical standbys is promoted.

use std::time::Duration;

use factlib::Lsn;
use tokio::time::sleep;

use crate::{
    Ctx, Launch, Outcome, Relay,
    context::EMITTERS,
    support::{
        History,
        emitters::{Emitters, surviving},
    },
    trio::{STANDBYS, SlotTransfer, Trio},
};

/// PostgreSQL 17: failover slots, and `synchronized_standby_slots` with both standbys.
pub async fn standbys_promoted(ctx: &mut Ctx) -> Outcome {
    let trio = Trio::start(ctx, 17, SlotTransfer::Synchronised, true).await;
    promoted_in_turn(ctx, trio, &[]).await
}

/// PostgreSQL 15: the slot is copied from the dead primary's disk, and the relay waits for both standbys.
pub async fn standbys_waited_for(ctx: &mut Ctx) -> Outcome {
    let trio = Trio::start(ctx, 15, SlotTransfer::Copied, false).await;
    let names = STANDBYS.join(",");
    promoted_in_turn(ctx, trio, &[("delivery.wait_for_standbys", &names)]).await
}

/// Kills the primary again and again, and promotes a standby that is up to date and one that lags in turn.
/// `settings` are those of the relay that prevent phantoms, where the servers don't.
pub async fn promoted_in_turn(ctx: &mut Ctx, mut trio: Trio, settings: &[(&str, &str)]) -> Outcome {
    let launch =
        settings.iter().fold(launch(ctx, &trio), |launch, (name, value)| launch.set(name, *value));
    let relay = launch.start().await;
    let rate = ctx.pick(300, 1_000);
    let emitters = load(ctx, &trio, rate).await;
    trio.in_step().await;
    let (mut most, rounds) = (0, ctx.pick(2, 20));
    for round in 0..rounds {
        sleep(ctx.random_ms(300..1_500)).await;
        let lags = round % 2 == 1;
        let promoted = lag(ctx, &trio, lags).await;
        trio.kill_primary().await;
        let saved = trio.saved_on(promoted).await.unwrap_or(Lsn::ZERO);
        // What the dead primary sent last may still be on its way.
        sleep(Duration::from_millis(300)).await;
        most += trio.bed().records_behind(saved).await + (EMITTERS * 10) as u64;
        trio.promote(promoted).await;
        trio.is_read().await;
        assert!(relay.is_running(), "{}", relay.output());
        trio.rebuild().await;
        trio.in_step().await;
        emitters.emitted(emitters.count() + rate / 2).await;
    }
    let (history, lost) = stop(&trio, emitters).await;
    let report = relay.finish(&trio.bed(), &history).await;
    Outcome::duplicates(report, most, "sent and not yet saved on the standby that was promoted")
        .note(format!("{rounds} failovers, in which the database lost {lost} facts"))
}

fn launch(ctx: &Ctx, trio: &Trio) -> Launch {
    ctx.launch(&trio.bed()).set("postgres.url", trio.url()).set("postgres.status_interval", "1s")
}

async fn load(ctx: &Ctx, trio: &Trio, rate: usize) -> Emitters {
    let workload = ctx.workload(&trio.bed());
    Emitters::start_on(trio.sessions(), &workload, EMITTERS, rate as f64).await
}

/// Chooses the standby to promote; one that `lags` lacks the last moments.
async fn lag(ctx: &mut Ctx, trio: &Trio, lags: bool) -> usize {
    if lags {
        trio.standby(1).pause_receipt().await.expect("it receives nothing more");
        sleep(ctx.random_ms(300..1_000)).await;
    }
    usize::from(lags)
}

/// Ends the load. Returns what the present primary has of it, and how many facts failovers lost.
async fn stop(trio: &Trio, emitters: Emitters) -> (History, usize) {
    let mut history = emitters.stop().await;
    let surviving = surviving(&trio.bed().client().await).await;
    let lost = history.keep(&surviving);
    (history, lost)
}

/// The promises need `synchronized_standby_slots`: without it, the relay sends what a standby that lags does
/// not have. The checker has to find that, and the relay to say it.
#[tokio::test]
async fn a_lagging_standby_gives_phantoms_where_nothing_waits_for_it() {
    let Unguarded { trio, launch, relay, emitters } =
        unguarded("failover_unguarded", 17, SlotTransfer::Synchronised).await;
    let relay = accepted(&launch, relay).await;
    trio.is_read().await;
    emitters.emitted(emitters.count() + 300).await;
    let (history, lost) = stop(&trio, emitters).await;
    assert!(lost > 0, "the standby did not lag");
    let report = relay.finish(&trio.bed(), &history).await;
    assert!(report.phantom > 0 && report.lost == 0, "{report}");
}

/// The same of PostgreSQL 15, where only the relay can wait.
#[tokio::test]
async fn a_lagging_standby_gives_phantoms_where_the_relay_does_not_wait() {
    let Unguarded { trio, launch, relay, emitters } =
        unguarded("failover_without_waiting", 15, SlotTransfer::Copied).await;
    let (code, last) = relay.ended().await;
    assert_eq!(code, Some(5), "{last}");
    launch.command(&["setup", "--accept-position"]).await;
    let relay = launch.start().await;
    emitters.emitted(emitters.count() + 300).await;
    let (history, lost) = stop(&trio, emitters).await;
    assert!(lost > 0, "the standby did not lag");
    let report = relay.finish(&trio.bed(), &history).await;
    assert!(report.phantom > 0 && report.lost == 0, "{report}");
}

/// A relay for which nothing waits for the standbys, after one that lagged was promoted under load.
struct Unguarded {
    trio: Trio,
    launch: Launch,
    relay: Relay,
    emitters: Emitters,
}

async fn unguarded(name: &'static str, version: u32, transfer: SlotTransfer) -> Unguarded {
    let mut ctx = Ctx::new(name, 1, None);
    let mut trio = Trio::start(&ctx, version, transfer, false).await;
    let launch = launch(&ctx, &trio);
    let relay = launch.start().await;
    let emitters = load(&ctx, &trio, 300).await;
    trio.in_step().await;
    let promoted = lag(&mut ctx, &trio, true).await;
    trio.kill_primary().await;
    trio.promote(promoted).await;
    Unguarded { trio, launch, relay, emitters }
}

/// Waits for the relay to refuse, and starts it again as its remedy says.
async fn accepted(launch: &Launch, relay: Relay) -> Relay {
    let (code, last) = relay.ended().await;
    assert_eq!(code, Some(5), "{last}");
    assert!(last.contains("left timeline 1"), "{last}");
    let again = launch.spawn();
    let (code, last) = again.ended().await;
    assert_eq!(code, Some(5), "a new start knows of it as well: {last}");
    launch.command(&["setup", "--accept-position"]).await;
    launch.start().await
}
