//! Held against the history: nothing lost, nothing rolled back, in order.

use factlib::{
    config::Source,
    testing::{KafkaServer, shared_postgres},
};
use prost::Message;

use crate::support::{
    Bed, Workload,
    rows::{EVENTS, event, insert, insert_all, records, with_table},
};

#[actix::test]
async fn committed_rows_arrive_once_and_in_order_through_a_killed_broker() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let kafka = KafkaServer::start().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, &kafka, "tables").await;
    bed.config.postgres.source = Some(Source::Tables);
    let mut client = bed.client().await;
    client.batch_execute(EVENTS).await.expect("the table");

    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let workload =
        Workload { aggregates: 200, transaction: 1..=20, ..Workload::new(&bed.name, 1_500) };
    let mut history = insert_all(&workload, &mut client).await;
    assert!(history.rolled_back_len() > 50);
    bed.delivered(&history).await;
    kafka.kill(1).await.expect("killed");
    let during = Workload { seed: 2, aggregate_prefix: "b", ..workload.clone() };
    history.merge(insert_all(&during, &mut client).await);
    kafka.start_again(1).await.expect("it is back");
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let confirmed = bed.slot().await.0;
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");

    // What is inserted meanwhile waits; what was delivered is not sent again.
    let last = Workload { seed: 3, aggregate_prefix: "c", facts: 200, ..workload };
    history.merge(insert_all(&last, &mut client).await);
    assert_eq!(bed.slot().await.0, confirmed);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts again");
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_row_and_a_message_of_one_event_are_delivered_once_whichever_is_read() {
    for source in [Source::Tables, Source::Messages] {
        let mut bed = with_table("archive").await;
        bed.config.postgres.source = Some(source);
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let mut client = bed.client().await;
        let events = ["a", "b", "c"].map(event);
        for event in &events {
            let transaction = client.transaction().await.expect("a transaction");
            insert(&transaction, event).await;
            let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
            let bytes = event.encode_to_vec();
            transaction.execute(emit, &[&bed.name, &bytes]).await.expect("a message");
            transaction.commit().await.expect("a commit");
        }
        let topic = format!("{}.user", bed.name);
        records(&bed, &topic, 3).await;
        bed.confirmed(bed.wal_end().await).await;
        pipeline.shutdown().await.expect("a clean stop");
        let mut values: Vec<_> =
            records(&bed, &topic, 3).await.into_iter().filter_map(|record| record.value).collect();
        let mut expected: Vec<_> = events.iter().map(|event| event.encode_to_vec()).collect();
        values.sort();
        expected.sort();
        assert_eq!(values, expected, "{source:?}: the same bytes from either");
    }
}
