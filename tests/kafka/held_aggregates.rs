//! `dead_letter.policy = "hold-aggregate"`: the later events of an aggregate wait behind one that can't
//! be delivered, and come after it when it is redriven, while all others flow.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use factlib::{
    Lsn,
    config::{DeliveryMode, RefusalPolicy},
    dead_letter::{HeldLine, HeldLines, Ledger, Redriver},
    emit::Fact,
    proto::OutboxEvent,
    testing::{ConsumedRecord, each_record, wait_for_count},
};
use futures_util::SinkExt;
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, header},
    rows::debezium,
};

const MODES: [DeliveryMode; 2] = [DeliveryMode::AtLeastOnce, DeliveryMode::ExactlyOnce];

/// Kafka takes no time that is more than an hour ahead, if nobody says otherwise.
const FAR_AHEAD_MS: u64 = 4_000_000_000_000;

/// The setting that a topic refuses such times for, and a value with which it takes them.
const TAKES_ALL: (&str, &str) = ("message.timestamp.after.max.ms", "9000000000000");

async fn bed(name: &str, mode: DeliveryMode) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.delivery.mode = mode;
    bed.config.dead_letter.policy = RefusalPolicy::HoldAggregate;
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed.config.pipeline.restart_backoff_max = Duration::from_millis(500);
    bed.config.checkpoint.interval = Duration::from_millis(100);
    bed
}

fn fact(id: impl Into<String>) -> Fact {
    Fact::new("order", id.into(), "order.made").payload(b"p".to_vec())
}

fn bad(id: impl Into<String>) -> Fact {
    fact(id).timestamp_ms(FAR_AHEAD_MS)
}

fn log() -> Logger {
    Logger::root(Discard, o!())
}

fn topic(bed: &Bed<'_>) -> String {
    format!("{}.order", bed.name)
}

/// The event ids in the topic, of each key in order.
async fn by_key(bed: &Bed<'_>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let take = |record: ConsumedRecord| {
        let key = String::from_utf8(record.key.clone().unwrap_or_default().into()).expect("text");
        found.entry(key).or_default().push(header(&record, "event_id").to_owned());
    };
    each_record(&bed.kafka.admin_bootstrap(), &topic(bed), take).await.expect("a readable topic");
    found
}

fn expected<'a>(
    events: impl IntoIterator<Item = &'a OutboxEvent>,
) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        all.entry(event.aggregate_id.clone()).or_default().push(event.id.clone());
    }
    all
}

/// Number of held events, by aggregate id.
async fn held(bed: &Bed<'_>) -> BTreeMap<String, u64> {
    let lines = HeldLines::new(&bed.config, &log()).expect("lines");
    let lines = lines.lines().await.expect("the table is read");
    lines.into_iter().map(|HeldLine { aggregate_id, events, .. }| (aggregate_id, events)).collect()
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(id, count)| (id.to_string(), *count)).collect()
}

/// Redrives the line of an aggregate to its end.
async fn redrive(bed: &Bed<'_>, id: &str) -> u64 {
    let lines = HeldLines::new(&bed.config, &log()).expect("lines");
    let ledger = Ledger::open(&bed.config, &log()).await.expect("the database answers");
    let mut redriver = Redriver::builder(&bed.config, &log()).build().expect("a redriver");
    let mut count = 0;
    loop {
        let next = lines.next_confirmed(("order", id), 3).await.expect("it is confirmed");
        if next.is_empty() {
            return count;
        }
        let (sent, ended) = redriver.send_held(&next, &ledger, &lines).await;
        ended.expect("all are taken");
        count += sent as u64;
    }
}

#[actix::test]
async fn later_events_of_the_aggregate_wait_and_come_behind_it() {
    for mode in MODES {
        let bed = bed("held", mode).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let mut facts: Vec<_> = (0..20).map(|n| fact(format!("u{}", n % 2))).collect();
        facts[6] = bad("u0");
        let mut events = emit(&bed, &facts).await;
        bed.confirmed(bed.wal_end().await).await;
        let sent = |events: &[OutboxEvent]| {
            let sent = events.iter().enumerate().filter(|(n, _)| n % 2 == 1 || *n < 6);
            expected(sent.map(|(_, event)| event))
        };
        assert_eq!(by_key(&bed).await, sent(&events), "all others, once, {mode:?}");
        assert_eq!(held(&bed).await, counts(&[("u0", 7)]));

        // Also what comes later, and after a restart.
        events.extend(emit(&bed, &[fact("u0"), fact("u1")]).await);
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        let pipeline = bed.pipeline().start().await.expect("it starts again");
        events.extend(emit(&bed, &[fact("u0"), fact("u1")]).await);
        bed.confirmed(bed.wal_end().await).await;
        assert_eq!(by_key(&bed).await, sent(&events));
        assert_eq!(held(&bed).await, counts(&[("u0", 9)]));
        let status = pipeline.status();
        let first = HeldLines::new(&bed.config, &log()).expect("lines");
        let first = first.lines().await.expect("lines").remove(0);
        let why = first.error.expect("the reason");
        assert!(why.contains("takes no record of the time 4000000000000 ms"), "{why}");
        assert_eq!((first.event_id, first.topic), (events[6].id.clone(), topic(&bed)));
        assert_eq!(status.dead_letters, 0, "counted by the first process only");

        bed.set(&topic(&bed), TAKES_ALL.0, TAKES_ALL.1).await;
        assert_eq!(redrive(&bed, "u0").await, 9);
        events.extend(emit(&bed, &[fact("u0"), fact("u1"), fact("u0")]).await);
        bed.confirmed(bed.wal_end().await).await;
        assert_eq!(by_key(&bed).await, expected(&events), "the line, and what came later");
        assert_eq!(held(&bed).await, counts(&[]));
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn many_refused_events_of_many_aggregates_hold_only_their_own() {
    for mode in MODES {
        let bed = bed("held_many", mode).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let user = |n: usize| format!("u{}", n % 20);
        let is_bad = |n: usize| [5, 25, 45, 111, 112, 250, 399].contains(&n);
        let facts = (0..400).map(|n| if is_bad(n) { bad(user(n)) } else { fact(user(n)) });
        let events = emit(&bed, &facts.collect::<Vec<_>>()).await;
        bed.confirmed(bed.wal_end().await).await;
        let first_bad = |n: usize| (0..=n).any(|m| m % 20 == n % 20 && is_bad(m));
        let sent = events.iter().enumerate().filter(|(n, _)| !first_bad(*n));
        assert_eq!(by_key(&bed).await, expected(sent.map(|(_, event)| event)), "{mode:?}");

        bed.set(&topic(&bed), TAKES_ALL.0, TAKES_ALL.1).await;
        for id in held(&bed).await.into_keys() {
            redrive(&bed, &id).await;
        }
        assert_eq!(by_key(&bed).await, expected(&events), "each in its order, once, {mode:?}");
        pipeline.shutdown().await.expect("a clean stop");
    }
}

/// Events of the aggregate come all the time while its line is redriven.
#[actix::test]
async fn nothing_overtakes_the_line_while_it_is_redriven() {
    for mode in MODES {
        let bed = bed("held_race", mode).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let mut events = emit(&bed, &[bad("u0"), fact("u1"), fact("u0")]).await;
        wait_for_count(&bed.kafka.admin_bootstrap(), &[&topic(&bed)], 1, LIMIT)
            .await
            .expect("the other aggregate");
        bed.set(&topic(&bed), TAKES_ALL.0, TAKES_ALL.1).await;
        let emitting = async {
            let mut all = Vec::new();
            for n in 0..60 {
                all.extend(emit(&bed, &[fact("u0"), fact(format!("u{}", n % 3))]).await);
                sleep(Duration::from_millis(15)).await;
            }
            all
        };
        let redriving = async {
            // Until the line has come to its end once: then the aggregate flows.
            sleep(Duration::from_millis(200)).await;
            redrive(&bed, "u0").await
        };
        let (more, redriven) = tokio::join!(emitting, redriving);
        events.extend(more);
        assert!(redriven >= 2, "{redriven}");
        bed.confirmed(bed.wal_end().await).await;
        assert_eq!(held(&bed).await, counts(&[]), "{mode:?}");
        assert_eq!(by_key(&bed).await, expected(&events), "{mode:?}");
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn at_the_limit_the_position_stops_until_there_is_room() {
    let mut bed = bed("held_limit", DeliveryMode::AtLeastOnce).await;
    bed.config.dead_letter.held_limit = 3;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut events = emit(&bed, &[bad("u0"), fact("u0"), fact("u0")]).await;
    bed.confirmed(bed.wal_end().await).await;
    events.extend(emit(&bed, &[fact("u0")]).await);
    let end = bed.wal_end().await;
    let said = async {
        loop {
            let status = pipeline.status();
            let errors = status.topics.values().filter_map(|topic| topic.last_error.as_ref());
            let found =
                errors.filter(|error| error.contains("dead_letter.held_limit is 3")).count();
            if found > 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, said).await.expect("the status says why nothing is confirmed");
    assert!(bed.slot().await.0 < end, "the position stops");
    bed.set(&topic(&bed), TAKES_ALL.0, TAKES_ALL.1).await;
    redrive(&bed, "u0").await;
    bed.confirmed(end).await;
    redrive(&bed, "u0").await;
    assert_eq!(by_key(&bed).await, expected(&events));
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_part_larger_than_the_limit_is_held_whole() {
    let mut bed = bed("held_one_part", DeliveryMode::AtLeastOnce).await;
    bed.config.dead_letter.held_limit = 3;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut facts = vec![bad("u0")];
    facts.extend((0..9).map(|_| fact("u0")));
    let mut events = emit(&bed, &facts).await;
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(held(&bed).await, counts(&[("u0", 10)]));

    // What needs no room is taken at the limit, also what the table has already.
    events.extend(emit(&bed, &[fact("u1")]).await);
    bed.confirmed(bed.wal_end().await).await;
    bed.set(&topic(&bed), TAKES_ALL.0, TAKES_ALL.1).await;
    assert_eq!(redrive(&bed, "u0").await, 10);
    assert_eq!(by_key(&bed).await, expected(&events));
    pipeline.shutdown().await.expect("a clean stop");
}

/// PostgreSQL gives all rows of a COPY that share a page the same position.
#[actix::test]
async fn rows_of_one_copy_keep_their_order() {
    for mode in MODES {
        let mut bed = bed("held_copy", mode).await;
        let client = bed.client().await;
        let table = "CREATE TABLE o (id text PRIMARY KEY, aggregatetype text, aggregateid text,
            payload text, at timestamptz)";
        client.batch_execute(table).await.expect("the table");
        let mut outbox = debezium(&bed, "o");
        outbox.columns.created_at = Some("at".into());
        bed.config.outbox = vec![outbox];
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        // Ids fall, so that no order by id is right.
        let row = |n: usize| {
            let time = if n == 4 { "2096-10-02" } else { "2023-11-14" };
            format!("{}\torder\tu{}\tx\t{time}\n", 99 - n, n % 2)
        };
        let copied = client.copy_in("COPY o FROM STDIN").await.expect("a copy begins");
        let mut copied = std::pin::pin!(copied);
        let rows: String = (0..20).map(row).collect();
        copied.send(Bytes::from(rows)).await.expect("rows");
        assert_eq!(copied.finish().await.expect("the copy ends"), 20);
        bed.confirmed(bed.wal_end().await).await;

        let topic = format!("{}.outbox.event.order", bed.name);
        let ids_of = async |wanted: &str| {
            let mut ids = Vec::new();
            let take = |record: ConsumedRecord| {
                if record.key.as_deref() == Some(wanted.as_bytes()) {
                    ids.push(header(&record, "id").to_owned());
                }
            };
            each_record(&bed.kafka.admin_bootstrap(), &topic, take).await.expect("a topic");
            ids
        };
        let all = |of: usize, end: usize| -> Vec<String> {
            (0..end).filter(|n| n % 2 == of).map(|n| (99 - n).to_string()).collect()
        };
        assert_eq!(ids_of("u1").await, all(1, 20), "the other aggregate flows, {mode:?}");
        assert_eq!(ids_of("u0").await, all(0, 4), "nothing behind the refused row, {mode:?}");
        assert_eq!(held(&bed).await, counts(&[("u0", 8)]));
        bed.set(&topic, TAKES_ALL.0, TAKES_ALL.1).await;
        assert_eq!(redrive(&bed, "u0").await, 8);
        assert_eq!(ids_of("u0").await, all(0, 20), "{mode:?}");
        pipeline.shutdown().await.expect("a clean stop");
    }
}

/// With exactly-once, a line is read once its events are confirmed: before that, earlier events may
/// still come in front of what is there.
#[actix::test]
async fn a_line_is_read_after_it_is_confirmed() {
    let bed = bed("held_confirmed", DeliveryMode::ExactlyOnce).await;
    bed.pipeline().start().await.expect("it starts").shutdown().await.expect("a clean stop");
    let client = bed.client().await;
    let hold = async |id: &str, at: Lsn| {
        let row = format!(
            "INSERT INTO factlib.held_events (slot, aggregate_type, aggregate_id, commit_lsn,
                ordinal, event_id, topic, error, key, headers)
            VALUES ('{}', 'order', 'u0', '{at}', 1, '{id}', '{}', 'refused', '', '')",
            bed.config.postgres.slot,
            topic(&bed)
        );
        client.batch_execute(&row).await.expect("a row");
    };
    emit(&bed, &[fact("u0")]).await;
    let first = bed.wal_end().await;
    emit(&bed, &[fact("u0")]).await;
    hold("second", bed.wal_end().await).await;
    let lines = HeldLines::new(&bed.config, &log()).expect("lines");
    let confirming = async {
        sleep(Duration::from_millis(700)).await;
        hold("first", first).await;
        let advance = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
        client.execute(advance, &[&bed.config.postgres.slot]).await.expect("it is confirmed");
    };
    let (next, ()) = tokio::join!(lines.next_confirmed(("order", "u0"), 1), confirming);
    let next = next.expect("it is confirmed");
    let positions: Vec<_> = next.iter().map(|letter| letter.position).collect();
    let all = lines.next(("order", "u0"), 0, 9).await.expect("lines");
    assert_eq!(all.len(), 2);
    assert_eq!(positions, [all[0].position], "the first one, which came later");
    assert!(all[0].position > all[1].position);
}
