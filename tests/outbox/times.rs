//! Times that no record can have: the commit's counts, and no event is parked.

use std::time::{SystemTime, UNIX_EPOCH};

use factlib::{
    config::{OutboxPreset, OutboxTable},
    proto::OutboxEvent,
    testing::{CollectedLogs, ConsumedRecord},
};
use prost::Message;

use crate::support::{
    Bed,
    rows::{debezium, records, with_table},
};

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("not so late")
}

fn key(record: &ConsumedRecord) -> &str {
    std::str::from_utf8(record.key.as_deref().expect("a key")).expect("text")
}

fn of<'a>(records: &'a [ConsumedRecord], wanted: &str) -> &'a ConsumedRecord {
    records.iter().find(|record| key(record) == wanted).expect(wanted)
}

/// What the warnings say of times.
fn warned(logs: &CollectedLogs) -> Vec<String> {
    let lines = logs.lines();
    let warnings = lines.iter().filter(|line| line.message.contains("time of a row"));
    warnings.map(|line| line.value("time").expect("a time").to_owned()).collect()
}

#[actix::test]
async fn a_record_whose_time_kafka_can_t_have_gets_that_of_its_commit() {
    let mut bed = Bed::shared("dbz_times").await;
    let client = bed.client().await;
    let table = "CREATE TABLE o (id text PRIMARY KEY, aggregatetype text, aggregateid text,
        payload text, at timestamptz)";
    client.batch_execute(table).await.expect("the table");
    let mut table = debezium(&bed, "o");
    table.columns.created_at = Some("at".into());
    bed.config.outbox = vec![table];
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let topic = format!("{}.outbox.event.t", bed.name);
    let times = [
        "9999-12-31",
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00+00 BC",
        "1960-01-02 03:04:05+00",
        "1970-01-01 00:00:00+00",
    ];
    let before = now_ms();
    for time in times {
        let row = format!("INSERT INTO o VALUES ('{time}', 't', '{time}', 'x', '{time}')");
        client.batch_execute(&row).await.expect("a row");
    }
    let committed = now_ms();
    // What is sent late has the time of its commit all the same.
    let row = "INSERT INTO o VALUES ('good', 't', 'good', 'x', '2023-11-14 22:13:20.123+00')";
    client.batch_execute(row).await.expect("a row");
    let sent = records(&bed, &topic, times.len() + 1).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!(of(&sent, "good").timestamp_ms, Some(1_700_000_000_123));
    for time in times {
        let ms = of(&sent, time).timestamp_ms.expect("a time");
        assert!((before..=committed).contains(&ms), "{time}: {before} {ms} {committed}");
    }
    let warned = warned(&logs);
    let why = "9999-12-31 00:00:00+00: it is not in the range from 1677 to 2262";
    assert_eq!(warned, [why], "one a minute");
}

#[actix::test]
async fn an_envelope_keeps_what_fits_and_gets_the_commit_s_time_for_the_rest() {
    let bed = with_table("envelope_times").await;
    let client = bed.client().await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let before = now_ms();
    for time in ["9999-12-31", "infinity", "1960-01-02 03:04:05+00"] {
        let row = format!(
            "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, created_at)
             VALUES (gen_random_uuid(), 'user', '{time}', 'e', 'x', '{time}')"
        );
        client.batch_execute(&row).await.expect("a row");
    }
    let sent = records(&bed, &format!("{}.user", bed.name), 3).await;
    pipeline.shutdown().await.expect("a clean stop");
    let created_at = |key: &str| {
        let value = of(&sent, key).value.as_deref().expect("a value");
        OutboxEvent::decode(value).expect("an OutboxEvent").created_at
    };
    assert_eq!(created_at("1960-01-02 03:04:05+00"), -315_521_755_000_000_000);
    for time in ["9999-12-31", "infinity"] {
        let ms = created_at(time) / 1_000_000;
        assert!((before..=now_ms()).contains(&ms), "{time}: {ms}");
    }
}

#[actix::test]
async fn a_number_of_another_unit_is_found_out() {
    let mut bed = Bed::shared("units").await;
    let client = bed.client().await;
    let columns = "id text PRIMARY KEY, aggregate_type text, aggregate_id text, event_type text,
        payload text, at bigint";
    let mut tables = String::new();
    let numbers = [
        ("s", 1_700_000_000_i64),
        ("us", 1_700_000_000_123_456),
        ("ns", 1_700_000_000_123_456_789),
    ];
    for (unit, _) in numbers {
        tables += &format!("CREATE TABLE {unit} ({columns});");
        let mut table = OutboxTable::new(unit, OutboxPreset::Factlib);
        table.columns.created_at = Some("at".into());
        bed.config.outbox.push(table);
    }
    client.batch_execute(&tables).await.expect("tables");
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let before = now_ms();
    for (unit, number) in numbers {
        let row =
            format!("INSERT INTO {unit} VALUES ('{unit}', 't', '{unit}', 'e', 'x', {number})");
        client.batch_execute(&row).await.expect("a row");
    }
    let sent = records(&bed, &format!("{}.t", bed.name), 3).await;
    pipeline.shutdown().await.expect("a clean stop");
    for (unit, _) in numbers {
        let value = of(&sent, unit).value.as_deref().expect("a value");
        let ms = OutboxEvent::decode(value).expect("an OutboxEvent").created_at / 1_000_000;
        assert!((before..=now_ms()).contains(&ms), "{unit}: {ms}");
        let remedy = format!(
            "it is far off in ms, but not in {unit}: set outbox.created_at_unit = \"{unit}\""
        );
        assert!(warned(&logs).iter().any(|text| text.contains(&remedy)), "{:?}", warned(&logs));
    }
}
