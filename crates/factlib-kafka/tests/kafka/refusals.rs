//! Records and topics that brokers refuse.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use factlib_kafka::{
    Client, Compression, PushError, Receipt, Refusal, Topic, record_batch::Record, sasl::Plain,
};
use factlib_testing::{KafkaServer, TopicRight, create_topic, grant, read_topic, shared_kafka};

use crate::numbered::{Ends, Numbers, assert_exactly, eventually, now_ms, push, settings};

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_records_two_are_refused_and_the_others_arrive_once() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let limit = [("message.timestamp.before.max.ms", "3600000")];
    create_topic(&bootstrap, "rows", 3, &limit).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "rows").await;
    let receipt = Arc::clone(&numbers.ends) as Arc<dyn Receipt>;
    let mut sending = numbers.topic.begin();
    for row in 0..20_u32 {
        let (key, value) = (format!("aggregate-{}", row % 4), row.to_string());
        let is_bad = row == 10 || row == 15;
        let record = Record {
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp_ms: if is_bad { i64::from(row) * 100 } else { now_ms() },
        };
        sending.push(&record, None, &receipt, row).expect("a partition");
    }
    drop(sending);
    numbers.sent = 20;
    numbers.ended().await;
    let refused = numbers.ends.refused();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [10, 15]);
    for (row, refusal) in refused {
        let said = refusal.to_string();
        let own = format!("INVALID_TIMESTAMP: Timestamp {} of message", row * 100);
        assert!(said.starts_with(&own), "{said}");
    }
    assert_exactly(&bootstrap, "rows", (0..20).filter(|row| ![10, 15].contains(row))).await;
}

/// Lets nothing follow a refused record.
#[derive(Default)]
struct StopsAtRefusals {
    ends: Arc<Ends>,
    not_sent: Mutex<BTreeSet<u32>>,
}

impl Receipt for StopsAtRefusals {
    fn acknowledged(&self, indexes: &[u32]) {
        self.ends.acknowledged(indexes);
    }

    fn refused(&self, index: u32, refusal: &Refusal) {
        Receipt::refused(&*self.ends, index, refusal);
    }

    fn stops(&self, _: u32, _: &Refusal) -> bool {
        true
    }

    fn not_sent(&self, indexes: &[u32]) {
        self.not_sent.lock().expect("no panic").extend(indexes);
    }
}

/// Pushes rows of four aggregates, of which 10 and 15 have an impossible time.
fn push_rows(
    topic: &Topic,
    rows: impl IntoIterator<Item = u32>,
    ends: &Arc<StopsAtRefusals>,
) -> Result<(), PushError> {
    let receipt = Arc::clone(ends) as Arc<dyn Receipt>;
    let mut sending = topic.begin();
    for row in rows {
        let (key, value) = (format!("aggregate-{}", row % 4), row.to_string());
        let record = Record {
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp_ms: if row == 10 || row == 15 { i64::from(row) } else { now_ms() },
        };
        sending.push(&record, None, &receipt, row)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_refused_record_that_stops_its_partition() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let limit = [("message.timestamp.before.max.ms", "3600000")];
    create_topic(&bootstrap, "stopped", 1, &limit).await.expect("a topic");
    let mut numbers = Numbers::to(&bootstrap, "stopped").await;
    let client = Client::new(settings(&bootstrap));
    let mut rows: Vec<u32> = (0..20).collect();
    for (bad, is_corrected) in [(Some(10), false), (Some(10), true), (None, true)] {
        let ends = Arc::new(StopsAtRefusals::default());
        // In several batches, so that some are behind the one with the refused record.
        for part in rows.chunks(3) {
            match push_rows(&numbers.topic, part.iter().copied(), &ends) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, PushError::Closed);
                    ends.not_sent(part);
                }
            }
            tokio::task::yield_now().await;
        }
        let left = |bad: u32| rows.iter().copied().filter(move |row| *row > bad);
        let not_sent = |ends: &StopsAtRefusals| ends.not_sent.lock().expect("no panic").clone();
        match bad {
            Some(bad) => {
                let behind: BTreeSet<u32> = left(bad).collect();
                eventually("all have a result", || not_sent(&ends) == behind).await;
                ends.ends.reach(rows.len() - behind.len()).await;
                assert_eq!(ends.ends.refused().keys().copied().collect::<Vec<_>>(), [bad]);
                assert!(numbers.topic.is_closed());
                rows = std::iter::once(bad).chain(behind).collect();
                assert_exactly(&bootstrap, "stopped", 0..bad).await;
            }
            None => {
                ends.ends.reach(rows.len()).await;
                assert!(not_sent(&ends).is_empty() && ends.ends.refused().is_empty());
            }
        }
        if is_corrected {
            let name = "message.timestamp.before.max.ms";
            client.set_topic_setting("stopped", name, "9000000000000").await.expect("a setting");
        }
        numbers.topic = numbers.producer.topic("stopped").await.expect("a topic");
    }
    assert_exactly(&bootstrap, "stopped", 0..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_too_large_are_cut_and_one_record_alone_is_refused() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    let limit = [("max.message.bytes", "20000")];
    create_topic(&bootstrap, "small", 2, &limit).await.expect("a topic");
    let mut settings = settings(&bootstrap);
    settings.compression = Compression::None;
    let mut numbers = Numbers::with(settings, "small").await;
    numbers.send(1_000);
    let large = vec![b'x'; 50_000];
    let receipt = Arc::clone(&numbers.ends) as Arc<dyn Receipt>;
    let record =
        Record { key: Some(b"key-1"), value: Some(&large), headers: &[], timestamp_ms: now_ms() };
    numbers.topic.begin().push(&record, None, &receipt, 1_000).expect("a partition");
    numbers.sent += 1;
    numbers.send(1_000);
    numbers.ended().await;
    let refused = numbers.ends.refused();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [1_000]);
    assert!(refused[&1_000].to_string().starts_with("MESSAGE_TOO_LARGE"), "{refused:?}");
    assert_exactly(&bootstrap, "small", (0..numbers.sent).filter(|n| *n != 1_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_written_waits_and_others_flow() {
    let builder = KafkaServer::builder().sasl_plain_users([("relay", "secret")]).authorizer();
    let kafka = builder.start().await.expect("a Kafka");
    let admin = kafka.admin_bootstrap();
    for topic in ["open", "denied"] {
        create_topic(&admin, topic, 3, &[]).await.expect("a topic");
    }
    let both = [TopicRight::Describe, TopicRight::Write];
    grant(&admin, "relay", "open", &both).await.expect("a right");
    grant(&admin, "relay", "denied", &both[..1]).await.expect("a right");
    let mut settings = settings(&kafka.bootstrap());
    settings.login = Some(Arc::new(Plain::new("relay", "secret")));
    let mut denied = Numbers::with(settings, "denied").await;
    let open = denied.producer.topic("open").await.expect("a topic");
    denied.send(100);
    let text = "Some(\"denied\"): partition 0 of topic denied: TOPIC_AUTHORIZATION_FAILED";
    denied.heard.has_trouble(text).await;
    let (ends, began) = (Arc::default(), Instant::now());
    push(&open, 0..100, &ends);
    ends.reach(100).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(denied.ends.count(), 0);
    assert_eq!(denied.heard.count("recovered denied"), 0);
    grant(&admin, "relay", "denied", &both).await.expect("a right");
    denied.ended().await;
    denied.heard.says("recovered denied").await;
    assert_exactly(&admin, "denied", 0..100).await;
    assert_eq!(read_topic(&admin, "open").await.expect("records").len(), 100);
}
