//! The broker's answers change in mid-stream: limits are lowered, rights are taken, rates limited.

use std::collections::BTreeSet;

use factlib::testing::{
    KafkaServer, TopicRight, deny, grant, grant_transactions, lift_denials, limit_rate, read_topic,
    shared_postgres,
};
use tokio::time::sleep;

use crate::{
    Ctx, Outcome, cluster,
    context::EMITTERS,
    outbox_rows::{KIND, TABLE, Writers},
};

const USER: &str = "relay";

/// The topic's limit falls below a batch and below a record, its records become too old for it, the
/// user may not write to it, and the client is throttled, each for a while, in an order of the seed.
/// What the topic refuses is parked once; all else arrives once and in order.
pub async fn refused_in_mid_stream(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().sasl_plain_users([(USER, "secret")]).authorizer();
    let kafka = kafka.start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    bed.client().await.batch_execute(TABLE).await.expect("the table");
    let (admin, topic) = (kafka.admin_bootstrap(), format!("{}.{KIND}", bed.name));
    let rights = [
        TopicRight::Describe,
        TopicRight::DescribeConfigs,
        TopicRight::Write,
        TopicRight::Create,
        TopicRight::Read,
    ];
    grant(&admin, USER, &format!("{}.", bed.name), &rights).await.expect("the ACLs are given");
    grant_transactions(&admin, USER, "factlib-").await.expect("the ACLs are given");
    let launch = ctx
        .launch(&bed)
        .set("postgres.source", "tables")
        .set("kafka.username", USER)
        .set("kafka.password", "secret")
        .set("kafka.sasl_mechanism", "PLAIN");
    let relay = launch.start().await;
    let seed = ctx.random(0..u64::MAX);
    let writers = Writers::start(&bed, seed, EMITTERS, ctx.pick(500, 1_000), &[]).await;
    let client = cluster::client(&bed);
    cluster::await_topic(&client, &topic, true).await;
    let set = |name, value| {
        let (client, topic) = (&client, &topic);
        async move {
            let set = client.set_topic_setting(topic, name, value).await;
            set.expect("the setting is changed");
        }
    };
    let (rounds, mut faults_seen) = (ctx.pick(1, 3), 0);
    for _ in 0..rounds {
        let mut faults: Vec<u8> = (0..5).collect();
        while !faults.is_empty() {
            let fault = faults.remove(ctx.random(0..faults.len() as u64) as usize);
            sleep(ctx.random_ms(300..1_000)).await;
            let (large, old) = ("max.message.bytes", "message.timestamp.before.max.ms");
            match fault {
                0 => set(large, "5000").await,
                1 => set(large, "200").await,
                2 => set(old, "30000").await,
                3 => deny(&admin, USER, &topic, &[TopicRight::Write]).await.expect("it is denied"),
                _ => limit_rate(&admin, "factlib", Some(20_000)).await.expect("it is limited"),
            }
            let longest = if fault == 3 { 6_000 } else { 1_500 };
            sleep(ctx.random_ms(300..longest)).await;
            match fault {
                0 | 1 => set(large, "1048588").await,
                2 => set(old, "9223372036854775807").await,
                3 => lift_denials(&admin, USER, &topic).await.expect("the denial is lifted"),
                _ => limit_rate(&admin, "factlib", None).await.expect("the limit is lifted"),
            }
            faults_seen += 1;
        }
    }
    let rows = writers.stop().await;
    relay.settled(&bed).await;
    relay.stop().await;
    let letters = read_topic(&admin, &bed.config.dead_letter_topic()).await;
    let letters = letters.expect("the dead-letter topic");
    let ids: BTreeSet<_> = letters.iter().filter_map(|letter| letter.header("event_id")).collect();
    let records = read_topic(&admin, &topic).await.expect("the topic");
    let mut report = rows.check_without(&records, &letters);
    report.duplicates += (letters.len() - ids.len()) as u64;
    bed.drop_slot().await;
    Outcome::exact(report).note(format!("{faults_seen} times; {} rows were parked", letters.len()))
}
