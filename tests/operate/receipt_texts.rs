//! Receipts of texts of any length and of many events at once: what a store refuses would make the
//! relay wait for ever.

use std::time::Duration;

use factlib::{
    config::{DeliveryMode, ReceiptStore, RefusalPolicy, Route},
    emit::Fact,
    proto::OutboxEvent,
    receipts::{Fate, Receipt, ReceiptReader},
    testing::create_topic,
};
use prost::Message;
use slog::{Discard, Logger, o};

use crate::support::{Bed, records::emit};

/// Nothing that compression makes small.
fn noise(bytes: usize) -> String {
    let ids = (0..bytes.div_ceil(36)).map(|_| uuid::Uuid::new_v4().to_string());
    ids.collect::<String>()[..bytes].to_owned()
}

async fn emit_event(bed: &Bed<'_>, event: &OutboxEvent) {
    let sql = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    let client = bed.client().await;
    client.execute(sql, &[&bed.name, &event.encode_to_vec()]).await.expect("a message is emitted");
}

async fn receipts(bed: &Bed<'_>, event_id: &str) -> Vec<Receipt> {
    let reader = ReceiptReader::open(&bed.config, &Logger::root(Discard, o!())).unwrap().unwrap();
    reader.find(event_id, None).await.expect("readable")
}

async fn long_texts_do_not_stop_the_relay(store: ReceiptStore, mode: DeliveryMode) {
    let mut bed = Bed::shared("long_texts").await;
    bed.config.receipts.store = store;
    bed.config.delivery.mode = mode;
    let event = |id: String, kind: String| OutboxEvent {
        id,
        aggregate_type: kind,
        aggregate_id: format!("a\0{}", noise(20_000)),
        event_type: "happened".into(),
        ..Default::default()
    };
    let delivered = event(format!("ü\0{}", noise(20_000)), "user".into());
    // No topic can have this name.
    let parked = event(noise(300_000), format!("b\0{}", noise(20_000)));
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    emit_event(&bed, &delivered).await;
    emit_event(&bed, &parked).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let [receipt] = &receipts(&bed, &delivered.id).await[..] else { panic!("one receipt") };
    let Fate::Delivered(record) = &receipt.fate else { panic!("{receipt:?}") };
    assert_eq!(record.topic, format!("{}.user", bed.name));
    assert!(receipt.event_id.starts_with("ü\u{fffd}") && receipt.event_id.len() <= 258);
    let [receipt] = &receipts(&bed, &parked.id).await[..] else { panic!("one receipt") };
    let Fate::Parked { error, .. } = &receipt.fate else { panic!("{receipt:?}") };
    assert!(error.starts_with("aggregate type \"b\\0"), "{error}");
    assert!(error.len() < 2_000, "{}", error.len());
    let aggregate_id = receipt.aggregate_id.as_ref().expect("its aggregate");
    assert!(parked.aggregate_id[2..].starts_with(&aggregate_id[4..]), "{aggregate_id}");
    assert!(receipts(&bed, &parked.id[..200]).await.is_empty(), "another id");
}

#[actix::test]
async fn long_texts_do_not_stop_the_table_of_receipts() {
    long_texts_do_not_stop_the_relay(ReceiptStore::Table, DeliveryMode::AtLeastOnce).await;
}

#[actix::test]
async fn long_texts_do_not_stop_the_topic_of_receipts() {
    long_texts_do_not_stop_the_relay(ReceiptStore::Topic, DeliveryMode::AtLeastOnce).await;
    long_texts_do_not_stop_the_relay(ReceiptStore::Topic, DeliveryMode::ExactlyOnce).await;
}

/// The topic takes small records only, at first or from some time on.
#[actix::test]
async fn receipts_fit_a_topic_that_takes_small_records() {
    for mode in [DeliveryMode::AtLeastOnce, DeliveryMode::ExactlyOnce] {
        for is_lowered in [false, true] {
            let mut bed = Bed::shared("small_receipts").await;
            bed.config.receipts.store = ReceiptStore::Topic;
            bed.config.delivery.mode = mode;
            bed.config.pipeline.restart_backoff = Duration::from_millis(50);
            bed.config.kafka.topics.partitions = Some(1);
            let topic = bed.config.receipt_topic();
            if !is_lowered {
                let small = [("max.message.bytes", "1500")];
                let admin = bed.kafka.admin_bootstrap();
                create_topic(&admin, &topic, 1, &small).await.expect("a topic");
            }
            let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
            if is_lowered {
                bed.set_limit(&topic, "1500").await;
            }
            let facts = (0..1_000).map(|n| Fact::new("user", n.to_string(), "changed"));
            let events = emit(&bed, &facts.collect::<Vec<_>>()).await;
            bed.confirmed(bed.wal_end().await).await;
            pipeline.shutdown().await.expect("a clean stop");
            for event in events.iter().step_by(97) {
                let found = receipts(&bed, &event.id).await;
                assert_eq!(found.len(), 1, "{mode:?} {is_lowered} {found:?}");
            }
        }
    }
}

/// Both topics of an event refuse it: it has a letter and a receipt for each.
#[actix::test]
async fn an_event_that_two_topics_refuse_has_two_receipts() {
    for store in [ReceiptStore::Table, ReceiptStore::Topic] {
        let mut bed = Bed::shared("refused_twice").await;
        bed.config.receipts.store = store;
        bed.config.dead_letter.policy = RefusalPolicy::DeadLetter;
        let topics = ["a", "b"].map(|name| format!("{}.{name}", bed.name));
        bed.config.route = vec![Route::of("user").to(&topics[0]).to(&topics[1])];
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        // Kafka takes no time that is more than an hour ahead, if nobody says otherwise.
        let fact = Fact::new("user", "u1", "changed").timestamp_ms(4_000_000_000_000);
        let [event] = &emit(&bed, &[fact]).await[..] else { panic!("one event") };
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        let mut intended: Vec<_> = receipts(&bed, &event.id)
            .await
            .into_iter()
            .map(|receipt| match receipt.fate {
                Fate::Parked { intended_topic, .. } => intended_topic.expect("it is known"),
                other => panic!("{other:?}"),
            })
            .collect();
        intended.sort_unstable();
        assert_eq!(intended, topics);
    }
}
