//! Topics change under load: their leaders move while they are new, they get partitions, they are
//! deleted and made again.

use std::time::{Duration, Instant};

use factlib::testing::{KafkaServer, create_topic, move_leaders, shared_postgres};
use tokio::time::sleep;

use crate::{
    Ctx, Outcome,
    cluster::{self, Patience},
    context::EMITTERS,
    moved_records,
    support::{History, Report, Workload, emitters::Emitters},
};

/// New topics of the full form.
const NEW_TOPICS: usize = 200;

/// A topic is made, and its leaders move while its first records are under way: brokers that know no
/// producer yet take any first sequence number (KAFKA-15591), so nothing may be sent behind a batch
/// that is not acknowledged. Many times.
pub async fn leaders_of_new_topics_move(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let launch = ctx.launch(&bed).set("kafka.topics.config.min.insync.replicas", "2");
    let relay = launch.start().await;
    let bootstrap = kafka.admin_bootstrap();
    let (begin, limit) = (Instant::now(), 4 * ctx.time(Duration::from_secs(2)));
    let (mut topics, mut moves, mut history) = (0, 0, History::default());
    while topics < NEW_TOPICS && begin.elapsed() < limit {
        let kind = format!("new-{topics}");
        let topic = format!("{}.{kind}", bed.name);
        let workload = Workload {
            aggregate_types: vec![kind],
            aggregates: 60,
            transaction: 1..=5,
            emitter: topics,
            ..ctx.workload(&bed)
        };
        let emitters = Emitters::start(&bed, &workload, 1, 1_000).await;
        let patience = Patience::new();
        while !move_leaders(&bootstrap, &topic).await.is_ok_and(|partitions| partitions > 0) {
            patience.pause("the topic has leaders that move").await;
        }
        moves += 1;
        for _ in 0..ctx.random(0..3) {
            sleep(ctx.random_ms(0..80)).await;
            moves += usize::from(move_leaders(&bootstrap, &topic).await.is_ok());
        }
        history.merge(emitters.stop().await);
        topics += 1;
    }
    let report = relay.finish(&bed, &history).await;
    let partitions = bed.config.kafka.topics.partitions.unwrap_or_default();
    Outcome::exact(report).note(format!(
        "{topics} new topics of {partitions} partitions, whose leaders moved {moves} times"
    ))
}

/// Topics get partitions under load. Within each partition the order stays, and the facts of an
/// aggregate that moves are in one partition up to one of them, and in another one from there on.
pub async fn partitions_added(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let relay = ctx.launch(&bed).start().await;
    let (client, rounds) = (cluster::client(&bed), ctx.pick(2, 6));
    let before = bed.config.kafka.topics.partitions.unwrap_or_default();
    let mut history = History::default();
    for round in 0..rounds {
        let kinds: Vec<_> = ["user", "order"].map(|kind| format!("{kind}-{round}")).into();
        let workload = Workload {
            aggregate_types: kinds.clone(),
            emitter: EMITTERS * round,
            ..ctx.workload(&bed)
        };
        let emitters = Emitters::start(&bed, &workload, EMITTERS, ctx.pick(500, 1_000)).await;
        emitters.emitted(300).await;
        for kind in kinds {
            let topic = format!("{}.{kind}", bed.name);
            cluster::await_topic(&client, &topic, true).await;
            let partitions = before + ctx.random(1..7) as i32;
            client.add_partitions(&topic, partitions).await.expect("partitions are added");
        }
        sleep(ctx.random_ms(100..500)).await;
        // The relay looks at its topics again; else it would do so only after half a minute.
        kafka.proxy(1).expect("a proxy").reset_all();
        sleep(ctx.random_ms(500..1_500)).await;
        history.merge(emitters.stop().await);
    }
    relay.settled(&bed).await;
    relay.says("partitions of a topic have changed").await;
    relay.says("added partitions are used from here on").await;
    relay.stop().await;
    let report = moved_records::check(&bed, &history, &History::default()).await;
    bed.drop_slot().await;
    Outcome::exact(report).note(format!("{} topics", 2 * rounds))
}

/// A topic is deleted under load and made again, also with other partitions. What is emitted after
/// it was gone arrives in the new one, in order; what was on its way may be gone with the old one.
/// Another topic is not disturbed.
pub async fn topic_made_again(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let relay = ctx.launch(&bed).start().await;
    let of = |kind: &str, emitter| Workload {
        aggregate_types: vec![kind.into()],
        emitter,
        ..ctx.workload(&bed)
    };
    let (kept, remade) = (of("kept", 0), of("remade", 1));
    let topic = format!("{}.remade", bed.name);
    let (client, bootstrap) = (cluster::client(&bed), bed.kafka.admin_bootstrap());
    let others = Emitters::start(&bed, &kept, 1, 200).await;
    let (mut total, mut ignored) = (Report::default(), History::default());
    let (rounds, mut lost) = (ctx.pick(2, 6), 0);
    for round in 0..rounds {
        let of = |emitter| Workload { emitter: 2 * round + emitter, ..remade.clone() };
        let before = Emitters::start(&bed, &of(1), 1, 500).await;
        before.emitted(200).await;
        cluster::await_topic(&client, &topic, true).await;
        sleep(ctx.random_ms(100..500)).await;
        client.delete_topic(&topic).await.expect("it is deleted");
        cluster::await_topic(&client, &topic, false).await;
        let after = Emitters::start(&bed, &of(2), 1, 500).await;
        ignored.merge(before.stop().await);
        sleep(ctx.random_ms(0..2_000)).await;
        let partitions = [6, 9, 4][round % 3];
        create_topic(&bootstrap, &topic, partitions, &[]).await.expect("it is made again");
        sleep(ctx.random_ms(500..1_500)).await;
        let history = after.stop().await;
        relay.settled(&bed).await;
        let report = moved_records::check(&bed, &history, &ignored).await;
        total.add(&report);
        lost = ignored.len();
        ignored.merge(history);
    }
    let history = others.stop().await;
    relay.settled(&bed).await;
    relay.stop().await;
    total.add(&moved_records::check(&bed, &history, &ignored).await);
    bed.drop_slot().await;
    Outcome::exact(total).note(format!(
        "{rounds} times; {lost} facts that were emitted before it was gone do not count"
    ))
}
