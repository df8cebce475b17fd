//! Settings of a role that would end our sessions, or keep them from writing.

use std::time::Duration;

use factlib::{
    doctor::{self, CheckOutcome},
    testing::{PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::sleep;

use super::relayed;
use crate::support::{Bed, History};

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
