//! Facts of every size and shape, and traffic that is none of ours.

use std::time::{Duration, Instant};

use factlib::{
    emit::{Emitter, Fact},
    testing::{KafkaServer, PostgresServer, shared_kafka, shared_postgres},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep_until;

use crate::{
    Ctx, Outcome,
    support::{
        Bed, History, Workload,
        workload::{Facts, events},
    },
};

/// Facts in a statement of the huge transaction.
const CHUNK: usize = 5_000;
/// The most that a relay may take, whatever the load: itself, the window several
/// times over (events, their records, batches in flight), what the allocator keeps.
const MOST_MB: u64 = 256;

/// A million facts in one transaction pass through a window of 16 MiB.
pub async fn one_huge_transaction(ctx: &mut Ctx) -> Outcome {
    let bed = ctx.shared().await;
    let relay = ctx.launch(&bed).set("pipeline.window", "16MiB").start().await;
    let count = ctx.pick(50_000, 1_000_000);
    let history = in_one_transaction(ctx, &bed, count).await;
    let report = relay.finish(&bed, &history).await;
    let peak = ctx.peak_mb();
    assert!(peak < MOST_MB, "it took {peak} MB");
    Outcome::exact(report).note(format!("{count} facts in one transaction"))
}

/// Emits so many facts in one transaction.
pub async fn in_one_transaction(ctx: &Ctx, bed: &Bed<'_>, count: usize) -> History {
    let workload = Workload { aggregates: 5_000, ..ctx.workload(bed) };
    let (mut facts, mut history) = (Facts::new(&workload), History::default());
    let mut client = bed.client().await;
    let transaction = client.transaction().await.expect("a transaction begins");
    let emitter = Emitter::new(bed.name.clone()).any_size();
    for _ in 0..count / CHUNK {
        let chunk = facts.next(CHUNK);
        emitter.emit_all(&transaction, &chunk).await.expect("facts are emitted");
        events(&chunk).for_each(|event| history.committed(&event));
    }
    transaction.commit().await.expect("a commit");
    history.committed_before(bed.wal_end().await);
    history
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
        let emitter = Emitter::new(bed.name.clone()).any_size();
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

/// Tables that are none of ours are written: the confirmed position follows, and the
/// server can forget the WAL.
pub async fn foreign_traffic(ctx: &mut Ctx) -> Outcome {
    // The traffic is 20 MB/s at the most. PostgreSQL looks every 15 s what it may
    // forget, so it keeps 300 MB in any case; the rest is for a busy machine.
    let (most_behind_mb, most_kept_mb) = ctx.pick((40, 500), (100, 500));
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let bed = ctx.on(&postgres, shared_kafka().await.expect("Kafka starts")).await;
    let relay = ctx.launch(&bed).start().await;
    let (client, observer) = (bed.client().await, bed.client().await);
    client.batch_execute("CREATE TABLE app (note text)").await.expect("a table");
    let emitters = ctx.load(&bed, 20).await;
    let lags = "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::float8,
                       (pg_current_wal_lsn() - restart_lsn)::float8
                FROM pg_replication_slots WHERE slot_name = $1";
    let megabytes = ctx.pick(50, 1_000);
    let (mut behind, mut kept) = (0.0_f64, 0.0_f64);
    let mut due = Instant::now();
    for _ in 0..megabytes {
        let write = "INSERT INTO app SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
        client.batch_execute(write).await.expect("foreign rows");
        let row = observer.query_one(lags, &[&bed.name]).await.expect("the slot");
        (behind, kept) = (behind.max(row.get(0)), kept.max(row.get(1)));
        due += Duration::from_millis(50);
        sleep_until(due.into()).await;
    }
    let history = emitters.stop().await;
    let (behind_mb, kept_mb) = ((behind / 1e6) as u64, (kept / 1e6) as u64);
    let note = format!(
        "{megabytes} MB of foreign rows; the confirmed position was {behind_mb} MB behind at the \
         most, and {kept_mb} MB of WAL were kept for us"
    );
    assert!(behind_mb < most_behind_mb && kept_mb < most_kept_mb, "{note}");
    let report = relay.finish(&bed, &history).await;
    Outcome::exact(report).note(note)
}
