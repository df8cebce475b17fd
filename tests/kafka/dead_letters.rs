//! Events that can never be delivered: parked where the operator gets them back,
//! while those behind them flow; or the relay stops, or waits, as configured.

use std::time::Duration;

use bytes::Bytes;
use factlib::{
    ErrorKind,
    config::RefusalPolicy,
    proto::OutboxEvent,
    testing::{ConsumedRecord, create_topic, read_topic, wait_for_count},
};
use prost::Message;
use tokio_postgres::Client;

use crate::support::{Bed, History, Workload, bed::LIMIT, history::Checker, records::header};

/// Writes bytes under the bed's prefix, as any program might.
async fn emit_bytes(client: &Client, bed: &Bed<'_>, bytes: &[u8]) {
    let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    client.execute(emit, &[&bed.name, &bytes]).await.expect("a message is emitted");
}

async fn dead_letters(bed: &Bed<'_>, count: usize) -> Vec<ConsumedRecord> {
    let topic = bed.config.dead_letter_topic();
    let bootstrap = bed.kafka.admin_bootstrap();
    wait_for_count(&bootstrap, &[&topic], count, LIMIT).await.expect("dead letters");
    read_topic(&bootstrap, &topic).await.expect("the dead-letter topic")
}

/// The facts' own topics, held against the history; dead letters apart.
async fn check_clean(bed: &Bed<'_>, history: &History) {
    let mut records = Vec::new();
    for topic in bed.topics(history) {
        let bootstrap = bed.kafka.admin_bootstrap();
        records.extend(read_topic(&bootstrap, &topic).await.expect("a topic"));
    }
    let mut checker = Checker::new(history, &bed.name, None);
    records.iter().for_each(|record| checker.record(record));
    let report = checker.report();
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn bytes_that_are_no_event_are_parked_as_they_are() {
    let bed = Bed::shared("malformed").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let mut history = Workload::new(&bed.name, 50).emit(&mut client).await;
    emit_bytes(&client, &bed, b"\xff\xff no protobuf").await;
    emit_bytes(&client, &bed, b"").await;
    let after = Workload { seed: 2, aggregate_prefix: "b", ..Workload::new(&bed.name, 50) };
    history.merge(after.emit(&mut client).await);

    bed.delivered(&history).await;
    let letters = dead_letters(&bed, 2).await;
    let values: Vec<_> = letters.iter().filter_map(|letter| letter.value.clone()).collect();
    assert!(values.contains(&Bytes::from_static(b"\xff\xff no protobuf")), "{letters:?}");
    for letter in &letters {
        assert!(header(letter, "dead_letter_error").contains("is no OutboxEvent"), "{letter:?}");
        assert_eq!(header(letter, "dead_letter_topic"), "");
        assert!(header(letter, "LSN").parse::<factlib::Lsn>().is_ok());
        let time_ms: u64 = header(letter, "dead_letter_time_ms").parse().expect("milliseconds");
        assert!(time_ms > 1_700_000_000_000, "{time_ms}");
    }
    bed.confirmed(bed.wal_end().await).await;
    assert_eq!(pipeline.status().dead_letters, 2);
    pipeline.shutdown().await.expect("a clean stop");
    check_clean(&bed, &history).await;
}

#[actix::test]
async fn what_has_no_legal_topic_is_parked_with_its_key_and_headers() {
    let mut bed = Bed::shared("topicless").await;
    bed.config.kafka.topics.max = 2;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let client = bed.client().await;
    let event = |aggregate_type: &str| OutboxEvent {
        id: format!("id of {aggregate_type}"),
        aggregate_type: aggregate_type.into(),
        aggregate_id: "the key".into(),
        event_type: "happened".into(),
        ..Default::default()
    };
    for aggregate_type in ["one", "two", "with space", "three", "one"] {
        emit_bytes(&client, &bed, &event(aggregate_type).encode_to_vec()).await;
    }
    let letters = dead_letters(&bed, 2).await;
    for (aggregate_type, why) in [("with space", "legal topic name"), ("three", "kafka.topics.max")]
    {
        let id = format!("id of {aggregate_type}");
        let letter = letters.iter().find(|letter| header(letter, "event_id") == id);
        let letter = letter.expect("its dead letter");
        assert_eq!(letter.key.as_deref(), Some(&b"the key"[..]));
        assert_eq!(letter.value.as_deref(), Some(&event(aggregate_type).encode_to_vec()[..]));
        assert_eq!(header(letter, "event_type"), "happened");
        assert!(header(letter, "dead_letter_error").contains(why), "{letter:?}");
    }
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

/// A topic that takes little, and facts of which every so many-th is too large for it.
async fn too_large(bed: &Bed<'_>, client: &mut Client) -> (History, Vec<OutboxEvent>) {
    let bootstrap = bed.kafka.admin_bootstrap();
    let topic = format!("{}.thing", bed.name);
    create_topic(&bootstrap, &topic, 3, &[("max.message.bytes", "20000")]).await.expect("a topic");
    let small = |n: u64| Workload {
        seed: n,
        aggregate_prefix: ["a", "b", "c"][n as usize],
        aggregate_types: vec!["thing".into()],
        ..Workload::new(&bed.name, 400)
    };
    let (mut history, mut large) = (History::default(), Vec::new());
    for n in 0..3 {
        history.merge(small(n).emit(client).await);
        let event = OutboxEvent {
            id: uuid::Uuid::now_v7().to_string(),
            aggregate_type: "thing".into(),
            aggregate_id: "large".into(),
            event_type: "grew".into(),
            // Nothing that compression makes small.
            payload: (0..50_000u32)
                .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
            ..Default::default()
        };
        emit_bytes(client, bed, &event.encode_to_vec()).await;
        large.push(event);
    }
    (history, large)
}

#[actix::test]
async fn a_record_that_kafka_refuses_for_its_size_is_kept_in_the_table() {
    let bed = Bed::shared("large").await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let (history, large) = too_large(&bed, &mut client).await;

    bed.delivered(&history).await;
    let letters = dead_letters(&bed, large.len()).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    assert_eq!(letters.len(), large.len(), "each once");
    for event in &large {
        let letter = letters.iter().find(|letter| header(letter, "event_id") == event.id);
        let letter = letter.expect("its dead letter");
        assert_eq!(letter.value.as_deref(), Some(&b""[..]), "a small record points to the bytes");
        assert_eq!(header(letter, "dead_letter_table"), "factlib.dead_letters");
        assert_eq!(header(letter, "dead_letter_topic"), format!("{}.thing", bed.name));
        let query = "SELECT bytes, topic FROM factlib.dead_letters WHERE slot = $1 AND lsn = $2::text::pg_lsn";
        let row = client.query_one(query, &[&bed.name, &header(letter, "LSN")]).await;
        let row = row.expect("its row");
        assert_eq!(row.get::<_, &[u8]>(0), event.encode_to_vec());
        assert_eq!(row.get::<_, &str>(1), format!("{}.thing", bed.name));
    }
    check_clean(&bed, &history).await;
}

#[actix::test]
async fn malformed_bytes_too_large_for_the_dead_letters_go_to_the_table() {
    let bed = Bed::shared("largest").await;
    let topic = bed.config.dead_letter_topic();
    let limit = [("max.message.bytes", "10000")];
    create_topic(&bed.kafka.admin_bootstrap(), &topic, 1, &limit).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let client = bed.client().await;
    let bytes: Vec<u8> =
        (0..40_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    emit_bytes(&client, &bed, &bytes).await;
    let letters = dead_letters(&bed, 1).await;
    assert_eq!(header(&letters[0], "dead_letter_table"), "factlib.dead_letters");
    let kept =
        client.query_one("SELECT bytes FROM factlib.dead_letters", &[]).await.expect("a row");
    assert_eq!(kept.get::<_, &[u8]>(0), bytes);
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn while_parking_fails_the_position_does_not_move() {
    let mut bed = Bed::shared("unparked").await;
    bed.config.pipeline.restart_backoff_max = Duration::from_millis(200);
    bed.config.postgres.connect_timeout = Duration::from_secs(2);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    client
        .batch_execute("CREATE TABLE factlib.dead_letters (locked text)")
        .await
        .expect("a table that takes no dead letter");
    let (history, large) = too_large(&bed, &mut client).await;
    let end = bed.wal_end().await;
    bed.delivered(&history).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bed.slot().await.0 < end, "nothing after what is not parked is confirmed");
    let status = pipeline.status();
    let waiting = &status.topics[&bed.config.dead_letter_topic()];
    let error = waiting.last_error.clone().unwrap_or_default();
    assert!(error.contains("cannot keep a dead letter"), "{status:?}");

    client.batch_execute("DROP TABLE factlib.dead_letters").await.expect("the obstacle is gone");
    bed.confirmed(end).await;
    assert_eq!(dead_letters(&bed, large.len()).await.len(), large.len());
    pipeline.shutdown().await.expect("a clean stop");
    check_clean(&bed, &history).await;
}

#[actix::test]
async fn by_policy_the_relay_stops_and_says_why() {
    let mut bed = Bed::shared("stop").await;
    bed.config.dead_letter.policy = RefusalPolicy::Stop;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let (_, large) = too_large(&bed, &mut bed.client().await).await;
    let end = bed.wal_end().await;
    let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("it ends");
    let error = ended.expect_err("with an error");
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    assert!(!large.is_empty() && bed.slot().await.0 < end);
}

#[actix::test]
async fn by_policy_the_topic_waits_until_the_record_is_taken() {
    let mut bed = Bed::shared("block").await;
    bed.config.dead_letter.policy = RefusalPolicy::Block;
    bed.config.pipeline.restart_backoff_max = Duration::from_millis(500);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let (mut history, large) = too_large(&bed, &mut client).await;
    // Another topic goes on meanwhile.
    let other = Workload { aggregate_prefix: "other", ..Workload::new(&bed.name, 100) };
    let other = other.emit(&mut client).await;
    bed.delivered(&other).await;
    assert!(bed.slot().await.0 < bed.wal_end().await);

    let topic = format!("{}.thing", bed.name);
    bed.set_limit(&topic, "2000000").await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    large.iter().for_each(|event| history.committed(event));
    check_clean(&bed, &history).await;
}
