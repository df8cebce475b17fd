//! Settings of a role that would end our sessions, or keep them from writing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use factlib::{
    doctor::{self, CheckOutcome},
    emit::{Emitter, schema},
    testing::{CollectedLogs, LogLine, PostgresServer, shared_kafka},
};
use slog::{Discard, Level, Logger, o};
use tokio::time::sleep;
use tokio_postgres::Client;

use super::relayed;
use crate::support::{
    Bed, History, Workload,
    workload::{Facts, events},
};

/// A role with all of it at once.
const ROLE: &str = "CREATE ROLE relay SUPERUSER LOGIN;
    ALTER ROLE relay SET default_transaction_read_only = on;
    ALTER ROLE relay SET statement_timeout = '30ms';
    ALTER ROLE relay SET lock_timeout = '30ms';
    ALTER ROLE relay SET idle_in_transaction_session_timeout = '300ms'";

async fn unimpressed(postgres: &PostgresServer, role: &str) {
    let kafka = shared_kafka().await.expect("Kafka starts");
    postgres.execute("postgres", role).await.expect("a role");
    let mut bed = Bed::on(postgres, kafka, "hostile").await;
    bed.config.postgres.url =
        format!("postgresql://relay@127.0.0.1:{}/{}", postgres.port(), bed.database).into();
    let pipeline = bed.pipeline().start().await.expect("it starts");
    let mut history = History::default();
    relayed(&bed, "before", &mut history).await;
    bed.confirmed(bed.wal_end().await).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'relay'
        AND datname = $1 AND backend_start > now() - interval '1 second'";
    sleep(Duration::from_secs(2)).await;
    let row = bed.client().await.query_one(sessions, &[&bed.database]).await.expect("a count");
    assert_eq!(row.get::<_, i64>(0), 0, "no session was opened anew while all rested");
    relayed(&bed, "after", &mut history).await;
    bed.confirmed(bed.wal_end().await).await;
    let status = pipeline.status();
    assert_eq!((status.checkpoint_errors, status.replication_errors), (0, 0), "{status:#?}");
    pipeline.shutdown().await.expect("a clean stop");
    let log = Logger::root(Discard, o!());
    let report = doctor::examine(&bed.config, &log).await.expect("a report");
    let errors = report.checks.iter().filter(|check| check.outcome == CheckOutcome::Error);
    assert_eq!(errors.count(), 0, "{report:#?}");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_role_that_may_do_nothing_for_long_is_no_trouble() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let idle = "; ALTER ROLE relay SET idle_session_timeout = '500ms'";
    unimpressed(&postgres, &(ROLE.to_owned() + idle)).await;
}

#[actix::test]
async fn an_old_server_has_fewer_of_these_settings() {
    let postgres = PostgresServer::builder().version(14).start().await.expect("PostgreSQL starts");
    unimpressed(&postgres, ROLE).await;
}

/// A role each of whose time-outs is a second.
const SECOND_ROLE: &str = "CREATE ROLE relay SUPERUSER LOGIN;
    ALTER ROLE relay SET statement_timeout = '1s';
    ALTER ROLE relay SET lock_timeout = '1s';
    ALTER ROLE relay SET idle_in_transaction_session_timeout = '1s';
    ALTER ROLE relay SET idle_session_timeout = '1s';
    ALTER ROLE relay SET transaction_timeout = '1s'";
/// In 2001: the rows are old from the start.
const OLD_NS: i64 = 1_000_000_000_000_000_000;
/// Longer than each time-out.
const REST: Duration = Duration::from_millis(1_500);

/// The processes of the relay: replication, checkpoints, WAL, publication, retention.
async fn sessions(client: &Client) -> BTreeSet<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE usename = 'relay'";
    client.query(query, &[]).await.expect("pids").iter().map(|row| row.get(0)).collect()
}

/// Emits facts whose rows are to be removed, in one transaction each.
async fn emit(client: &mut Client, bed: &Bed<'_>, facts: &mut Facts<'_>, history: &mut History) {
    let emitter = Emitter::archive(&bed.name, "outbox_events");
    for _ in 0..20 {
        let old = |fact: factlib::emit::Fact| fact.created_at_ns(OLD_NS + history.len() as i64);
        let batch: Vec<_> = facts.next(5).into_iter().map(old).collect();
        let transaction = client.transaction().await.expect("begun");
        emitter.emit_all(&transaction, &batch).await.expect("emitted");
        transaction.commit().await.expect("committed");
        events(&batch).for_each(|event| history.committed(&event));
    }
}

/// The relay works and rests in turn for that time: its sessions stay the same ones.
async fn keeps_its_sessions(time: Duration) {
    let postgres = PostgresServer::builder().version(18).start().await.expect("PostgreSQL starts");
    postgres.execute("postgres", SECOND_ROLE).await.expect("a role");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "second").await;
    bed.config.postgres.url =
        format!("postgresql://relay@127.0.0.1:{}/{}", postgres.port(), bed.database).into();
    bed.config.retention.after = Some(Duration::from_secs(3600));
    bed.config.retention.interval = Duration::from_millis(200);
    let mut client = bed.client().await;
    let table = schema::outbox_table("outbox_events").expect("a name");
    client.batch_execute(&table).await.expect("the table");
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts");
    let workload = Workload::new(&bed.name, 0);
    let (mut facts, mut history) = (Facts::new(&workload), History::default());

    // Each session is opened when it is first used.
    emit(&mut client, &bed, &mut facts, &mut history).await;
    bed.delivered(&history).await;
    super::until("swept", &pipeline, |pipeline| pipeline.status().retention_removed > 0).await;
    sleep(bed.config.postgres.publication_check_interval + REST).await;
    let first = sessions(&client).await;
    assert!((4..=6).contains(&first.len()), "{first:?}");
    let begun = Instant::now();
    while begun.elapsed() < time {
        emit(&mut client, &bed, &mut facts, &mut history).await;
        assert_eq!(sessions(&client).await, first, "after {:?}", begun.elapsed());
        sleep(REST).await;
        assert_eq!(sessions(&client).await, first, "after {:?}", begun.elapsed());
    }
    bed.delivered(&history).await;
    let all = history.len() as u64;
    super::until("empty", &pipeline, |pipeline| pipeline.status().retention_removed == all).await;
    pipeline.shutdown().await.expect("a clean stop");
    // A topic that was just made is not known to every broker.
    let bad = |line: &&LogLine| line.level.is_at_least(Level::Warning);
    let bad: Vec<_> = logs.lines().iter().filter(bad).map(ToString::to_string).collect();
    assert!(bad.iter().all(|line| line.contains("Kafka")), "{bad:#?}");
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

#[actix::test]
async fn a_role_with_each_time_out_at_a_second_keeps_its_sessions() {
    keeps_its_sessions(Duration::from_secs(4)).await;
}

#[actix::test]
#[ignore = "takes five minutes"]
async fn a_role_with_each_time_out_at_a_second_keeps_its_sessions_for_five_minutes() {
    keeps_its_sessions(Duration::from_secs(300)).await;
}
