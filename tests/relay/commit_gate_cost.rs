//! Latency of what the gate waits for: `cargo test --test relay -- --ignored --nocapture gate_cost`.

use std::time::Duration;

use factlib::{
    config::{StoreKind, WaitForStandbys, WaitForVisibility},
    emit::{Emitter, Fact},
    proto::OutboxEvent,
    setup,
    testing::{PostgresServer, shared_kafka, wait_for_count},
};
use futures_util::future::join_all;
use prost::Message;
use slog::{Discard, Logger, o};
use tokio::time::{Instant, sleep_until};

use crate::support::{Bed, bed::LIMIT};

const PER_SECOND: usize = 1_000;
const SECONDS: usize = 10;
/// Not counted: connections and caches warm up.
const WARM_UP: usize = 2 * PER_SECOND;
const EMITTERS: usize = 8;

struct Mode {
    name: &'static str,
    standbys: &'static [&'static str],
    visibility: WaitForVisibility,
    synchronous: &'static str,
}

const MODES: [Mode; 6] = [
    Mode { name: "off", standbys: &[], visibility: WaitForVisibility::Never, synchronous: "" },
    Mode {
        name: "one standby",
        standbys: &["standby_a"],
        visibility: WaitForVisibility::Never,
        synchronous: "",
    },
    Mode { name: "visible", standbys: &[], visibility: WaitForVisibility::Always, synchronous: "" },
    Mode {
        name: "one standby, visible",
        standbys: &["standby_a"],
        visibility: WaitForVisibility::Always,
        synchronous: "",
    },
    Mode {
        name: "synchronous replication, off",
        standbys: &[],
        visibility: WaitForVisibility::Never,
        synchronous: "standby_a",
    },
    Mode {
        name: "synchronous replication, visible",
        standbys: &[],
        visibility: WaitForVisibility::Auto,
        synchronous: "standby_a",
    },
];

#[actix::test]
#[ignore = "it measures, for docs/postgresql.md"]
async fn gate_cost() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let _standby = postgres.standby("standby_a").start().await.expect("a standby");
    println!("| wait | p50 ms | p99 ms |\n| --- | ---: | ---: |");
    for mode in MODES {
        measure(&postgres, mode).await;
    }
}

async fn measure(postgres: &PostgresServer, mode: Mode) {
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(postgres, kafka, "gate_cost").await;
    let folder = tempfile::tempdir().expect("a folder");
    bed.config.checkpoint.store = StoreKind::File;
    bed.config.checkpoint.path = folder.path().join("checkpoint");
    let append_time = ("message.timestamp.type".to_owned(), "LogAppendTime".to_owned());
    bed.config.kafka.topics.config.extend([append_time]);
    let names = mode.standbys.iter().map(ToString::to_string).collect();
    bed.config.delivery.wait_for_standbys = WaitForStandbys::Named(names);
    bed.config.delivery.wait_for_visibility = mode.visibility;
    setup(&bed.config, false, &Logger::root(Discard, o!())).await.expect("a slot");
    postgres.set("synchronous_standby_names", mode.synchronous).expect("it is set");
    postgres.reload().await.expect("it is read");
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    join_all((0..EMITTERS).map(|n| emit(&bed, n))).await;
    let topic = format!("{}.user", bed.name);
    let count = PER_SECOND * SECONDS;
    wait_for_count(&kafka.admin_bootstrap(), &[&topic], count, LIMIT).await.expect("all arrive");
    let mut latencies = Vec::with_capacity(count);
    bed.each_record(|record| {
        let event = OutboxEvent::decode(&*record.value.expect("a value")).expect("an event");
        let appended = record.timestamp_ms.expect("a time") as f64 + 0.5;
        latencies.push((event.created_at, appended - event.created_at as f64 / 1e6));
    })
    .await;
    latencies.sort_by_key(|(created_at, _)| *created_at);
    let mut latencies: Vec<_> = latencies[WARM_UP..].iter().map(|(_, ms)| *ms).collect();
    latencies.sort_by(f64::total_cmp);
    let quantile = |q: f64| latencies[(latencies.len() as f64 * q) as usize];
    println!("| {} | {:.1} | {:.1} |", mode.name, quantile(0.5), quantile(0.99));
    pipeline.shutdown().await.expect("a clean stop");
    postgres.set("synchronous_standby_names", "").expect("it is set");
    postgres.reload().await.expect("it is read");
    bed.drop_slot().await;
}

async fn emit(bed: &Bed<'_>, emitter: usize) {
    let mut client = bed.client().await;
    let emit = Emitter::new(bed.name.clone());
    let period = Duration::from_secs(1) * EMITTERS as u32 / PER_SECOND as u32;
    let mut due = Instant::now() + period / EMITTERS as u32 * emitter as u32;
    for n in 0..PER_SECOND * SECONDS / EMITTERS {
        sleep_until(due).await;
        due += period;
        let id = format!("{emitter}-{}", n % 30);
        let fact = Fact::new("user", id, "user.created").payload(vec![7; 300]);
        let transaction = client.transaction().await.expect("a transaction begins");
        emit.emit(&transaction, &fact).await.expect("it is emitted");
        transaction.commit().await.expect("a commit");
    }
}
