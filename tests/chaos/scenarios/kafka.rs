//! Brokers die, are away, lack replicas, topics or rights.

use std::time::{Duration, Instant};

use factlib::{
    Lsn,
    testing::{KafkaServer, TopicRight, create_topic, grant, grant_transactions, shared_postgres},
};
use tokio::time::sleep;

use crate::{
    Ctx, Outcome,
    cluster::{self, Patience},
    context::EMITTERS,
    support::{Bed, Report, Workload, emitters::Emitters},
};

/// The longest time until the relay goes on once Kafka can.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);

async fn kafka_of_its_own() -> KafkaServer {
    KafkaServer::start().await.expect("Kafka starts")
}

async fn bed<'a>(ctx: &Ctx, kafka: &'a KafkaServer) -> Bed<'a> {
    ctx.on(shared_postgres().await.expect("PostgreSQL starts"), kafka).await
}

/// The only broker is killed and started again.
pub async fn broker_killed(ctx: &mut Ctx) -> Outcome {
    let kafka = kafka_of_its_own().await;
    let bed = bed(ctx, &kafka).await;
    let relay = ctx.launch(&bed).start().await;
    let emitters = ctx.load(&bed, ctx.pick(500, 2_000)).await;
    let kills = ctx.pick(2, 6);
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        sleep(ctx.random_ms(500..1_500)).await;
        kafka.kill(1).await.expect("the broker is killed");
        sleep(ctx.random_ms(300..2_000)).await;
        let before = bed.slot().await.0;
        kafka.start_again(1).await.expect("the broker comes back");
        slowest = slowest.max(resumed(&bed, before).await);
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    let note = resumption(ctx, slowest, "the broker's first answer");
    Outcome::exact(report).note(format!("{kills} kills; {note}"))
}

/// The time until more is confirmed than this.
async fn resumed(bed: &Bed<'_>, before: Lsn) -> Duration {
    let (begin, patience) = (Instant::now(), Patience::new());
    while bed.slot().await.0 <= before {
        patience.pause("the relay goes on").await;
    }
    begin.elapsed()
}

/// Judges the longest time until the relay went on, where the machine was left to it.
fn resumption(ctx: &Ctx, slowest: Duration, since: &str) -> String {
    let note = format!("it went on within {} ms of {since}", slowest.as_millis());
    // The short forms run beside other tests.
    assert!(slowest < ctx.pick(30, 1) * RESUMES_WITHIN, "{note}");
    note
}

/// The only broker is away under load: memory does not grow, and then all arrives.
pub async fn broker_away(ctx: &mut Ctx) -> Outcome {
    let kafka = kafka_of_its_own().await;
    let bed = bed(ctx, &kafka).await;
    let relay = ctx.launch(&bed).set("pipeline.window", "16MiB").start().await;
    // Transactions that let two emitters come to that rate.
    let workload = Workload { transaction: 10..=40, ..ctx.workload(&bed) };
    let emitters = Emitters::start(&bed, &workload, EMITTERS, ctx.pick(1_000, 5_000)).await;
    sleep(Duration::from_secs(2)).await;
    kafka.kill(1).await.expect("the broker is killed");
    let before = emitters.count();
    let outage = ctx.time(Duration::from_secs(5));
    // Long enough for the window to be full where it gets full at all.
    sleep(outage / 2).await;
    let half = relay.rss_mb();
    sleep(outage / 2).await;
    let (whole, facts) = (relay.rss_mb(), emitters.count() - before);
    kafka.start_again(1).await.expect("the broker comes back");
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    let note = format!(
        "{} s away at {} facts/s: resident {half} MB after half of it, {whole} MB at its end",
        outage.as_secs(),
        facts / outage.as_secs() as usize
    );
    // In the short form the window is still being filled.
    assert!(whole <= half + ctx.pick(64, 16), "memory grew: {note}");
    Outcome::exact(report).note(note)
}

/// Kills a broker of three, so that partitions lose their leader and a replica.
async fn one_of_three_killed(ctx: &mut Ctx, min_in_sync: u32) -> Outcome {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("Kafka starts");
    let bed = bed(ctx, &kafka).await;
    let launch = ctx.launch(&bed);
    let launch = launch.set("kafka.topics.config.min.insync.replicas", min_in_sync.to_string());
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, ctx.pick(300, 1_000)).await;
    let rounds = ctx.pick(1, 3);
    let (mut held, mut slowest) = (0, Duration::ZERO);
    let client = cluster::client(&bed);
    for _ in 0..rounds {
        emitters.emitted(emitters.count() + 300).await;
        let broker = ctx.random(1..=3) as usize;
        kafka.kill(broker).await.expect("the broker is killed");
        if min_in_sync < 3 {
            cluster::led_by_others(&client, &bed, &[broker as i32]).await;
            let before = bed.slot().await.0;
            slowest = slowest.max(resumed(&bed, before).await);
        }
        // Past its session's end, when the others have taken over.
        sleep(ctx.pick(Duration::from_secs(6), Duration::from_secs(15))).await;
        let now = bed.wal_end().await;
        sleep(Duration::from_secs(2)).await;
        held += u32::from(bed.slot().await.0 < now);
        kafka.start_again(broker).await.expect("the broker comes back");
    }
    // With two of three in sync, three are not, and nothing may count as written.
    assert!(min_in_sync < 3 || held == rounds, "facts were confirmed with a replica missing");
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    let note = match min_in_sync {
        3 => "nothing was confirmed meanwhile".to_owned(),
        _ => resumption(ctx, slowest, "the new leaders' election"),
    };
    Outcome::exact(report)
        .note(format!("{rounds} kills, min.insync.replicas={min_in_sync}; {note}"))
}

/// A broker dies while topics are new: their partitions know no producer yet.
pub async fn leader_of_new_topics_killed(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().brokers(3).start().await.expect("Kafka starts");
    let rounds = ctx.pick(1, 5);
    let mut total = Report::default();
    for round in 0..rounds {
        let bed = bed(ctx, &kafka).await;
        let relay = ctx.launch(&bed).start().await;
        // Many topics, so that many partitions get their first records at once.
        let kinds = (0..20).map(|n| format!("kind-{n}")).collect();
        let workload = Workload { aggregate_types: kinds, aggregates: 600, ..ctx.workload(&bed) };
        let emitters = Emitters::start(&bed, &workload, EMITTERS, 2_000).await;
        sleep(ctx.random_ms(500..2_500)).await;
        let broker = 1 + round % 3;
        kafka.kill(broker).await.expect("the broker is killed");
        sleep(Duration::from_secs(5)).await;
        kafka.start_again(broker).await.expect("the broker comes back");
        let history = emitters.stop().await;
        let report = relay.finish(&bed, &history).await;
        total.add(&report);
    }
    Outcome::exact(total).note(format!("{rounds} kills, each with 120 new partitions"))
}

/// Two replicas are enough: the others lead, and go on.
pub async fn leader_killed(ctx: &mut Ctx) -> Outcome {
    one_of_three_killed(ctx, 2).await
}

/// Two replicas are too few: nothing is confirmed until the third is back.
pub async fn in_sync_replicas_below_minimum(ctx: &mut Ctx) -> Outcome {
    one_of_three_killed(ctx, 3).await
}

/// Topics that are missing, and that the relay may not create, come later.
pub async fn topic_missing(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let launch = ctx.launch(&bed).set("kafka.topics.create", "false");
    if crate::exactly_once() {
        let (kafka, topic) = (bed.kafka.admin_bootstrap(), bed.config.position_topic());
        let compact = [("cleanup.policy", "compact")];
        create_topic(&kafka, &topic, 1, &compact).await.expect("created");
    }
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, 300).await;
    emitters.emitted(300).await;
    relay.says("create the topic, or let factlib do so with kafka.topics.create = true").await;
    sleep(ctx.time(Duration::from_secs(1)) / 4).await;
    for kind in ["user", "order", "invoice"] {
        let topic = format!("{}.{kind}", bed.name);
        let partitions = bed.config.kafka.topics.partitions.expect("a number");
        create_topic(&bed.kafka.admin_bootstrap(), &topic, partitions, &[]).await.expect("created");
        sleep(Duration::from_millis(500)).await;
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report)
}

/// Records are written and the connection breaks before the answer comes: sent
/// again, they are known.
pub async fn answers_lost_after_write(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let bed = bed(ctx, &kafka).await;
    let proxy = kafka.proxy(1).expect("a proxy");
    let relay = ctx.launch(&bed).start().await;
    let emitters = ctx.load(&bed, ctx.pick(300, 2_000)).await;
    emitters.emitted(300).await;
    let rounds = ctx.pick(5, 30);
    for _ in 0..rounds {
        // There in half a second, and not yet back when the connection breaks.
        proxy.latency(Duration::from_millis(500));
        sleep(ctx.random_ms(1_600..1_900)).await;
        proxy.reset_all();
        proxy.latency(Duration::ZERO);
        sleep(ctx.random_ms(300..1_000)).await;
    }
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("{rounds} times"))
}

/// The broker's host is gone without a word, and comes back as another connection:
/// the relay has to find out by itself.
pub async fn broker_gone_without_a_word(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let bed = bed(ctx, &kafka).await;
    let proxy = kafka.proxy(1).expect("a proxy");
    let launch = match ctx.pick(true, false) {
        true => ctx
            .launch(&bed)
            .set("kafka.properties.socket.timeout.ms", "3000")
            .set("kafka.properties.topic.metadata.refresh.interval.ms", "2000"),
        // What everybody has.
        false => ctx.launch(&bed),
    };
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, 300).await;
    emitters.emitted(300).await;
    proxy.half_open();
    sleep(Duration::from_secs(1)).await;
    let lost = bed.wal_end().await;
    // Only what connects from now on gets through.
    proxy.resume();
    let begin = Instant::now();
    bed.confirmed(lost).await;
    let took = begin.elapsed();
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("noticed after {} s", took.as_secs()))
}

/// The user may not write: the topics wait, and say so with the remedy, which is carried out as
/// it is written, and nothing is lost by it. What all rests on stops the relay.
pub async fn authorisation_denied(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().sasl_plain_users([("relay", "secret")]).authorizer();
    let kafka = kafka.start().await.expect("Kafka starts");
    let bed = bed(ctx, &kafka).await;
    let launch = ctx
        .launch(&bed)
        .set("kafka.username", "relay")
        .set("kafka.password", "secret")
        .set("kafka.sasl_mechanism", "PLAIN");
    launch.command(&["setup"]).await;
    let workload = Workload { facts: ctx.pick(500, 5_000), ..ctx.workload(&bed) };
    let history = workload.emit(&mut bed.client().await).await;
    let remedy = "the ACLs Describe and Write on the topic, and Create where factlib creates it";
    let rights = [TopicRight::Describe, TopicRight::Write, TopicRight::Create];
    let (admin, topics) = (kafka.admin_bootstrap(), format!("{}.", bed.name));
    if !crate::exactly_once() {
        let relay = launch.start().await;
        relay.says(remedy).await;
        grant(&admin, "relay", &topics, &rights).await.expect("the ACLs are given");
        return Outcome::exact(relay.finish(&bed, &history).await).note("it waited");
    }
    // Without the topic of positions there is no start.
    let (code, last) = launch.spawn().ended().await;
    assert_eq!(code, Some(4), "{last}");
    assert!(last.contains(remedy), "{last}");
    grant(&admin, "relay", &topics, &rights).await.expect("the ACLs are given");
    let (code, last) = launch.spawn().ended().await;
    assert_eq!(code, Some(4), "{last}");
    assert!(last.contains("the ACLs Describe and Write on that transactional id"), "{last}");
    grant_transactions(&admin, "relay", "factlib-").await.expect("the ACLs are given");
    let (code, last) = launch.spawn().ended().await;
    assert_eq!(code, Some(4), "{last}");
    assert!(last.contains("the user needs the ACLs Describe and Read"), "{last}");
    let positions = bed.config.position_topic();
    grant(&admin, "relay", &positions, &[TopicRight::Read]).await.expect("given");
    let report = launch.start().await.finish(&bed, &history).await;
    Outcome::exact(report).note(last)
}
