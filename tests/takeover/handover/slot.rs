//! Taking over a slot, with records that the test itself puts into the topics for the other relay.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use factlib::{
    ErrorKind,
    config::DeliveryMode,
    takeover::{
        debezium::offset::{ConnectorName, read_topic},
        handover::{HandoverOptions, HandoverReport, hand_over},
    },
    testing::create_topic,
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use super::outbox::{self, Row, all_records, check, counts, insert};
use crate::servers::{
    Bed,
    bed::{LIMIT, PARTITIONS},
};

fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

async fn take(bed: &Bed<'_>, take: bool) -> factlib::Result<HandoverReport> {
    let mut options = HandoverOptions::default();
    options.take = take;
    hand_over(&bed.config, &options, &log(), &mut |_| {}).await
}

async fn refusal(bed: &Bed<'_>) -> (ErrorKind, String) {
    let error = take(bed, true).await.expect_err("a refusal");
    (error.kind(), error.to_string())
}

/// Produces the records of these rows as Debezium would, with this header.
async fn produce(bed: &Bed<'_>, rows: &[Row], header: &str) {
    let bootstrap = bed.kafka.admin_bootstrap();
    for kind in ["order", "user"] {
        create_topic(&bootstrap, &format!("{}.{kind}", bed.name), PARTITIONS, &[]).await.ok();
    }
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &bootstrap).set("partitioner", "murmur2_random");
    let producer: FutureProducer = client.create().expect("a producer");
    for row in rows {
        let kind = row.aggregate.split('-').next().unwrap_or_default();
        let value = Some(format!("\"{}\"", row.id));
        let headers = OwnedHeaders::new().insert(Header { key: header, value: value.as_ref() });
        let topic = format!("{}.{kind}", bed.name);
        let record = FutureRecord::to(&topic).key(&row.aggregate).payload("1").headers(headers);
        producer.send(record, LIMIT).await.expect("acknowledged");
    }
}

/// The rows that a relay has sent that was killed: of each partition it has the first ones.
fn prefixes(rows: &[Row]) -> Vec<Row> {
    let reached = |aggregate: &str| match aggregate.bytes().map(usize::from).sum::<usize>() % 3 {
        0 => rows.len() * 3 / 4,
        1 => rows.len() / 3,
        _ => 0,
    };
    let sent = rows.iter().enumerate().filter(|(n, row)| *n < reached(&row.aggregate));
    sent.map(|(_, row)| row.clone()).collect()
}

async fn relay_the_rest(bed: &Bed<'_>) {
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn what_the_topics_have_is_not_sent_again_and_all_else_is() {
    is_taken_over("takeover", DeliveryMode::AtLeastOnce).await;
}

#[actix::test]
async fn a_slot_is_taken_over_with_exactly_once() {
    is_taken_over("takeover_exactly", DeliveryMode::ExactlyOnce).await;
}

async fn is_taken_over(name: &str, mode: DeliveryMode) {
    let mut bed = outbox::bed(name).await;
    bed.config.delivery.mode = mode;
    let mut rows = insert(&mut bed.client().await, 400, 7).await;
    let sent = prefixes(&rows);
    produce(&bed, &sent, "id").await;
    let before = counts(&all_records(&bed).await);

    let confirmed = bed.slot().await.0;
    let found = take(&bed, false).await.expect("a check");
    let ids: HashSet<&str> = sent.iter().map(|row| row.id.as_str()).collect();
    let last = rows.iter().rposition(|row| ids.contains(row.id.as_str())).expect("one") + 1;
    assert_eq!(found.waiting, rows.len() as u64);
    assert_eq!(found.delivered, sent.len() as u64);
    // With the rest of the last transaction.
    let gaps = (last - sent.len()) as u64;
    assert!((gaps..gaps + 7).contains(&found.missing), "{gaps} {found:?}");
    assert_eq!((found.overtaking, found.is_taken), (0, false));
    assert_eq!(bed.slot().await.0, confirmed);
    assert_eq!(counts(&all_records(&bed).await), before);

    // Rows go on being committed, and the takeover is given up at any moment.
    let mut client = bed.client().await;
    let (more, ()) = tokio::join!(insert(&mut client, 200, 7), async {
        for pause in [0, 10, 30, 60, 100, 200, 350, 500, 700] {
            let pause = Duration::from_millis(pause);
            _ = tokio::time::timeout(pause, take(&bed, true)).await;
        }
    });
    rows.extend(more);
    let taken = take(&bed, true).await.expect("taken");
    assert!(taken.is_taken && taken.position >= found.position, "{taken:?}");
    let again = take(&bed, true).await.expect("taken again");
    assert_eq!((again.from, again.position), (taken.position, taken.position));
    assert_eq!((again.delivered, again.missing), (0, 0));
    assert_eq!(bed.slot().await.0, confirmed, "the way back is open until `factlib run`");
    relay_the_rest(&bed).await;
    check(&rows, &before, &all_records(&bed).await);
}

#[actix::test]
async fn nothing_is_sent_before_a_relay_that_has_sent_nothing_or_all() {
    let bed = outbox::bed("takeover_all").await;
    let rows = insert(&mut bed.client().await, 30, 3).await;
    let found = take(&bed, false).await.expect("a check");
    assert_eq!((found.waiting, found.delivered, found.missing), (30.max(found.waiting), 0, 0));
    assert_eq!(found.position, found.confirmed);
    produce(&bed, &rows, "id").await;
    let before = counts(&all_records(&bed).await);
    let taken = take(&bed, true).await.expect("taken");
    assert_eq!((taken.delivered, taken.missing), (rows.len() as u64, 0));
    relay_the_rest(&bed).await;
    check(&rows, &before, &all_records(&bed).await);
}

#[actix::test]
async fn a_slot_that_is_not_ours_to_take_is_refused_with_a_remedy() {
    let mut bed = outbox::bed("takeover_refused").await;
    let rows = insert(&mut bed.client().await, 5, 1).await;
    produce(&bed, &rows, "key").await;
    let (kind, text) = refusal(&bed).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    let said = "no record that was read has an event's id in the header id, as the one at ";
    assert!(text.starts_with(said), "{text}");
    let said = "it can't be told which events the topics have (name the header with --id-header)";
    assert!(text.contains(said), "{text}");

    let mut options = HandoverOptions::default();
    options.id_header = Some("key".into());
    let found = hand_over(&bed.config, &options, &log(), &mut |_| {}).await.expect("a check");
    assert_eq!(found.delivered, 5);

    let slot = bed.name.clone();
    bed.config.postgres.create = true;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let (kind, text) = refusal(&bed).await;
    assert_eq!(kind, ErrorKind::SlotInUse, "{text}");
    assert!(text.starts_with(&format!("slot {slot} is active for PID ")), "{text}");
    let said = "the relay that reads it still runs: stop the connector (PUT /connectors/NAME/stop) \
                or Debezium Server, and run this again";
    assert!(text.contains(said), "{text}");
    pipeline.shutdown().await.expect("a clean stop");

    bed.config.postgres.slot = "nothing".into();
    let (kind, text) = refusal(&bed).await;
    assert_eq!(kind, ErrorKind::PostgresRefused);
    assert!(text.starts_with("slot nothing does not exist (name Debezium's slot with "), "{text}");
    let said = "if slot.drop.on.stop = true has dropped it, start with `factlib setup` and look for \
                what is lost with `factlib audit`";
    assert!(text.contains(said), "{text}");

    let other = format!("{slot}_other");
    let create = format!("SELECT pg_create_logical_replication_slot('{other}', 'test_decoding')");
    bed.client().await.batch_execute(&create).await.expect("a slot");
    bed.config.postgres.slot = other.clone();
    let (kind, text) = refusal(&bed).await;
    assert_eq!(kind, ErrorKind::PostgresRefused);
    let said =
        format!("slot {other} has the plugin test_decoding, and not pgoutput (while Debezium");
    assert!(text.starts_with(&said), "{text}");
    let said = "while Debezium runs, create another slot (postgres.slot, `factlib setup`); then stop \
                Debezium, and take over that slot: what Debezium has sent since is not sent again";
    assert!(text.contains(said), "{text}");

    let elsewhere = format!("{slot}_elsewhere");
    let create = format!("SELECT pg_create_logical_replication_slot('{elsewhere}', 'pgoutput')");
    bed.postgres.execute("postgres", &create).await.expect("a slot");
    bed.config.postgres.slot = elsewhere.clone();
    let (_, text) = refusal(&bed).await;
    let said = format!(
        "slot {elsewhere} is one of database postgres, and not of {} (correct",
        bed.database
    );
    assert!(text.starts_with(&said), "{text}");
}

#[actix::test]
async fn an_event_that_cannot_be_sent_is_named_and_left_out_on_demand() {
    let bed = outbox::bed("takeover_large").await;
    let client = bed.client().await;
    let large = "INSERT INTO outbox SELECT gen_random_uuid(), 'order', 'order-1', 'changed',
                 to_jsonb(string_agg(md5(n::text), '')) FROM generate_series(1, 1000) n
                 RETURNING id::text";
    let id: String = client.query_one(large, &[]).await.expect("a row").get(0);
    let small = "INSERT INTO outbox VALUES (gen_random_uuid(), 'order', 'order-1', 'changed', '1')
                 RETURNING id::text";
    let missing: String = client.query_one(small, &[]).await.expect("a row").get(0);
    let later: String = client.query_one(small, &[]).await.expect("a row").get(0);
    let topic = format!("{}.order", bed.name);
    let limits = [("max.message.bytes", "10000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, PARTITIONS, &limits).await.expect("a topic");
    let row = |id: String| Row { id, aggregate: "order-1".into() };
    let (missing, later) = (row(missing), row(later));
    produce(&bed, std::slice::from_ref(&later), "id").await;

    let found = take(&bed, false).await.expect("a check");
    assert_eq!((found.delivered, found.missing, found.overtaking), (1, 2, 1), "{found:?}");
    let (kind, text) = refusal(&bed).await;
    assert_eq!(kind, ErrorKind::RecordTooLarge, "{text}");
    let said = "it lies before events that the topics have";
    assert!(text.contains(&format!("{said}; --leave-out {id} takes over without it")), "{text}");
    // Once the limit is raised, it goes before the missing one of its aggregate.
    assert_eq!(all_records(&bed).await.len(), 1, "nothing is sent behind it");

    // One that the topics have is left out, too.
    let mut options = HandoverOptions::default();
    (options.take, options.left_out) = (true, vec![id, later.id.clone()]);
    let (log, mut tell) = (log(), |_| {});
    let taking = hand_over(&bed.config, &options, &log, &mut tell);
    tokio::time::timeout(LIMIT, taking).await.expect("it ends").expect("taken");
    relay_the_rest(&bed).await;
    let records = all_records(&bed).await;
    let expected = HashMap::from([(missing.id.clone(), 1), (later.id.clone(), 1)]);
    assert_eq!(counts(&records), expected);
}

#[actix::test]
async fn a_row_that_is_no_event_is_parked_and_the_position_passes_it() {
    let mut bed = outbox::bed("takeover_parked").await;
    bed.config.kafka.topic_prefix = Some(bed.name.clone());
    let mut client = bed.client().await;
    client.batch_execute("ALTER TABLE outbox ALTER aggregateid DROP NOT NULL").await.expect("SQL");
    let mut rows = insert(&mut client, 5, 1).await;
    let no_event = "INSERT INTO outbox VALUES (gen_random_uuid(), 'order', NULL, 'changed', '1')";
    client.batch_execute(no_event).await.expect("a row");
    rows.extend(insert(&mut client, 5, 1).await);
    produce(&bed, &rows, "id").await;
    let before = counts(&all_records(&bed).await);
    let found = take(&bed, false).await.expect("a check");
    assert_eq!((found.delivered, found.missing, found.parked), (10, 0, 1), "{found:?}");
    take(&bed, true).await.expect("taken");
    relay_the_rest(&bed).await;
    let letters = bed.config.dead_letter_topic();
    let (letters, others): (Vec<_>, Vec<_>) =
        all_records(&bed).await.into_iter().partition(|record| record.topic == letters);
    assert_eq!(letters.len(), 1, "{letters:?}");
    check(&rows, &before, &others);
}

#[actix::test]
async fn ids_are_compared_as_the_header_has_them() {
    let bed = outbox::bed("takeover_char_id").await;
    let client = bed.client().await;
    client.batch_execute("ALTER TABLE outbox ALTER id TYPE char(40)").await.expect("SQL");
    let insert = "INSERT INTO outbox SELECT gen_random_uuid(), 'order', 'order-1', 'changed', '1'
                  FROM generate_series(1, 3) RETURNING id::bpchar::text || '    '";
    let rows = client.query(insert, &[]).await.expect("rows");
    let row = |row: &tokio_postgres::Row| Row { id: row.get(0), aggregate: "order-1".into() };
    let rows: Vec<_> = rows.iter().map(row).collect();
    assert!(rows.iter().all(|row| row.id.len() == 40), "{rows:?}");
    produce(&bed, &rows, "id").await;
    let mut connect = bed.config.clone();
    connect.outbox[0].connect = Some(serde_json::from_str("{}").expect("defaults"));
    let found = hand_over(&connect, &HandoverOptions::default(), &log(), &mut |_| {}).await;
    assert_eq!(found.expect("a check").delivered, 3);
}

#[actix::test]
async fn the_newest_offset_of_a_connector_is_read_from_the_topic() {
    let bed = Bed::shared("takeover_offset").await;
    let topic = format!("{}-offsets", bed.name);
    let bootstrap = bed.kafka.admin_bootstrap();
    create_topic(&bootstrap, &topic, 3, &[("cleanup.policy", "compact")]).await.expect("a topic");
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &bootstrap).create().expect("a producer");
    for (connector, lsn) in [("outbox", 256), ("other", 1024), ("outbox", 512)] {
        let key = format!(r#"["{connector}",{{"server":"shop"}}]"#);
        let value = format!(r#"{{"lsn_proc":{lsn},"lsn_commit":{lsn},"lsn":{lsn},"txId":7}}"#);
        let record = FutureRecord::to(&topic).key(&key).payload(&value);
        producer.send(record, LIMIT).await.expect("acknowledged");
    }
    let name = |connector: &str| ConnectorName {
        connector: Some(connector.to_owned()),
        server: "shop".into(),
    };
    let read = async |topic: &str, connector: &str| {
        read_topic(&bed.config, topic, &name(connector), &log()).await.expect("a topic")
    };
    let offset = read(&topic, "outbox").await.expect("an offset");
    assert_eq!(offset.to_string(), "0/200, last commit 0/200");
    assert_eq!(read(&topic, "nobody").await, None);
    assert_eq!(read("nothing", "outbox").await, None);
}
