//! Records that Kafka refuses: only they are parked, with the true reason, whatever they were
//! sent with. All others arrive once and in order, and nothing comes again after a restart.

use std::{collections::BTreeMap, time::Duration};

use factlib::{
    ErrorKind,
    config::{DeliveryMode, RefusalPolicy},
    dead_letter::{DeadLetterTopic, Ledger, LetterFilter, Redriver},
    emit::Fact,
    proto::OutboxEvent,
    testing::{ConsumedRecord, create_topic, each_record, read_topic, wait_for_count},
};
use prost::Message;
use slog::{Discard, Logger, o};

use crate::support::{
    Bed,
    bed::LIMIT,
    records::{emit, header},
};

const MODES: [DeliveryMode; 2] = [DeliveryMode::AtLeastOnce, DeliveryMode::ExactlyOnce];

/// Kafka takes no time that is more than an hour ahead, if nobody says otherwise.
const FAR_AHEAD_MS: u64 = 4_000_000_000_000;

async fn bed(name: &str, mode: DeliveryMode) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.config.delivery.mode = mode;
    bed.config.pipeline.restart_backoff = Duration::from_millis(50);
    bed.config.pipeline.restart_backoff_max = Duration::from_millis(500);
    bed
}

fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * n / 7 % 251) as u8 ^ (n >> 8) as u8 ^ (n * 31) as u8).collect()
}

fn fact(id: impl Into<String>) -> Fact {
    Fact::new("order", id.into(), "order.made").payload(noise(100))
}

fn ids(events: &[OutboxEvent]) -> Vec<String> {
    events.iter().map(|event| event.id.clone()).collect()
}

/// The event ids in a topic, of each key in order.
async fn by_key(bed: &Bed<'_>, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let take = |record: ConsumedRecord| {
        let key = String::from_utf8(record.key.clone().unwrap_or_default().into()).expect("text");
        found.entry(key).or_default().push(header(&record, "event_id").to_owned());
    };
    each_record(&bed.kafka.admin_bootstrap(), topic, take).await.expect("a readable topic");
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

async fn letters(bed: &Bed<'_>, count: usize) -> Vec<ConsumedRecord> {
    let (topic, bootstrap) = (bed.config.dead_letter_topic(), bed.kafka.admin_bootstrap());
    wait_for_count(&bootstrap, &[&topic], count, LIMIT).await.expect("dead letters");
    read_topic(&bootstrap, &topic).await.expect("the dead-letter topic")
}

/// Emits the facts in one transaction, some of which `is_bad`; holds what comes of them against
/// that, also after a restart. Gives the letters.
async fn relays_all_but(
    bed: &Bed<'_>,
    before: &[Fact],
    facts: &[Fact],
    is_bad: impl Fn(usize) -> bool,
) -> Vec<ConsumedRecord> {
    let topic = format!("{}.order", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut events = emit(bed, before).await;
    if !before.is_empty() {
        wait_for_count(&bootstrap, &[&topic], before.len(), LIMIT).await.expect("the first");
    }
    let (mut bad, all) = (Vec::new(), emit(bed, facts).await);
    for (index, event) in all.into_iter().enumerate() {
        if is_bad(index) { bad.push(event) } else { events.push(event) }
    }
    bed.confirmed(bed.wal_end().await).await;
    let parked = letters(bed, bad.len()).await;
    assert_eq!(by_key(bed, &topic).await, expected(&events), "once and in order");
    let mut of_letters: Vec<_> =
        parked.iter().map(|letter| header(letter, "event_id").to_owned()).collect();
    let mut of_bad = ids(&bad);
    of_letters.sort();
    of_bad.sort();
    assert_eq!(of_letters, of_bad, "only these, and once");
    // A transaction that is done again parks, and counts, again.
    let counted = pipeline.status().dead_letters;
    match bed.config.delivery.mode {
        DeliveryMode::AtLeastOnce => assert_eq!(counted, bad.len() as u64),
        _ => assert!(counted >= bad.len() as u64),
    }
    pipeline.shutdown().await.expect("a clean stop");

    let pipeline = bed.pipeline().start().await.expect("it starts again");
    events.extend(emit(bed, &[fact("after")]).await);
    wait_for_count(&bootstrap, &[&topic], events.len(), LIMIT).await.expect("the last");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!(by_key(bed, &topic).await, expected(&events), "nothing again");
    assert_eq!(letters(bed, bad.len()).await.len(), bad.len());
    parked
}

/// Sends the letters again, and gives their records.
async fn redriven(bed: &Bed<'_>, topic: &str) -> Vec<ConsumedRecord> {
    let log = Logger::root(Discard, o!());
    let letters = DeadLetterTopic::open(&bed.config, &log).await.expect("Kafka answers");
    let mut letters = letters.expect("the dead-letter topic");
    let mut ledger = Ledger::open(&bed.config, &log).await.expect("the database answers");
    let mut redriver = Redriver::builder(&bed.config, &log).build().expect("a redriver");
    let mut all = letters.letters(LetterFilter::default());
    while let Some(letter) = all.next().await.expect("a readable topic") {
        let resent = redriver.resent(&letter, &ledger).await.expect("it goes somewhere");
        redriver.send(&letter, &resent, &mut ledger).await.expect("it is taken");
    }
    let records = read_topic(&bed.kafka.admin_bootstrap(), topic).await.expect("a topic");
    records.into_iter().filter(|record| record.header("redriven_from").is_some()).collect()
}

#[actix::test]
async fn of_twenty_records_of_an_aggregate_the_one_of_the_future_is_parked() {
    for mode in MODES {
        let bed = bed("future", mode).await;
        let facts = (0..20).map(|n| match n {
            7 => fact("u1").timestamp_ms(FAR_AHEAD_MS),
            _ => fact("u1"),
        });
        let facts: Vec<_> = facts.collect();
        let letters = relays_all_but(&bed, &[], &facts, |n| n == 7).await;
        let letter = &letters[0];
        let why = header(letter, "dead_letter_error");
        let id = header(letter, "event_id");
        assert!(why.contains(&format!("did not take the record of event {id}")), "{why}");
        assert!(why.contains("takes no record of the time 4000000000000 ms"), "{why}");
        assert_eq!(header(letter, "dead_letter_record_time_ms"), FAR_AHEAD_MS.to_string());
        assert!(letter.timestamp_ms < Some(FAR_AHEAD_MS as i64), "{letter:?}");

        // What it would have been goes out when the topic takes it.
        let topic = format!("{}.order", bed.name);
        bed.set(&topic, "message.timestamp.after.max.ms", "9000000000000").await;
        let again = redriven(&bed, &topic).await;
        assert_eq!((again.len(), again[0].timestamp_ms), (1, Some(FAR_AHEAD_MS as i64)));
        assert_eq!(again[0].key.as_deref(), Some(&b"u1"[..]));
    }
}

#[actix::test]
async fn several_refused_records_of_several_partitions_cost_the_others_nothing() {
    for mode in MODES {
        let bed = bed("several", mode).await;
        let user = |n: usize| format!("u{}", n % 20);
        let before: Vec<_> = (0..40).map(|n| fact(user(n))).collect();
        let is_bad = |n: usize| [5, 25, 45, 111, 112, 250, 399].contains(&n);
        let facts = (0..400).map(|n| match is_bad(n) {
            true => fact(user(n)).timestamp_ms(FAR_AHEAD_MS + n as u64),
            false => fact(user(n)),
        });
        let facts: Vec<_> = facts.collect();
        relays_all_but(&bed, &before, &facts, is_bad).await;
    }
}

#[actix::test]
async fn a_time_too_long_ago_is_refused_for_what_it_is() {
    for mode in MODES {
        let bed = bed("ago", mode).await;
        let topic = format!("{}.order", bed.name);
        let limit = [("message.timestamp.before.max.ms", "3600000")];
        create_topic(&bed.kafka.admin_bootstrap(), &topic, 3, &limit).await.expect("a topic");
        let facts = (0..10).map(|n| match n {
            0 | 9 => fact(format!("u{}", n % 2)).timestamp_ms(1_000_000_000_000),
            _ => fact(format!("u{}", n % 2)),
        });
        let facts: Vec<_> = facts.collect();
        let letters = relays_all_but(&bed, &[], &facts, |n| n == 0 || n == 9).await;
        let why = header(&letters[0], "dead_letter_error");
        assert!(why.contains("takes no record of the time 1000000000000 ms"), "{why}");
    }
}

/// Sent as fast as they come, under load, each thousandth is refused.
#[actix::test]
async fn one_in_a_thousand_is_refused_and_the_rest_keeps_its_order() {
    for mode in MODES {
        let bed = bed("thousandth", mode).await;
        let is_bad = |n: usize| n % 1_000 == 999;
        let facts = (0..8_000).map(|n| match is_bad(n) {
            true => fact(format!("u{}", n % 50)).timestamp_ms(FAR_AHEAD_MS),
            false => fact(format!("u{}", n % 50)),
        });
        let facts: Vec<_> = facts.collect();
        relays_all_but(&bed, &[], &facts, is_bad).await;
    }
}

/// Every batch has refused records, on the one partition.
#[actix::test]
async fn one_in_three_of_a_single_partition_is_refused_and_the_rest_keeps_its_order() {
    let mut bed = bed("third", MODES[0]).await;
    bed.config.kafka.topics.partitions = Some(1);
    let is_bad = |n: usize| n % 3 == 2;
    let facts = (0..300).map(|n| match is_bad(n) {
        true => fact(format!("u{}", n % 4)).timestamp_ms(FAR_AHEAD_MS),
        false => fact(format!("u{}", n % 4)),
    });
    let facts: Vec<_> = facts.collect();
    relays_all_but(&bed, &[], &facts, is_bad).await;
}

#[actix::test]
async fn a_topic_whose_limit_was_lowered_still_takes_its_records() {
    for mode in MODES {
        let bed = bed("lowered", mode).await;
        let topic = format!("{}.order", bed.name);
        let large = |n: usize| fact(format!("u{}", n % 3)).payload(noise(1_000 + n));
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let mut events = emit(&bed, &[fact("u0"), fact("u1"), fact("u2")]).await;
        let bootstrap = bed.kafka.admin_bootstrap();
        wait_for_count(&bootstrap, &[&topic], 3, LIMIT).await.expect("the first");
        bed.set_limit(&topic, "20000").await;
        for round in 0..3 {
            let mut facts: Vec<_> = (0..100).map(large).collect();
            if round == 1 {
                facts.push(fact("large").payload(noise(50_000)));
            }
            let mut all = emit(&bed, &facts).await;
            all.truncate(100);
            events.extend(all);
            bed.confirmed(bed.wal_end().await).await;
        }
        let letters = letters(&bed, 1).await;
        pipeline.shutdown().await.expect("a clean stop");
        assert_eq!(by_key(&bed, &topic).await, expected(&events));
        assert_eq!(letters.len(), 1, "the one that is too large by itself");
        assert_eq!(letters[0].key.as_deref(), Some(&b"large"[..]));
    }
}

/// An event that belongs to no legal topic, as any program may write it.
async fn emit_illegal(bed: &Bed<'_>, payload: Vec<u8>) -> OutboxEvent {
    let event = OutboxEvent {
        id: "illegal".into(),
        aggregate_type: "ord er".into(),
        aggregate_id: "i".into(),
        payload: payload.into(),
        ..Default::default()
    };
    emit_bytes(bed, &event).await;
    event
}

async fn emit_bytes(bed: &Bed<'_>, event: &OutboxEvent) {
    let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    let bytes = event.encode_to_vec();
    bed.client().await.execute(emit, &[&bed.name, &bytes]).await.expect("a message is emitted");
}

/// An empty key is a key: it is a record without any that a compacted topic refuses, and the
/// relay sends none.
#[actix::test]
async fn a_compacted_topic_takes_events_without_an_aggregate_id() {
    let bed = bed("compacted", MODES[0]).await;
    let (topic, bootstrap) = (format!("{}.order", bed.name), bed.kafka.admin_bootstrap());
    let compact = [("cleanup.policy", "compact")];
    create_topic(&bootstrap, &topic, 1, &compact).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let event = |id: &str, key: &str| OutboxEvent {
        id: id.into(),
        aggregate_type: "order".into(),
        aggregate_id: key.into(),
        ..Default::default()
    };
    for (id, key) in [("a", "u1"), ("b", ""), ("c", "u1")] {
        emit_bytes(&bed, &event(id, key)).await;
    }
    wait_for_count(&bootstrap, &[&topic], 3, LIMIT).await.expect("all of them");
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().dead_letters, 0);
    pipeline.shutdown().await.expect("a clean stop");
}

/// Another topic, to see that it goes on.
fn user(id: &str) -> Fact {
    Fact::new("user", id, "user.made").payload("x")
}

#[actix::test]
async fn a_blocked_topic_names_the_record_and_holds_what_is_behind_it() {
    {
        let mut bed = bed("blocked", MODES[0]).await;
        bed.config.dead_letter.policy = RefusalPolicy::Block;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let (topic, users) = (format!("{}.order", bed.name), format!("{}.user", bed.name));
        let bootstrap = bed.kafka.admin_bootstrap();
        let facts = (0..10).map(|n| match n {
            4 => fact("u1").timestamp_ms(FAR_AHEAD_MS),
            _ => fact("u1"),
        });
        let events = emit(&bed, &facts.collect::<Vec<_>>()).await;
        emit(&bed, &[user("1"), user("2")]).await;
        wait_for_count(&bootstrap, &[&topic], 4, LIMIT).await.expect("those before it");
        wait_for_count(&bootstrap, &[&users], 2, LIMIT).await.expect("another topic");
        let named = format!("the record of event {}", events[4].id);
        let waiting = async {
            loop {
                let error = pipeline.status().topics[&topic].last_error.clone().unwrap_or_default();
                if error.contains(&named) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the status names it");
        emit(&bed, &[user("3")]).await;
        wait_for_count(&bootstrap, &[&users], 3, LIMIT).await.expect("it still goes on");
        assert_eq!(by_key(&bed, &topic).await, expected(&events[..4]), "nothing behind it");

        bed.set(&topic, "message.timestamp.after.max.ms", "9000000000000").await;
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        assert_eq!(by_key(&bed, &topic).await, expected(&events));
    }
}

#[actix::test]
async fn a_relay_that_stops_names_the_record() {
    for mode in MODES {
        let mut bed = bed("stops", mode).await;
        bed.config.dead_letter.policy = RefusalPolicy::Stop;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let facts = (0..10).map(|n| match n {
            4 => fact("u1").timestamp_ms(FAR_AHEAD_MS),
            _ => fact("u1"),
        });
        let events = emit(&bed, &facts.collect::<Vec<_>>()).await;
        let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("it ends");
        let error = ended.expect_err("with an error");
        assert_eq!(error.kind(), ErrorKind::RecordRefused, "{error}");
        assert!(error.to_string().contains(&events[4].id), "{error}");
    }
}

#[actix::test]
async fn a_dead_letter_that_its_topic_refuses_goes_to_the_table() {
    for mode in MODES {
        let bed = bed("letter", mode).await;
        let letters_topic = bed.config.dead_letter_topic();
        // It takes no letter at all.
        let limit = [("max.message.bytes", "100")];
        let bootstrap = bed.kafka.admin_bootstrap();
        create_topic(&bootstrap, &letters_topic, 1, &limit).await.expect("a topic");
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let topic = format!("{}.order", bed.name);
        let illegal = emit_illegal(&bed, b"x".to_vec()).await;
        let bad = fact("u1").timestamp_ms(FAR_AHEAD_MS);
        let events = emit(&bed, &[fact("u1"), bad, fact("u1")]).await;
        bed.confirmed(bed.wal_end().await).await;
        assert_eq!(by_key(&bed, &topic).await, expected([&events[0], &events[2]]));
        pipeline.shutdown().await.expect("a clean stop");
        let query = "SELECT event_id, error FROM factlib.dead_letters ORDER BY lsn";
        let rows = bed.client().await.query(query, &[]).await.expect("the table");
        let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!((&rows[0].0, &rows[1].0), (&illegal.id, &events[1].id));
        assert!(rows[0].1.contains("legal topic name"), "{rows:?}");
        assert!(rows[1].1.contains("takes no record of the time"), "{rows:?}");
        assert_eq!(letters(&bed, 0).await.len(), 0);
    }
}

/// Its whole letter is too large for the dead-letter topic; the small one in its place is not.
#[actix::test]
async fn a_large_event_without_a_topic_is_parked_in_the_table() {
    for mode in MODES {
        let bed = bed("illegal", mode).await;
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let mut events = emit(&bed, &[fact("u1")]).await;
        emit_illegal(&bed, noise(2_000_000)).await;
        events.extend(emit(&bed, &[fact("u1")]).await);
        bed.confirmed(bed.wal_end().await).await;
        let letters = letters(&bed, 1).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(header(&letters[0], "dead_letter_table"), "factlib.dead_letters");
        assert!(header(&letters[0], "dead_letter_error").contains("legal topic name"));
        let topic = format!("{}.order", bed.name);
        assert_eq!(by_key(&bed, &topic).await, expected(&events));
        pipeline.shutdown().await.expect("a clean stop");
    }
}
