//! Sends numbered records, waits for their results, and reads them back.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use factlib_kafka::{
    Appended, Client, Producer, Receipt, Refusal, Settings, Topic, Unobserved, client::Isolation,
    record_batch::Record,
};
use factlib_testing::fake_broker::FakeCluster;
use tokio::{sync::watch, time::timeout};

/// Longer than any wait that a test is about.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Settings with short pauses.
pub fn settings(cluster: &FakeCluster) -> Settings {
    let mut settings = Settings::new(cluster.bootstrap().split(',').map(str::to_owned).collect());
    settings.backoff = Duration::from_millis(5);
    settings.backoff_max = Duration::from_millis(20);
    settings.request_timeout = Duration::from_secs(2);
    settings
}

/// Results of records.
pub struct Results {
    count: watch::Sender<usize>,
    refused: Mutex<BTreeMap<u32, Refusal>>,
    /// Numbers by partition and offset.
    places: Mutex<BTreeMap<(i32, i64), u32>>,
}

impl Default for Results {
    fn default() -> Self {
        Results {
            count: watch::Sender::new(0),
            refused: Mutex::default(),
            places: Mutex::default(),
        }
    }
}

impl Receipt for Results {
    fn acknowledged(&self, indexes: &[u32]) {
        self.count.send_modify(|count| *count += indexes.len());
    }

    fn appended(&self, indexes: &[u32], place: Appended) {
        let offsets = place.offset.expect("the fake broker forgets none")..;
        let places = offsets.map(|offset| (place.partition, offset)).zip(indexes.iter().copied());
        self.places.lock().expect("no panic").extend(places);
        self.acknowledged(indexes);
    }

    fn refused(&self, index: u32, refusal: &Refusal) {
        self.refused.lock().expect("no panic").insert(index, refusal.clone());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Results {
    /// Waits for this number of results.
    pub async fn reach(&self, records: usize) {
        let mut count = self.count.subscribe();
        let reached = timeout(LIMIT, count.wait_for(|count| *count >= records)).await;
        reached.unwrap_or_else(|_| panic!("{} of {records}", self.count())).expect("ours");
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub fn refused(&self) -> BTreeMap<u32, Refusal> {
        self.refused.lock().expect("no panic").clone()
    }
}

/// Pushes records whose values are their numbers, each with its number as key.
pub fn push(topic: &Topic, numbers: Range<u32>, results: &Arc<Results>) {
    let receipt: Arc<dyn Receipt> = Arc::clone(results) as _;
    let mut sending = topic.begin();
    for number in numbers {
        let (key, value) = (number.to_string(), number.to_be_bytes());
        let record = Record {
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp_ms: 1_000 + i64::from(number),
        };
        sending.push(&record, None, &receipt, number).expect("an open topic");
    }
}

/// A producer and one topic.
pub struct Sender {
    pub topic: Topic,
    pub results: Arc<Results>,
    _producer: Producer,
}

impl Sender {
    pub async fn to(cluster: &FakeCluster, topic: &str) -> Self {
        let (producer, driver) = Producer::new(settings(cluster), Arc::new(Unobserved));
        tokio::spawn(driver);
        let topic = timeout(LIMIT, producer.topic(topic)).await.expect("in time");
        Sender { topic: topic.expect("a topic"), results: Arc::default(), _producer: producer }
    }

    /// Pushes records and waits for their results.
    pub async fn send(&self, numbers: Range<u32>) {
        let all = self.results.count() + numbers.len();
        push(&self.topic, numbers, &self.results);
        self.results.reach(all).await;
    }
}

/// Asserts that each number is where the producer was told.
pub async fn assert_places(cluster: &FakeCluster, topic: &str, results: &Results) {
    let read = read(cluster, topic, Isolation::ReadCommitted).await;
    let found = read.into_iter().zip(0..).flat_map(|(numbers, partition)| {
        numbers.into_iter().zip(0..).map(move |(number, offset)| ((partition, offset), number))
    });
    assert_eq!(*results.places.lock().expect("no panic"), found.collect());
}

/// Reads the numbers of a topic, partition by partition.
pub async fn read(cluster: &FakeCluster, topic: &str, isolation: Isolation) -> Vec<Vec<u32>> {
    let client = Client::new(settings(cluster));
    let partitions = client.partitions(topic).await.expect("metadata").expect("a topic");
    let mut all = Vec::new();
    for place in partitions {
        let range = client.offsets(topic, place.partition, isolation).await.expect("offsets");
        let (mut offset, mut numbers) = (range.start, Vec::new());
        while offset < range.end {
            let fetching = client.fetch(topic, place.partition, offset, isolation, LIMIT);
            let fetched = fetching.await.expect("records");
            let values = fetched.records.iter().filter_map(|record| record.value.as_deref());
            numbers.extend(values.map(|v| u32::from_be_bytes(v.try_into().expect("a number"))));
            offset = fetched.next_offset;
        }
        all.push(numbers);
    }
    all
}

/// Asserts that the topic has these numbers once each, and in order in each partition.
pub async fn assert_exactly(cluster: &FakeCluster, topic: &str, numbers: Range<u32>) {
    let partitions = read(cluster, topic, Isolation::ReadCommitted).await;
    for partition in &partitions {
        assert!(partition.is_sorted(), "{partition:?}");
    }
    let mut all = partitions.concat();
    all.sort_unstable();
    assert_eq!(all, numbers.collect::<Vec<_>>());
}
