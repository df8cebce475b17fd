//! Creates topics of a real Kafka, and reads what was sent to them.

use std::{sync::Arc, time::Duration};

use factlib_kafka::{
    Producer, Receipt, Refusal, Settings, Topic, Unobserved, record_batch::Record,
};
use factlib_testing::{create_topic, read_topic, shared_kafka, topic_names, wait_for_count};

const LIMIT: Duration = Duration::from_secs(60);

/// Ignores results: the records are read back.
struct Unread;

impl Receipt for Unread {
    fn acknowledged(&self, _: &[u32]) {}

    fn refused(&self, index: u32, refusal: &Refusal) {
        panic!("record {index}: {refusal}");
    }
}

fn push(topic: &Topic, keys: &[&str]) {
    let receipt: Arc<dyn Receipt> = Arc::new(Unread);
    let mut sending = topic.begin();
    for (index, key) in (0..).zip(keys) {
        let record = Record {
            key: Some(key.as_bytes()),
            value: None,
            headers: &[("kind", Some(b"test"))],
            timestamp_ms: 1_000,
        };
        sending.push(&record, None, &receipt, index).expect("an open topic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_back_whole_and_counted() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "letters", 3, &[("retention.ms", "-1")]).await.expect("a topic");
    let again = create_topic(&bootstrap, "letters", 3, &[]).await.expect_err("it exists");
    assert!(again.to_string().contains("cannot create topic letters"), "{again}");
    let names = topic_names(&bootstrap).await.expect("names");
    assert!(names.contains(&"letters".to_owned()), "{names:?}");
    assert_eq!(read_topic(&bootstrap, "letters").await.expect("nothing"), []);

    let (producer, driver) =
        Producer::new(Settings::new(vec![bootstrap.clone()]), Arc::new(Unobserved));
    tokio::spawn(driver);
    let topic = producer.topic("letters").await.expect("a topic");
    push(&topic, &["a", "b", "c", "a"]);
    let records = wait_for_count(&bootstrap, &["letters"], 4, LIMIT).await.expect("in time");
    assert_eq!(records.len(), 4);
    let mut records = read_topic(&bootstrap, "letters").await.expect("records");
    records.sort_by_key(|record| (record.key.clone(), record.offset));
    let keys: Vec<_> = records.iter().filter_map(|record| record.key.as_deref()).collect();
    assert_eq!(keys, [b"a", b"a", b"b", b"c"]);
    let record = &records[0];
    assert_eq!((record.timestamp_ms, &record.value), (Some(1_000), &None));
    assert_eq!(record.header("kind").map(|value| &value[..]), Some(&b"test"[..]));
    let missing = wait_for_count(&bootstrap, &["letters"], 5, Duration::from_millis(100)).await;
    let missing = missing.expect_err("there is no fifth").to_string();
    assert!(missing.contains("4 of 5 records in letters"), "{missing}");
}
