//! The network before PostgreSQL and before Kafka: slow, stalled, half open, broken.

use std::time::Duration;

use factlib::testing::{KafkaServer, PostgresServer, Proxy, shared_kafka, shared_postgres};
use tokio::time::sleep;

use crate::{Ctx, Outcome};

/// Puts every fault before a server, in an order of the seed, and says how often
/// it broke connections.
async fn disturb(ctx: &mut Ctx, proxy: &Proxy) -> u64 {
    let longest = ctx.pick(2_000, 8_000);
    let mut breaks = 0;
    for _ in 0..ctx.pick(1, 3) {
        let mut faults: Vec<u8> = (0..5).collect();
        while !faults.is_empty() {
            let fault = faults.remove(ctx.random(0..faults.len() as u64) as usize);
            match fault {
                0 => proxy.latency(ctx.random_ms(20..200)),
                1 => proxy.rate(20_000),
                2 => proxy.pause(),
                3 => proxy.half_open(),
                _ => proxy.refuse(),
            }
            if fault == 4 {
                proxy.reset_all();
            }
            sleep(ctx.random_ms(500..longest)).await;
            proxy.latency(Duration::ZERO);
            proxy.rate(None);
            proxy.accept();
            proxy.resume();
            if fault >= 3 {
                // What was half open has lost bytes: it can only be broken.
                proxy.reset_all();
                breaks += 1;
            }
            sleep(ctx.random_ms(300..1_000)).await;
        }
    }
    breaks
}

pub async fn postgres_network(ctx: &mut Ctx) -> Outcome {
    // A server that notices soon that nobody is there any more.
    let postgres = PostgresServer::builder().setting("wal_sender_timeout", "4s").start().await;
    let postgres = postgres.expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let address = ([127, 0, 0, 1], postgres.port()).into();
    let proxy = Proxy::start(address).await.expect("a proxy");
    let url = format!("postgresql://postgres@{}/{}", proxy.address(), bed.database);
    let launch = ctx.launch(&bed).set("postgres.url", url).set("postgres.connect_timeout", "3s");
    let relay = launch.start().await;
    let emitters = ctx.load(&bed, 300).await;
    disturb(ctx, &proxy).await;
    let history = emitters.stop().await;
    relay.settled(&bed).await;
    let generations = relay.count("relay running").saturating_sub(1);
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("connected again {generations} times"))
}

pub async fn kafka_network(ctx: &mut Ctx) -> Outcome {
    let kafka = KafkaServer::builder().proxied().start().await.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let relay = ctx.launch(&bed).start().await;
    let emitters = ctx.load(&bed, 300).await;
    let breaks = disturb(ctx, kafka.proxy(1).expect("a proxy")).await;
    let history = emitters.stop().await;
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(format!("connections broken {breaks} times"))
}
