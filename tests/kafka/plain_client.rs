//! `kafka.client = "kafka"` on the last Kafka that takes its requests, and on one that doesn't.

use std::time::Duration;

use factlib::{
    ErrorKind,
    config::{Compression, KafkaClient},
    emit::Fact,
    testing::{CollectedLogs, KafkaServer, create_topic, shared_postgres},
};
use prost::Message;

use crate::support::{
    Bed, Workload,
    bed::{LIMIT, PARTITIONS},
    emitters::Emitters,
};

/// A bed whose pipeline speaks to this Kafka by the crate `kafka`.
async fn bed<'a>(kafka: &'a KafkaServer, name: &str) -> Bed<'a> {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let mut bed = Bed::on(postgres, kafka, name).await;
    bed.config.kafka.client = KafkaClient::Kafka;
    bed.config.kafka.compression = Compression::Gzip;
    bed.config.kafka.topics.create = false;
    bed
}

async fn old_kafka() -> KafkaServer {
    KafkaServer::builder().before_4().start().await.expect("Kafka starts")
}

#[actix::test]
async fn nothing_is_lost_or_overtaken_while_the_broker_is_killed_and_comes_back() {
    let kafka = old_kafka().await;
    let bed = bed(&kafka, "plain").await;
    let workload = Workload { facts: 4_000, ..Workload::new(&bed.name, 0) };
    for kind in &workload.aggregate_types {
        let topic = format!("{}.{kind}", bed.name);
        create_topic(&kafka.bootstrap(), &topic, PARTITIONS, &[]).await.expect("a topic");
    }
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let emitters = Emitters::start(&bed, &workload, 3, 2_000).await;
    emitters.emitted(2_000).await;
    kafka.kill(1).await.expect("killed");
    let trouble = logs.await_line(|line| line.message.contains("reports trouble"), LIMIT);
    trouble.await.expect("the outage is visible");
    assert!(pipeline.status().kafka_error.is_some());
    kafka.start_again(1).await.expect("the broker is back");
    let history = emitters.finished().await;
    bed.delivered(&history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.delivered, 12_000);
    // The crate knows no producer ids: what was under way may be there twice, and nothing else.
    assert!(report.duplicates < 6_000, "{report}");
}

#[actix::test]
async fn what_no_topic_takes_is_parked_in_the_table_and_the_rest_goes_on() {
    let kafka = old_kafka().await;
    let bed = bed(&kafka, "parked").await;
    let topic = format!("{}.user", bed.name);
    // A limit below that of a run: what is too large has to be found among the others.
    let limit = [("max.message.bytes", "20000")];
    create_topic(&kafka.bootstrap(), &topic, PARTITIONS, &limit).await.expect("a topic");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction");
    let noise = || (0..60_000).map(|_| char::from(rand::random_range(b'!'..b'~'))).collect();
    let large: String = noise();
    for (id, fact) in [
        ("1", Fact::new("user", "u1", "small")),
        ("2", Fact::new("user", "u1", "large").metadata("noise", &large)),
        ("3", Fact::new("user", "u1", "timed").timestamp_ms(7)),
        ("4", Fact::new("user", "u1", "misplaced").partition(6)),
        ("5", Fact::new("user", "u1", "last")),
    ] {
        let event = fact.metadata("number", id).to_event().expect("valid").encode_to_vec();
        let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
        transaction.execute(emit, &[&bed.name, &event]).await.expect("emitted");
    }
    let homeless = Fact::new("order", "o1", "homeless").to_event().expect("valid");
    let emit = "SELECT pg_logical_emit_message(true, $1, $2::bytea)";
    transaction.execute(emit, &[&bed.name, &homeless.encode_to_vec()]).await.expect("emitted");
    transaction.commit().await.expect("committed");

    // A topic that is missing is waited for, and said.
    let topic = format!("{}.order", bed.name);
    let said = async {
        loop {
            let status = pipeline.status();
            let order = status.topics.get(&topic).and_then(|topic| topic.last_error.clone());
            match order {
                Some(error) => break error,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let said = tokio::time::timeout(LIMIT, said).await.expect("the topic's error");
    assert!(said.contains(&format!("topic {topic} does not exist")), "{said}");
    create_topic(&kafka.bootstrap(), &topic, PARTITIONS, &[]).await.expect("a topic");
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");

    let mut types = Vec::new();
    bed.each_record(|record| {
        let event = factlib::proto::OutboxEvent::decode(record.value.expect("a value"));
        types.push(event.expect("an event").event_type);
    })
    .await;
    types.sort();
    assert_eq!(types, ["homeless", "last", "small"]);
    let query = "SELECT error FROM factlib.dead_letters WHERE slot = $1 ORDER BY lsn";
    let rows = client.query(query, &[&bed.name]).await.expect("the table");
    let errors: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let why = ["MessageSizeTooLarge", "sends no time", "no partition 6"];
    assert_eq!(errors.len(), why.len(), "{errors:?}");
    for (error, why) in errors.iter().zip(why) {
        assert!(error.contains(why), "{error}");
    }
}

#[actix::test]
async fn brokers_of_kafka_4_are_refused_with_the_remedy() {
    let kafka = factlib::testing::shared_kafka().await.expect("Kafka starts");
    let bed = bed(kafka, "too_new").await;
    let error = bed.pipeline().start().await.expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::KafkaRefused);
    let line = error.to_string();
    assert!(line.contains("4.0 or later") && line.contains("leave kafka.client out"), "{line}");
}
