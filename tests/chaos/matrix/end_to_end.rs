//! A relay's life from set-up to the removal of delivered rows.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    Ctx, Launch, Outcome,
    scenarios::crash::{KILLED, repeatable},
    support::{Bed, History, Report, bed::LIMIT, source::reads_tables},
};

/// Set-up, doctor, a kill in the midst of a load, a new start, `slot show`; with a table also retention.
pub async fn end_to_end(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed);
    launch.command(&["setup"]).await;
    launch.command(&["doctor"]).await;
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, 1_000).await;
    emitters.emitted(500).await;
    relay.kill().await;
    let most = repeatable(&bed, 10).await;
    emitters.emitted(emitters.count() + 500).await;
    let relay = launch.start().await;
    emitters.emitted(emitters.count() + 500).await;
    let history = emitters.stop().await;
    relay.settled(&bed).await;
    launch.command(&["doctor"]).await;
    let slot = launch.command(&["slot", "show"]).await;
    assert!(slot.contains("active, pid") && slot.contains("confirmed"), "{slot}");
    let version = bed.postgres.query_text(&bed.database, "SHOW server_version_num").await;
    let version = version.expect("a version");
    let keeps_copies = version.parse::<u32>().expect("a number") >= 170_000;
    assert_eq!(slot.contains("standbys keep a copy"), keeps_copies, "{slot}");
    if reads_tables() {
        relay.stop().await;
        return Outcome::duplicates(without_old_rows(&bed, &launch, &history).await, most, KILLED);
    }
    Outcome::duplicates(relay.finish(&bed, &history).await, most, KILLED)
}

/// Lets the relay remove every delivered row, and holds all against the history.
async fn without_old_rows(bed: &Bed<'_>, launch: &Launch, history: &History) -> Report {
    let launch = launch.clone().set("retention.after", "1ms").set("retention.interval", "100ms");
    let relay = launch.start().await;
    let client = bed.client().await;
    let emptied = async {
        let query = "SELECT count(*) FROM outbox_events";
        while client.query_one(query, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, emptied).await.expect("old rows are removed");
    relay.finish(bed, history).await
}
