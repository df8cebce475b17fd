//! A server that was promoted or restored: its new timeline, and what of the old one counts.

use factlib::{
    ErrorKind, Lsn,
    checkpoint::{Checkpoint, CheckpointStore, FileStore, PostgresStore},
    config::StoreKind,
    postgres::ConnectInfo,
    setup,
    testing::{KafkaServer, PostgresServer, Proxy, StopMode, shared_kafka, shared_postgres},
};
use slog::{Discard, Logger, o};
use std::time::Duration;

use tokio::time::timeout;

use crate::support::{Bed, Workload, bed::LIMIT};

/// A server of one's own, and a checkpoint outside of it: what is restored is the server alone.
async fn bed<'a>(
    postgres: &'a PostgresServer,
    kafka: &'a KafkaServer,
    folder: &tempfile::TempDir,
) -> Bed<'a> {
    let mut bed = Bed::on(postgres, kafka, "timelines").await;
    bed.config.checkpoint.store = StoreKind::File;
    bed.config.checkpoint.path = folder.path().join("checkpoint");
    bed
}

/// Runs the relay until all up to now is confirmed.
async fn relay(bed: &Bed<'_>) -> Lsn {
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let end = bed.wal_end().await;
    bed.confirmed(end).await;
    pipeline.shutdown().await.expect("a clean stop");
    end
}

#[actix::test]
async fn a_promoted_server_that_has_all_that_was_delivered_is_read_on() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let folder = tempfile::tempdir().expect("a folder");
    let bed = bed(&postgres, kafka, &folder).await;
    setup(&bed.config, false, &Logger::root(Discard, o!())).await.expect("a slot");
    let mut history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    relay(&bed).await;
    let unread = Workload { seed: 2, aggregate_prefix: "b", ..Workload::new(&bed.name, 100) };
    history.merge(unread.emit(&mut bed.client().await).await);

    for seed in 3..5 {
        postgres.stop(StopMode::Fast).await;
        postgres.start_on_new_timeline().await.expect("PostgreSQL starts");
        let prefix = ["c", "d"][seed as usize - 3];
        let new = Workload { seed, aggregate_prefix: prefix, ..Workload::new(&bed.name, 100) };
        history.merge(new.emit(&mut bed.client().await).await);
        relay(&bed).await;
    }
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
    let saved = FileStore::new(&bed.config.checkpoint.path).load(&bed.name).await;
    let saved = saved.expect("a readable checkpoint").expect("a checkpoint");
    assert_eq!(saved.timeline, 3, "the server's own timeline is saved");
}

#[actix::test]
async fn a_restored_server_that_lacks_what_was_delivered_is_refused_until_that_is_accepted() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let folder = tempfile::tempdir().expect("a folder");
    let bed = bed(&postgres, kafka, &folder).await;
    let log = Logger::root(Discard, o!());
    setup(&bed.config, false, &log).await.expect("a slot");
    postgres.stop(StopMode::Fast).await;
    postgres.back_up().await.expect("a backup");
    postgres.start_again().await.expect("PostgreSQL starts");
    Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    let delivered = relay(&bed).await;

    postgres.stop(StopMode::Immediate).await;
    postgres.restore().await.expect("the backup is back");
    postgres.start_on_new_timeline().await.expect("PostgreSQL starts");
    // Until neither the slot nor the end of the WAL shows that anything happened.
    let mut seed = 2;
    while bed.wal_end().await <= delivered {
        let new = Workload { seed, ..Workload::new(&bed.name, 100) };
        new.emit(&mut bed.client().await).await;
        seed += 1;
    }
    let error = bed.pipeline().start().await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::PositionLost, "{error}");
    let text = error.to_string();
    assert!(text.contains("left timeline 1") && text.contains("--accept-position"), "{text}");

    setup(&bed.config, true, &log).await.expect("it is accepted");
    relay(&bed).await;
}

#[actix::test]
async fn a_server_that_never_had_the_timeline_is_refused() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let folder = tempfile::tempdir().expect("a folder");
    let bed = bed(&postgres, kafka, &folder).await;
    setup(&bed.config, false, &Logger::root(Discard, o!())).await.expect("a slot");
    postgres.stop(StopMode::Fast).await;
    postgres.back_up().await.expect("a backup");
    postgres.start_on_new_timeline().await.expect("PostgreSQL starts");
    relay(&bed).await;

    postgres.stop(StopMode::Fast).await;
    postgres.restore().await.expect("the backup is back");
    postgres.start_again().await.expect("PostgreSQL starts");
    let error = bed.pipeline().start().await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::PositionLost, "{error}");
    assert!(error.to_string().contains("does not come from timeline 2"), "{error}");
}

/// Put back to a backup, with its checkpoint in it, the server has the same positions
/// again for other facts: what a running relay had read of the old ones says nothing.
#[actix::test]
async fn a_server_put_back_below_a_running_relay_is_read_from_its_own_checkpoint() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "put_back").await;
    let proxy = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await.expect("a proxy");
    bed.config.postgres.url =
        format!("postgresql://postgres@{}/{}", proxy.address(), bed.database).into();
    setup(&bed.config, false, &Logger::root(Discard, o!())).await.expect("a slot");
    // A checkpoint is in the backup.
    let mut history = Workload::new(&bed.name, 10).emit(&mut bed.client().await).await;
    relay(&bed).await;
    postgres.stop(StopMode::Fast).await;
    postgres.back_up().await.expect("a backup");
    postgres.start_again().await.expect("PostgreSQL starts");

    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let left = Workload { seed: 2, aggregate_prefix: "left-", ..Workload::new(&bed.name, 100) };
    history.merge(left.emit(&mut bed.client().await).await);
    let delivered = bed.wal_end().await;
    bed.confirmed(delivered).await;
    proxy.refuse();
    proxy.reset_all();
    postgres.stop(StopMode::Immediate).await;
    postgres.restore().await.expect("the backup is back");
    postgres.start_again().await.expect("PostgreSQL starts");
    let mut seed = 3;
    while bed.wal_end().await <= delivered {
        let prefix: &'static str = format!("new{seed}-").leak();
        let new = Workload { seed, aggregate_prefix: prefix, ..Workload::new(&bed.name, 100) };
        history.merge(new.emit(&mut bed.client().await).await);
        seed += 1;
    }
    proxy.accept();
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert_eq!((report.lost, report.phantom), (0, 0), "{report}");
}

/// Behind the same address, with the store in it: nothing there says that it is another one.
#[actix::test]
async fn an_empty_other_cluster_below_a_running_relay_is_refused_and_left_alone() {
    let first = PostgresServer::start().await.expect("PostgreSQL starts");
    let other = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&first, kafka, "other_cluster").await;
    other.execute("postgres", &format!("CREATE DATABASE {}", bed.database)).await.expect("created");
    let proxy = Proxy::start(([127, 0, 0, 1], first.port()).into()).await.expect("a proxy");
    bed.config.postgres.url =
        format!("postgresql://postgres@{}/{}", proxy.address(), bed.database).into();
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    Workload::new(&bed.name, 10).emit(&mut bed.client().await).await;
    bed.confirmed(bed.wal_end().await).await;

    proxy.retarget(([127, 0, 0, 1], other.port()).into());
    proxy.reset_all();
    let error = timeout(LIMIT, pipeline.wait()).await.expect("it ends").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PositionLost, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("knows no position in it") && text.contains("--accept-position"),
        "{text}"
    );
    let made = "SELECT (SELECT count(*) FROM pg_replication_slots)
        + (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'factlib')";
    let made = format!("SELECT ({made})::text");
    assert_eq!(other.query_text(&bed.database, &made).await.expect("a count"), "0");

    // The remedy, and a start of a new process.
    let log = Logger::root(Discard, o!());
    setup(&bed.config, true, &log).await.expect("it is accepted");
    bed.pipeline().start().await.expect("it starts").shutdown().await.expect("a clean stop");
}

/// A save that comes late, into a table that went back meanwhile, must not stand for what is there now.
#[tokio::test]
async fn a_position_is_not_saved_over_one_that_went_back_or_is_gone() {
    let postgres = shared_postgres().await.expect("PostgreSQL starts");
    let database = postgres.create_database("went_back").await.expect("a database");
    let info = ConnectInfo::parse(&postgres.url_for(&database)).expect("a connection string");
    let store = PostgresStore::new(info, Duration::from_secs(10), Logger::root(Discard, o!()));
    store.create().await.expect("created");
    let save = async |lsn| {
        let result = store.save(&Checkpoint::new("s", 7, 1, Lsn::new(lsn))).await;
        result.map_err(|error| error.kind())
    };
    let run = async |sql: &str| postgres.execute(&database, sql).await.expect("done");
    let query = "SELECT coalesce(max(lsn)::text, 'none') FROM factlib.checkpoints";
    let there = async || postgres.query_text(&database, query).await.expect("a position");
    assert_eq!(store.load("s").await.expect("loaded"), None);
    assert_eq!((save(16).await, save(32).await), (Ok(()), Ok(())));

    // Another instance is further: ours is no news.
    run("UPDATE factlib.checkpoints SET lsn = '0/40'").await;
    assert_eq!((save(48).await, there().await), (Ok(()), "0/40".into()));
    assert_eq!((save(80).await, there().await), (Ok(()), "0/50".into()));

    run("UPDATE factlib.checkpoints SET lsn = '0/20'").await;
    assert_eq!((save(96).await, there().await), (Err(ErrorKind::CheckpointInvalid), "0/20".into()));
    run("DELETE FROM factlib.checkpoints").await;
    assert_eq!((save(96).await, there().await), (Err(ErrorKind::CheckpointInvalid), "none".into()));
    // Who has looked knows what is there.
    assert_eq!(store.load("s").await.expect("loaded"), None);
    assert_eq!((save(96).await, there().await), (Ok(()), "0/60".into()));
}
