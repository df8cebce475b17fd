//! `dead_letter.policy = "hold-aggregate"`: the later events of an aggregate wait behind one that can't
//! be delivered, and come after it when it is redriven, while all others flow.

use std::{collections::BTreeMap, time::Duration};

use factlib::{
    config::{DeliveryMode, RefusalPolicy},
    dead_letter::{HeldLine, HeldLines, Ledger, NextHeld, Redriver},
    emit::Fact,
    proto::OutboxEvent,
    testing::{ConsumedRecord, each_record, wait_for_count},
};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, header},
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
        let next = lines.next(("order", id), 0, 3).await.expect("the table is read");
        let confirmed = lines.confirmed(&next).await.expect("it is confirmed");
        let mut run = Vec::new();
        for NextHeld { letter, .. } in next.iter().take(confirmed) {
            let resent = redriver.resent(letter, &ledger).await.expect("it goes somewhere");
            run.push((letter.position, resent));
        }
        if run.is_empty() {
            return count;
        }
        let (sent, ended) = redriver.send_held(&run, &lines).await;
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
