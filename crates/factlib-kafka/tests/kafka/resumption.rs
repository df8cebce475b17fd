//! Time from the election of new leaders until records flow again.

use std::time::{Duration, Instant};

use factlib_kafka::client::{Client, PartitionPlaces};
use factlib_testing::{
    KafkaServer, create_topic,
    fake_broker::{Api, FakeCluster},
};
use tokio::time::sleep;

use crate::numbered::{Numbers, assert_exactly, settings};

/// Time for which the partitions of the dead broker have no other leader.
const ELECTION: Duration = Duration::from_secs(4);

const PARTITIONS: i32 = 12;

async fn cluster() -> FakeCluster {
    let cluster = FakeCluster::builder().brokers(3).start().await.expect("a cluster");
    cluster.create_topic("led", PARTITIONS).expect("a topic");
    cluster
}

/// Moves the partitions that a broker leads to the next one.
fn elect(cluster: &FakeCluster, dead: i32) {
    for partition in 0..PARTITIONS {
        if cluster.leader("led", partition) == Some(dead) {
            cluster.move_leader("led", partition, 1 + dead % 3);
        }
    }
}

/// Waits until everything is acknowledged; fails if that takes too long.
async fn assert_soon(numbers: &Numbers) {
    let elected = Instant::now();
    numbers.ended().await;
    let took = elected.elapsed();
    assert!(took < Duration::from_millis(1_200), "{took:?}: {:?}", numbers.heard.trouble());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_flow_soon_after_a_dead_brokers_partitions_have_leaders() {
    let cluster = cluster().await;
    for dead in [1, 2, 3] {
        let mut numbers = Numbers::to(&cluster.bootstrap(), "led").await;
        numbers.send(1_000);
        numbers.ended().await;
        let dying = async {
            cluster.broker_killed(dead).await;
            let before = cluster.requests(Api::Metadata);
            sleep(ELECTION).await;
            let asked = cluster.requests(Api::Metadata) - before;
            cluster.broker_down(dead).await;
            elect(&cluster, dead);
            asked
        };
        let asked = numbers.send_during(dying).await;
        assert!(asked <= 30, "asked {asked} times");
        assert_soon(&numbers).await;
        cluster.broker_up(dead).await.expect("it is back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_flow_soon_after_real_brokers_have_elected_leaders() {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("a Kafka");
    let bootstrap = kafka.bootstrap();
    let few = [("min.insync.replicas", "2")];
    create_topic(&bootstrap, "led", PARTITIONS, &few).await.expect("a topic");
    let client = Client::new(settings(&bootstrap));
    let mut numbers = Numbers::to(&bootstrap, "led").await;
    for dead in 1..=3 {
        numbers.send(1_000);
        numbers.ended().await;
        let dying = async {
            kafka.kill(dead).await.expect("it is killed");
            let id = dead as i32;
            // Records wait until the dead broker is no longer in sync, wherever it was a replica.
            let is_elected = |one: &PartitionPlaces| {
                one.leader.is_some_and(|leader| leader != id) && !one.in_sync.contains(&id)
            };
            await_partitions(&client, is_elected).await;
        };
        numbers.send_during(dying).await;
        let elected = Instant::now();
        numbers.ended().await;
        let took = elected.elapsed();
        // Time for the brokers too, which share the machine with other tests.
        assert!(took < Duration::from_secs(5), "{took:?}: {:?}", numbers.heard.trouble());
        kafka.start_again(dead).await.expect("it is back");
        await_partitions(&client, |one| one.in_sync.len() == 3).await;
    }
    assert_exactly(&bootstrap, "led", 0..numbers.sent).await;
}

/// Waits until all partitions are like that.
async fn await_partitions(client: &Client, is_fine: impl Fn(&PartitionPlaces) -> bool) {
    loop {
        if let Ok(Some(partitions)) = client.partitions("led").await
            && partitions.iter().all(&is_fine)
        {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
