//! Rows of outbox tables: routed like messages, and their records theirs where no route
//! says otherwise.

use factlib::{
    config::{Format, OutboxPreset, OutboxTable},
    dead_letter::{DeadLetterTopic, Ledger, LetterFilter, Redriver},
    testing::create_topic,
};
use slog::{Discard, Logger, o};

use super::{header, records, route};
use crate::support::Bed;

const TABLE: &str = "CREATE TABLE o (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregatetype text, aggregateid text, type text, payload text, tenant text)";

async fn with_table(name: &str) -> Bed<'static> {
    let mut bed = Bed::shared(name).await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    let mut table = OutboxTable::new("o", OutboxPreset::Debezium);
    table.topic_prefix = Some(format!("{}.outbox.event", bed.name));
    table.headers = vec!["tenant".into()];
    bed.config.outbox = vec![table];
    bed
}

async fn insert(bed: &Bed<'_>, aggregate_type: &str, payload: &str) {
    let insert = "INSERT INTO o (aggregatetype, aggregateid, type, payload, tenant)
        VALUES ($1, '7', 'Changed', $2, 'acme')";
    bed.client().await.execute(insert, &[&aggregate_type, &payload]).await.expect("a row");
}

#[actix::test]
async fn a_route_overrides_the_topic_and_only_what_it_names_of_the_record() {
    let mut bed = with_table("rows_routed").await;
    bed.config.kafka.format = Format::CloudEvents;
    bed.config.route = vec![
        route("Order", &["{prefix}.orders"]),
        route("Invoice", &["{prefix}.invoices"]).format(Format::Json),
    ];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    for kind in ["Order", "Invoice", "User"] {
        insert(&bed, kind, r#"{"a": 1}"#).await;
    }
    let topic = |name: &str| format!("{}.outbox.event.{name}", bed.name);
    for name in ["orders", "User"] {
        let sent = records(&bed, &topic(name), 1).await.remove(0);
        assert_eq!(sent.value.as_deref(), Some(&br#"{"a": 1}"#[..]));
        let names: Vec<_> = sent.headers.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(names, ["id", "tenant"], "Debezium's, whatever the format of messages");
    }
    let sent = records(&bed, &topic("invoices"), 1).await.remove(0);
    let value: serde_json::Value =
        serde_json::from_slice(sent.value.as_deref().expect("a value")).expect("JSON");
    assert_eq!((&value["aggregate_id"], &value["payload"]["a"]), (&"7".into(), &1.into()));
    assert_eq!(header(&sent, "tenant"), "acme");
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_payload_that_was_refused_is_redriven_by_its_route() {
    let mut bed = with_table("rows_redriven").await;
    let orders = format!("{}.outbox.event.orders", bed.name);
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bed.kafka.admin_bootstrap(), &orders, 1, &limit).await.expect("a topic");
    bed.config.route = vec![
        route("Order", &["{prefix}.orders"])
            .key("{aggregate_type}-{aggregate_id}")
            .format(Format::Raw),
    ];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let large: String =
        (0..20_000u32).map(|i| format!("{:x}", i.wrapping_mul(2_654_435_761))).collect();
    insert(&bed, "Order", &large).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    bed.set_limit(&orders, "2000000").await;
    let log = Logger::root(Discard, o!());
    let mut ledger = Ledger::open(&bed.config, &log).await.expect("a ledger");
    let mut redriver = Redriver::builder(&bed.config, &log).build().expect("a redriver");
    let topic = DeadLetterTopic::open(&bed.config, &log).await.expect("Kafka is there");
    let mut topic = topic.expect("the topic is there");
    let mut letters = topic.letters(LetterFilter::default());
    let letter = letters.next().await.expect("Kafka is there").expect("a letter");
    let resent = redriver.resent(&letter, &ledger).await.expect("it has a route");
    redriver.send(&letter, &resent, &mut ledger).await.expect("sent");
    let sent = records(&bed, &orders, 1).await.remove(0);
    assert_eq!(sent.value.as_deref(), Some(large.as_bytes()));
    assert_eq!(sent.key.as_deref(), Some(&b"Order-7"[..]));
    assert_eq!((header(&sent, "event_type"), header(&sent, "tenant")), ("Changed", "acme"));
}
