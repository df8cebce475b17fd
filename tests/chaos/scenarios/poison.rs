//! Rows that no topic takes, among many that are sound; rows that move, and rows that nobody
//! published.

use std::{collections::HashSet, time::Duration};

use factlib::testing::{create_topic, read_topic};
use tokio::time::sleep;

use crate::{
    Ctx, Launch, Outcome, Relay,
    context::EMITTERS,
    outbox_rows::{KIND, PARTITIONED_TABLE, Poison, Rows, TABLE, Writers},
    support::Bed,
};

use super::crash::{KILLED, repeatable};

/// One poisoned row in a thousand of each kind, under load: each is parked, and all others
/// arrive in order, none twice for it.
pub async fn poisoned_rows(ctx: &mut Ctx) -> Outcome {
    let bed = with_table(ctx).await;
    let launch = launch(ctx, &bed);
    let relay = launch.start().await;
    let writers = load(ctx, &bed).await;
    sleep(ctx.time(Duration::from_secs(4))).await;
    let rows = writers.stop().await;
    let (report, note) = judged(relay, &bed, &rows).await;
    Outcome::exact(report).note(note)
}

/// The same, and the relay is killed meanwhile.
pub async fn poisoned_rows_and_kills(ctx: &mut Ctx) -> Outcome {
    let bed = with_table(ctx).await;
    let launch = launch(ctx, &bed);
    launch.command(&["setup"]).await;
    let writers = load(ctx, &bed).await;
    let kills = ctx.pick(3, 15);
    let pause_ms = (ctx.time(Duration::from_secs(6)).as_millis() as u64 / kills).max(1);
    let mut most = 0;
    for _ in 0..kills {
        let relay = launch.start().await;
        sleep(ctx.random_ms(pause_ms / 2..2 * pause_ms)).await;
        relay.kill().await;
        most += repeatable(&bed, 10).await;
    }
    let rows = writers.stop().await;
    let (report, note) = judged(launch.start().await, &bed, &rows).await;
    Outcome::duplicates(report, most, KILLED).note(format!("{kills} kills, {note}"))
}

/// Rows that were sent are marked as processed, which moves them to another partition: no row
/// is sent for that, also not after a kill.
pub async fn rows_that_move(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    bed.client().await.batch_execute(PARTITIONED_TABLE).await.expect("the table");
    let launch =
        launch(ctx, &bed).set("outbox", "[{table = \"outbox_events\", on_update = \"ignore\"}]");
    launch.command(&["setup"]).await;
    let seed = ctx.random(0..u64::MAX);
    let writers = Writers::start(&bed, seed, EMITTERS, ctx.pick(500, 1_000), &[]).await;
    let client = bed.client().await;
    let (kills, mut moved, mut most) = (ctx.pick(2, 10), 0, 0);
    let pause_ms = (ctx.time(Duration::from_secs(4)).as_millis() as u64 / kills).max(1);
    for _ in 0..kills {
        let relay = launch.start().await;
        for _ in 0..4 {
            sleep(Duration::from_millis(pause_ms / 4)).await;
            let mark = "UPDATE outbox_events SET processed = true WHERE NOT processed";
            moved += client.execute(mark, &[]).await.expect("rows are marked");
        }
        relay.kill().await;
        most += repeatable(&bed, 10).await;
    }
    let rows = writers.stop().await;
    assert!(moved > 0, "no row moved");
    let (report, _) = judged(launch.start().await, &bed, &rows).await;
    Outcome::duplicates(report, most, KILLED).note(format!("{kills} kills, {moved} rows moved"))
}

/// One of two tables leaves the publication for a while: the other one flows, and the rows
/// between are named with the command that sends them.
pub async fn table_left_the_publication(ctx: &mut Ctx) -> Outcome {
    let bed = with_table(ctx).await;
    let client = bed.client().await;
    client.batch_execute(OTHER_TABLE).await.expect("the other table");
    let launch = launch(ctx, &bed)
        .set("postgres.publication_check_interval", "500ms")
        .set("outbox", "[{table = \"outbox_events\"}, {table = \"others\"}]");
    let relay = launch.start().await;
    let seed = ctx.random(0..u64::MAX);
    let writers = Writers::start(&bed, seed, EMITTERS, ctx.pick(500, 1_000), &[]).await;
    let others = async |from: u32| {
        let insert = "INSERT INTO others SELECT n::text, 'other', 'o', 'changed', '', clock_timestamp() FROM generate_series($1::int, $1 + 99) n";
        client.execute(insert, &[&(from as i32)]).await.expect("rows of the other table");
    };
    let publication = format!("ALTER PUBLICATION \"{}\"", bed.name);
    others(0).await;
    // A look before it leaves: else nobody knows since when rows are missing.
    relay.settled(&bed).await;
    sleep(Duration::from_secs(1)).await;
    client.batch_execute(&format!("{publication} DROP TABLE others")).await.expect("it leaves");
    relay.says("an outbox table is not relayed as it is configured").await;
    others(100).await;
    sleep(ctx.time(Duration::from_secs(2))).await;
    client.batch_execute(&format!("{publication} ADD TABLE others")).await.expect("it is back");
    let named = "rows of an outbox table were not published, or not all of them";
    relay.says(named).await;
    others(200).await;
    let rows = writers.stop().await;
    relay.settled(&bed).await;
    let remedy = relay.last(named, "remedy").expect("the command that sends them");
    let words: Vec<_> = remedy.as_str().expect("a text").split(' ').skip(1).collect();
    launch.command(&words).await;
    let topic = format!("{}.other", bed.name);
    let records = read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("the other topic");
    let ids: HashSet<_> = records.iter().filter_map(|record| record.header("event_id")).collect();
    let (mut report, _) = judged(relay, &bed, &rows).await;
    report.emitted += 300;
    report.delivered += ids.len();
    report.lost += 300 - ids.len();
    Outcome::exact(report)
        .note(format!("100 rows were not published; `{}` sent them", words.join(" ")))
}

const OTHER_TABLE: &str = "\
CREATE TABLE others (
    id text PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload bytea NOT NULL, created_at timestamptz NOT NULL)";

async fn with_table(ctx: &Ctx) -> Bed<'static> {
    let bed = ctx.shared().await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    // Kafka takes `order_item` for it.
    let other = format!("{}.order.item", bed.name);
    create_topic(&bed.kafka.admin_bootstrap(), &other, 1, &[]).await.expect("a topic");
    bed
}

fn launch(ctx: &Ctx, bed: &Bed<'_>) -> Launch {
    ctx.launch(bed).set("postgres.source", "tables")
}

async fn load(ctx: &mut Ctx, bed: &Bed<'_>) -> Writers {
    let seed = ctx.random(0..u64::MAX);
    Writers::start(bed, seed, EMITTERS, ctx.pick(500, 1_000), &Poison::ALL).await
}

/// Lets everything arrive, stops the relay in order, and holds topic and dead letters against
/// the rows.
async fn judged(relay: Relay, bed: &Bed<'_>, rows: &Rows) -> (crate::support::Report, String) {
    relay.settled(bed).await;
    relay.stop().await;
    let bootstrap = bed.kafka.admin_bootstrap();
    let topic = format!("{}.{KIND}", bed.name);
    let mut report = rows.check(&read_topic(&bootstrap, &topic).await.expect("the topic"));
    let letters = match rows.poisoned().is_empty() {
        true => Vec::new(),
        false => {
            let letters = read_topic(&bootstrap, &bed.config.dead_letter_topic()).await;
            letters.expect("the dead-letter topic")
        }
    };
    let letters: HashSet<_> = letters
        .iter()
        .filter_map(|letter| letter.header("event_id"))
        .map(|id| String::from_utf8_lossy(id).into_owned())
        .collect();
    let parked = |id: &&String| letters.contains(*id);
    let missing = rows.poisoned().keys().filter(|id| !parked(id)).count();
    if missing > 0 {
        report.lost += missing;
        report.examples.push(format!("{missing} poisoned rows are not parked"));
    }
    let sound = letters.iter().filter(|id| !rows.poisoned().contains_key(*id)).count();
    if sound > 0 {
        report.altered += sound as u64;
        report.examples.push(format!("{sound} sound rows are parked"));
    }
    bed.drop_slot().await;
    (report, format!("{} poisoned rows parked, of {} kinds", letters.len(), Poison::ALL.len()))
}
