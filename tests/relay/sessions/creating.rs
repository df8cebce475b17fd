//! A slot that can't be created yet: whom that waits for, who else wants it, and a stop meanwhile.

use std::time::Duration;

use factlib::{
    ErrorKind, setup,
    testing::{CollectedLogs, PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use super::{relayed, says};
use crate::support::{Bed, History, bed::LIMIT, relay::Launch};

const WAITS: &str = "creating the slot waits for a transaction";

/// Processes that create a slot.
async fn creating(bed: &Bed<'_>) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state = 'active'
        AND query LIKE '%pg_create_logical_replication_slot%' AND pid <> pg_backend_pid()";
    bed.client().await.query_one(query, &[&bed.database]).await.expect("a count").get(0)
}

#[actix::test]
async fn the_transaction_that_creating_a_slot_waits_for_is_named() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "creating").await;
    // As a role may have it: five tries, and exit code 3.
    let limit = format!("ALTER DATABASE \"{}\" SET statement_timeout = '2s'", bed.database);
    postgres.execute("postgres", &limit).await.expect("set");
    bed.config.pipeline.startup_timeout = Duration::from_secs(5);
    let mut writer = bed.client().await;
    writer.batch_execute("CREATE TABLE t (n int)").await.expect("a table");
    for step in ["BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'forgotten'"] {
        writer.batch_execute(step).await.expect("prepared");
    }
    let open = writer.transaction().await.expect("a transaction");
    open.batch_execute("INSERT INTO t VALUES (2)").await.expect("it writes");
    let row = open.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid");
    let pid: i32 = row.get(0);

    let (log, logs) = CollectedLogs::logger();
    let starting = actix_rt::spawn(bed.pipeline().logger(log).start());
    let writer = [&*format!("PID {pid} (user postgres"), &format!("pg_terminate_backend({pid})")];
    says(&logs, WAITS, &writer).await;
    open.rollback().await.expect("rolled back");
    let gid = ["the prepared transaction forgotten", "run COMMIT PREPARED 'forgotten'"];
    says(&logs, WAITS, &gid).await;
    // What somebody else finds meanwhile is no slot to begin with.
    let early = setup(&bed.config, false, &Logger::root(Discard, o!())).await;
    let error = early.expect_err("too early");
    assert_eq!(error.kind(), ErrorKind::SlotInUse, "{error}");
    let text = error.to_string();
    assert!(text.contains("is still being created by PID"), "{text}");
    assert!(text.contains("the prepared transaction forgotten"), "{text}");
    let rollback = "ROLLBACK PREPARED 'forgotten'";
    postgres.execute(&bed.database, rollback).await.expect("rolled back");
    let started = timeout(LIMIT, starting).await.expect("in time").expect("no panic");
    let pipeline = started.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "a", &mut history).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[tokio::test]
async fn a_stop_leaves_no_process_that_goes_on_creating() {
    let bed = Bed::shared("creating").await;
    let mut writer = bed.client().await;
    writer.batch_execute("CREATE TABLE t (n int)").await.expect("a table");
    let open = writer.transaction().await.expect("a transaction");
    open.batch_execute("INSERT INTO t VALUES (1)").await.expect("it writes");
    let relay = Launch::new(&bed, Default::default()).spawn();
    relay.says(WAITS).await;
    assert_eq!(creating(&bed).await, 1);
    relay.stop().await;
    let gone = async {
        while creating(&bed).await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("nobody goes on creating");
    let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    let row = bed.client().await.query_one(query, &[&bed.name]).await.expect("a count");
    assert_eq!(row.get::<_, i64>(0), 0, "no half-made slot");
}
