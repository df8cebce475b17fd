//! A service waits until its event is in Kafka.

use std::time::Duration;

use factlib::{
    config::{ReceiptStore, Route},
    emit::{Emitter, ErrorKind, Fact, delivered},
    testing::read_topic,
};

use crate::support::{Bed, bed::LIMIT};

#[actix::test]
async fn a_service_waits_until_its_event_is_delivered() {
    let mut bed = Bed::shared("awaited").await;
    let (emitter, mut client) = (Emitter::new(&bed.name), bed.client().await);
    let missing = delivered(&client, uuid::Uuid::now_v7(), LIMIT).await.expect_err("no table");
    assert_eq!(missing.kind(), ErrorKind::PostgresRefused);
    let remedy = "let the relay keep receipts there: receipts.store = \"table\"";
    assert_eq!(missing.advice(), Some(remedy));

    bed.config.receipts.store = ReceiptStore::Table;
    bed.config.route = vec![Route::of("noise").dropped()];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let tx = client.transaction().await.expect("a transaction");
    let event_id = emitter.emit(&tx, Fact::new("user", "u1", "user.created")).await.expect("sent");
    let dropped = emitter.emit(&tx, Fact::new("noise", "1", "made")).await.expect("sent");
    let rolled_back = uuid::Uuid::now_v7();
    tx.commit().await.expect("committed");
    let receipt = delivered(&client, event_id, LIMIT).await.expect("a receipt");
    let topic = format!("{}.user", bed.name);
    let records = read_topic(&bed.kafka.admin_bootstrap(), &topic).await.expect("readable");
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&*receipt.topic, receipt.partition), (&*topic, record.partition));
    assert_eq!(receipt.offset, Some(record.offset));
    let error = delivered(&client, dropped, LIMIT).await.expect_err("dropped");
    assert_eq!(error.kind(), ErrorKind::NotDelivered);
    assert_eq!(error.to_string(), format!("route[0] of the relay drops event {dropped}"));
    let error = delivered(&client, rolled_back, Duration::from_millis(20)).await;
    let error = error.expect_err("never emitted").to_string();
    let text = "has no receipt after 20ms (is its transaction committed, and does the relay run?)";
    assert!(error.ends_with(text), "{error}");
    pipeline.shutdown().await.expect("a clean stop");
}
