//! Facts of every size and shape, and traffic that is none of ours.

use std::time::Duration;

use factlib::{
    emit::{Emitter, Fact},
    testing::{KafkaServer, PostgresServer, shared_kafka, shared_postgres},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    Ctx, Outcome,
    support::{
        History, Workload,
        workload::{Facts, events},
    },
};

/// Facts in a statement of the huge transaction.
const CHUNK: usize = 5_000;
/// The most that a relay may take, whatever the load: itself, the window several
/// times over (events, librdkafka's copies, its batches), what the allocator keeps.
const MOST_MB: u64 = 256;

/// A million facts in one transaction pass through a window of 16 MiB.
pub async fn one_huge_transaction(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let relay = ctx.launch(&bed).set("pipeline.window", "16MiB").start().await;
    let count = ctx.pick(50_000, 1_000_000);
    let workload = Workload { aggregates: 5_000, ..ctx.workload(&bed) };
    let (mut facts, mut history) = (Facts::new(&workload), History::default());
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction begins");
    let emitter = Emitter::new(bed.name.clone());
    for _ in 0..count / CHUNK {
        let chunk = facts.next(CHUNK);
        emitter.emit_all(&transaction, &chunk).await.expect("facts are emitted");
        events(&chunk).for_each(|event| history.committed(&event));
    }
    transaction.commit().await.expect("a commit");
    history.committed_before(bed.wal_end().await);
    let report = relay.finish(&bed, &history).await;
    let peak = ctx.peak_mb();
    assert!(peak < MOST_MB, "it took {peak} MB");
    Outcome::exact(report).note(format!("{count} facts in one transaction"))
}

/// Payloads of nothing and of 64 MB, keys and texts with every odd character.
pub async fn odd_facts(ctx: &mut Ctx) -> Outcome {
    const LARGEST: usize = 64_000_000;
    const TOPIC_LIMIT: &str = "80000000";
    let kafka = KafkaServer::builder().property("message.max.bytes", TOPIC_LIMIT).start().await;
    let kafka = kafka.expect("Kafka starts");
    let bed = ctx.on(shared_postgres().await.expect("PostgreSQL starts"), &kafka).await;
    let launch = ctx.launch(&bed).set("kafka.topics.config.max.message.bytes", TOPIC_LIMIT);
    let relay = launch.start().await;
    let long = "k".repeat(10_000);
    let keys = [
        " ", "\t\r\n", "'", "\"", "\\", "a/b", "%s%n", "ключ", "鍵", "🔑", "\u{202e}", "\u{feff}",
        "null", "a\u{1}b", "{}", "a,b;c=d", &long,
    ];
    let mut facts = Vec::new();
    for (n, key) in keys.iter().cycle().take(keys.len() * 3).enumerate() {
        let fact = Fact::new("odd.Type_-1", *key, *key).payload(key.as_bytes().to_vec());
        let fact = fact.metadata(*key, *key).trace(*key, *key).trace_metadata("k", *key);
        facts.push(if n % 2 == 0 { fact } else { fact.payload("") });
    }
    let mut random = StdRng::seed_from_u64(ctx.random(0..u64::MAX));
    let mut bytes = vec![0; LARGEST];
    random.fill(bytes.as_mut_slice());
    facts.push(Fact::new("odd.Type_-1", "large", "large").payload(bytes));
    facts.push(Fact::new("odd.Type_-1", "large", "after").payload(""));
    let mut history = History::default();
    let mut client = bed.client().await;
    for pair in facts.chunks(2) {
        let transaction = client.transaction().await.expect("a transaction begins");
        let emitter = Emitter::new(bed.name.clone());
        for fact in pair {
            emitter.emit(&transaction, fact).await.expect("a fact is emitted");
        }
        transaction.commit().await.expect("a commit");
        events(pair).for_each(|event| history.committed(&event));
    }
    history.committed_before(bed.wal_end().await);
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note("one fact of 64 MB, which passes the window alone")
}

/// Tables that are none of ours are written; the WAL that is kept for us stays small.
pub async fn foreign_traffic(ctx: &mut Ctx) -> Outcome {
    // What is written between two of our saves, and segments of 16 MB. How much WAL the
    // server keeps beside that is its own affair: restart_lsn moves when its background
    // writer logs a snapshot, every 15 s.
    const MOST_UNCONFIRMED_MB: u64 = 100;
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let relay = ctx.launch(&bed).start().await;
    let (client, observer) = (bed.client().await, bed.client().await);
    client.batch_execute("CREATE TABLE app (note text)").await.expect("a table");
    let emitters = ctx.load(&bed, 20).await;
    let kept = "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::float8 FROM pg_replication_slots WHERE slot_name = $1";
    let (megabytes, mut most) = (ctx.pick(50, 1_000), 0.0_f64);
    for _ in 0..megabytes {
        let write = "INSERT INTO app SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
        client.batch_execute(write).await.expect("foreign rows");
        let row = observer.query_one(kept, &[&bed.name]).await.expect("the slot");
        most = most.max(row.get(0));
        // A busy application, not a bulk load: 100 MB/s at the most.
        sleep(Duration::from_millis(10)).await;
    }
    let history = emitters.stop().await;
    let most_mb = most as u64 / 1_000_000;
    assert!(most_mb < MOST_UNCONFIRMED_MB, "{most_mb} MB of WAL were not confirmed");
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report)
        .note(format!("{megabytes} MB of foreign rows, at most {most_mb} MB of WAL not confirmed"))
}
