//! Transactions: commit, abort, fencing, and answers that are lost.

use std::{sync::Arc, time::Duration};

use factlib_kafka::{
    TransactionError, Transactional, TransactionalProducer, Unobserved, client::Isolation,
};
use factlib_testing::fake_broker::{Api, Code, FakeCluster};
use tokio::time::timeout;

use crate::sending::{LIMIT, Results, assert_exactly, push, read, settings};

async fn cluster(transaction_version: i16) -> FakeCluster {
    let builder = FakeCluster::builder().transaction_version(transaction_version);
    let cluster = builder.start().await.expect("a cluster");
    cluster.create_topic("orders", 3).expect("a topic");
    cluster
}

async fn begin(cluster: &FakeCluster) -> TransactionalProducer {
    let transactional = Transactional { id: "relay".into(), timeout: Duration::from_secs(60) };
    let (producer, driver) =
        TransactionalProducer::new(settings(cluster), transactional, Arc::new(Unobserved));
    tokio::spawn(driver);
    timeout(LIMIT, producer.begin()).await.expect("in time").expect("it begins");
    producer
}

#[tokio::test]
async fn records_appear_with_the_commit_and_not_after_an_abort() {
    for level in [1, 2] {
        let cluster = cluster(level).await;
        let producer = begin(&cluster).await;
        let topic = producer.topic("orders").await.expect("a topic");
        let results = Arc::new(Results::default());
        for round in 0..6 {
            let all = results.count() + 50;
            push(&topic, round * 50..round * 50 + 50, &results);
            results.reach(all).await;
            let (visible, present) = (Isolation::ReadCommitted, Isolation::ReadUncommitted);
            let before = read(&cluster, "orders", visible).await.concat().len();
            assert!(read(&cluster, "orders", present).await.concat().len() >= before + 50);
            match round % 2 {
                0 => {
                    let sealed = producer.seal();
                    producer.commit(sealed).await.expect("a commit");
                    let after = read(&cluster, "orders", visible).await.concat().len();
                    assert_eq!(after, before + 50, "level {level}");
                }
                _ => {
                    producer.abort().await.expect("an abort");
                    let after = read(&cluster, "orders", visible).await.concat().len();
                    assert_eq!(after, before, "level {level}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_or_late_is_one_commit() {
    for level in [1, 2] {
        let cluster = cluster(level).await;
        let producer = begin(&cluster).await;
        let topic = producer.topic("orders").await.expect("a topic");
        let results = Arc::new(Results::default());
        cluster.on(Api::EndTxn).hang_up_after_effect();
        cluster.on(Api::EndTxn).after(1).answer(Code::ConcurrentTransactions);
        cluster.on(Api::Produce).after(1).hang_up_after_effect();
        for round in 0..4 {
            push(&topic, round * 50..round * 50 + 50, &results);
            let sealed = producer.seal();
            let commit = timeout(LIMIT, producer.commit(sealed)).await.expect("in time");
            commit.unwrap_or_else(|error| panic!("level {level}, round {round}: {error}"));
        }
        assert_exactly(&cluster, "orders", 0..200).await;
    }
}

#[tokio::test]
async fn a_second_producer_fences_the_first_and_aborts_its_transaction() {
    for level in [1, 2] {
        let cluster = cluster(level).await;
        let first = begin(&cluster).await;
        let topic = first.topic("orders").await.expect("a topic");
        let results = Arc::new(Results::default());
        push(&topic, 0..10, &results);
        results.reach(10).await;
        let second = begin(&cluster).await;
        let sealed = first.seal();
        let fenced = timeout(LIMIT, first.commit(sealed)).await.expect("in time");
        assert!(matches!(fenced, Err(TransactionError::Fenced(_))), "{fenced:?}");
        let topic = second.topic("orders").await.expect("a topic");
        push(&topic, 10..20, &results);
        let sealed = second.seal();
        second.commit(sealed).await.expect("a commit");
        assert_exactly(&cluster, "orders", 10..20).await;
    }
}
