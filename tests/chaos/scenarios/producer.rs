//! What brokers know of the relay's producer is gone, or what they had acknowledged.

use std::time::Duration;

use factlib::testing::{KafkaServer, shared_postgres};
use tokio::time::sleep;

use crate::{Ctx, Outcome, cluster, context::EMITTERS, moved_records, support::emitters::Emitters};

/// The broker forgets the producer after a second: while it rests, and in the middle of a backlog,
/// because the broker goes by the times of the records.
pub async fn producer_forgotten(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder()
        .property("producer.id.expiration.ms", "1000")
        .property("producer.id.expiration.check.interval.ms", "50");
    let kafka = kafka.start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let launch = ctx.launch(&bed);
    let (rounds, mut emitter) = (ctx.pick(2, 6), 0);
    let mut history = crate::support::History::default();
    for _ in 0..rounds {
        let relay = launch.start().await;
        for rest in [200..1_000, 1_200..3_000] {
            let workload = crate::support::Workload { emitter, ..ctx.workload(&bed) };
            let emitters = Emitters::start(&bed, &workload, EMITTERS, 2_000).await;
            emitter += EMITTERS;
            sleep(ctx.random_ms(300..800)).await;
            history.merge(emitters.stop().await);
            sleep(ctx.random_ms(rest)).await;
        }
        relay.settled(&bed).await;
        relay.stop().await;
        // A backlog of records that are older than the broker remembers.
        let workload = crate::support::Workload { emitter, ..ctx.workload(&bed) };
        let emitters = Emitters::start(&bed, &workload, EMITTERS, 5_000).await;
        emitter += EMITTERS;
        sleep(Duration::from_millis(1_500)).await;
        history.merge(emitters.stop().await);
        sleep(Duration::from_millis(1_000)).await;
    }
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::exact(report)
        .note(format!("{rounds} times after rests and in the middle of a backlog"))
}

/// A replica that lacks acknowledged records becomes leader, as `unclean.leader.election.enable`
/// allows. What Kafka loses so after acknowledging it is lost; what is emitted from then on arrives.
pub async fn unclean_election(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let relay = ctx
        .launch(&bed)
        .set("kafka.topics.replication_factor", "2")
        .set("kafka.topics.config.min.insync.replicas", "1")
        .set("kafka.topics.config.unclean.leader.election.enable", "true")
        .start()
        .await;
    let workload = ctx.workload(&bed);
    let before = Emitters::start(&bed, &workload, EMITTERS, ctx.pick(300, 1_000)).await;
    before.emitted(500).await;
    let client = cluster::client(&bed);
    let (behind, ahead) = (2, 1);
    kafka.kill(behind).await.expect("a replica is killed");
    cluster::led_by_others(&client, &bed, &[behind as i32]).await;
    // The leaders acknowledge what the killed replica does not have.
    before.emitted(before.count() + ctx.pick(500, 3_000)).await;
    relay.settled(&bed).await;
    kafka.kill(ahead).await.expect("the leader is killed");
    let kafka_again = kafka.start_again(behind).await;
    kafka_again.expect("the replica that is behind comes back");
    cluster::led_by_others(&client, &bed, &[ahead as i32]).await;
    let workload = crate::support::Workload { emitter: EMITTERS, ..workload };
    let after = Emitters::start(&bed, &workload, EMITTERS, ctx.pick(300, 1_000)).await;
    let acknowledged = before.stop().await;
    after.emitted(500).await;
    kafka.start_again(ahead).await.expect("the former leader comes back");
    sleep(ctx.time(Duration::from_secs(2)) / 4).await;
    let history = after.stop().await;
    relay.settled(&bed).await;
    relay.stop().await;
    let report = moved_records::check(&bed, &history, &acknowledged).await;
    let lost = moved_records::check(&bed, &acknowledged, &history).await.lost;
    bed.drop_slot().await;
    Outcome::exact(report).note(format!(
        "of {} facts that were emitted before, Kafka lost {lost} after acknowledging them",
        acknowledged.len()
    ))
}
