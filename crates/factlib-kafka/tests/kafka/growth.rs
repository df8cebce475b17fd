//! Partitions that are added to an open topic: records that were mapped to the former ones end first.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use factlib_kafka::{
    AddedPartitions, Client, DrainHold, Observer, Producer, Settings, Topic, Transactional,
    TransactionalProducer, partitioner,
};
use factlib_testing::{
    create_topic,
    fake_broker::{Api, Code, FakeCluster},
    read_topic, shared_kafka,
};
use tokio::time::sleep;

use crate::numbered::{Ends, LIMIT, assert_exactly, eventually, numbers_in, push, settings};

/// Keeps what holds records back, until a test lets them go.
#[derive(Default)]
struct Keeper {
    grown: Mutex<Vec<(usize, usize)>>,
    drained: Mutex<Vec<(usize, usize)>>,
    held: Mutex<Vec<DrainHold>>,
}

impl Observer for Keeper {
    fn grown(&self, _: &str, from: usize, to: usize) {
        self.grown.lock().expect("no panic").push((from, to));
    }

    fn drained(&self, _: &str, from: usize, to: usize, hold: DrainHold) {
        self.drained.lock().expect("no panic").push((from, to));
        self.held.lock().expect("no panic").push(hold);
    }
}

impl Keeper {
    async fn grows(&self) {
        eventually("it grows", || !self.grown.lock().expect("no panic").is_empty()).await;
    }

    async fn drains(&self) {
        eventually("it is drained", || self.is_drained()).await;
    }

    fn is_drained(&self) -> bool {
        !self.drained.lock().expect("no panic").is_empty()
    }

    fn let_go(&self) {
        self.held.lock().expect("no panic").clear();
    }
}

fn draining(bootstrap: &str, how: AddedPartitions) -> Settings {
    let mut settings = settings(bootstrap);
    settings.metadata_max_age = Duration::from_millis(50);
    settings.added_partitions = how;
    settings
}

async fn producer(settings: Settings, topic: &str) -> (Topic, Arc<Keeper>, Producer) {
    let keeper = Arc::new(Keeper::default());
    let (producer, driver) = Producer::new(settings, Arc::clone(&keeper) as _);
    tokio::spawn(driver);
    (producer.topic(topic).await.expect("a topic"), keeper, producer)
}

/// Checks that records before the seam were mapped to one number of partitions, and the others to
/// another one.
async fn assert_mapped(bootstrap: &str, topic: &str, seam: u32, counts: (i32, i32)) {
    for record in read_topic(bootstrap, topic).await.expect("records") {
        let (key, value) = (record.key.expect("a key"), record.value.expect("a value"));
        let number: u32 = std::str::from_utf8(&value).expect("text").parse().expect("a number");
        let count = if number >= seam { counts.1 } else { counts.0 };
        assert_eq!(record.partition, partitioner::of_key(&key, count), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn later_records_wait_until_earlier_ones_have_ended_and_the_observer_lets_go() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("drained", 2).expect("a topic");
    let how = draining(&cluster.bootstrap(), AddedPartitions::Drained);
    let (topic, keeper, _producer) = producer(how, "drained").await;
    let (before, after) = (Arc::new(Ends::default()), Arc::new(Ends::default()));
    let refused = cluster.on(Api::Produce).partition("drained", 1).always();
    let refused = refused.answer(Code::NotLeaderOrFollower);
    push(&topic, 0..1_000, &before);
    cluster.add_partitions("drained", 4);
    keeper.grows().await;
    push(&topic, 1_000..2_000, &after);
    sleep(Duration::from_millis(200)).await;
    assert!(!keeper.is_drained() && after.count() == 0, "{}", after.count());
    assert!((1..1_000).contains(&before.count()), "{}", before.count());
    refused.lift();
    keeper.drains().await;
    before.reach(1_000).await;
    push(&topic, 2_000..3_000, &after);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(after.count(), 0, "they are held");
    keeper.let_go();
    after.reach(2_000).await;
    assert_eq!(*keeper.drained.lock().expect("no panic"), [(2, 4)]);
    assert_exactly(&cluster.bootstrap(), "drained", 0..3_000).await;
    assert_mapped(&cluster.bootstrap(), "drained", 1_000, (2, 4)).await;
    // It grows again.
    keeper.grown.lock().expect("no panic").clear();
    keeper.drained.lock().expect("no panic").clear();
    cluster.add_partitions("drained", 7);
    keeper.drains().await;
    keeper.let_go();
    push(&topic, 3_000..4_000, &after);
    after.reach(3_000).await;
    assert_eq!(numbers_in(&cluster.bootstrap(), "drained").await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_partitions_are_reported_once_and_not_used() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("ignored", 2).expect("a topic");
    let how = draining(&cluster.bootstrap(), AddedPartitions::Ignored);
    let (topic, keeper, producer) = producer(how, "ignored").await;
    let ends = Arc::new(Ends::default());
    cluster.add_partitions("ignored", 4);
    keeper.grows().await;
    push(&topic, 0..1_000, &ends);
    ends.reach(1_000).await;
    let asked = cluster.requests(Api::Metadata);
    eventually("it asks again", || cluster.requests(Api::Metadata) > asked + 2).await;
    assert_eq!(*keeper.grown.lock().expect("no panic"), [(2, 4)]);
    assert_mapped(&cluster.bootstrap(), "ignored", 1_000, (2, 2)).await;
    producer.close(&topic).await;
    let topic = producer.topic("ignored").await.expect("a topic");
    assert_eq!(topic.begin().partitions(), 4, "it is opened with all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_closed_while_it_drains_is_opened_with_all_partitions() {
    let cluster = FakeCluster::start().await.expect("a cluster");
    cluster.create_topic("closing", 2).expect("a topic");
    let how = draining(&cluster.bootstrap(), AddedPartitions::Drained);
    let (topic, keeper, producer) = producer(how, "closing").await;
    cluster.add_partitions("closing", 4);
    keeper.drains().await;
    let ends = Arc::new(Ends::default());
    push(&topic, 0..100, &ends);
    producer.close(&topic).await;
    assert_eq!(Arc::strong_count(&ends), 1, "receipts are dropped");
    let topic = producer.topic("closing").await.expect("a topic");
    push(&topic, 0..100, &ends);
    ends.reach(100).await;
    keeper.let_go();
    push(&topic, 100..200, &ends);
    ends.reach(200).await;
    assert_exactly(&cluster.bootstrap(), "closing", 0..200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_ends_before_added_partitions_are_used() {
    let bootstrap = shared_kafka().await.expect("a Kafka").bootstrap();
    create_topic(&bootstrap, "growing-tx", 2, &[]).await.expect("a topic");
    let how = draining(&bootstrap, AddedPartitions::Drained);
    let client = Client::new(how.clone());
    let transactional = Transactional { id: "growing-tx".into(), timeout: LIMIT };
    let keeper = Arc::new(Keeper::default());
    let (producer, driver) =
        TransactionalProducer::new(how, transactional, Arc::clone(&keeper) as _);
    tokio::spawn(driver);
    producer.begin().await.expect("it begins");
    let topic = producer.topic("growing-tx").await.expect("a topic");
    let ends = Arc::new(Ends::default());
    push(&topic, 0..500, &ends);
    client.add_partitions("growing-tx", 4).await.expect("they are added");
    keeper.grows().await;
    push(&topic, 500..1_000, &ends);
    ends.reach(1_000).await;
    let sealed = producer.seal();
    push(&topic, 1_000..1_500, &ends);
    let next = producer.seal();
    sleep(Duration::from_millis(100)).await;
    assert!(!keeper.is_drained() && ends.count() == 1_000, "the transaction is open");
    producer.commit(sealed).await.expect("a commit");
    keeper.drains().await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(ends.count(), 1_000, "they are held");
    let committing = producer.commit(next);
    let letting_go = async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(ends.count(), 1_000, "the commit waits for what is held");
        keeper.let_go();
    };
    let (committed, ()) = tokio::join!(committing, letting_go);
    committed.expect("a commit");
    ends.reach(1_500).await;
    push(&topic, 1_500..2_000, &ends);
    producer.commit(producer.seal()).await.expect("a commit");
    assert_exactly(&bootstrap, "growing-tx", 0..2_000).await;
    assert_mapped(&bootstrap, "growing-tx", 1_000, (2, 4)).await;
}
