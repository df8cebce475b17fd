//! Failover to a physical standby: the slot is there, and the relay finds it.

use std::time::Duration;

use factlib::{
    doctor::{self, CheckOutcome},
    setup,
    testing::{PostgresServer, shared_kafka},
};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, Workload, bed::LIMIT};

/// True if standbys keep a copy of the bed's slot.
async fn has_flag(bed: &Bed<'_>) -> bool {
    let query = "SELECT failover FROM pg_replication_slots WHERE slot_name = $1";
    let row = bed.client().await.query_one(query, &[&bed.name]).await.expect("the slot");
    row.get(0)
}

#[actix::test]
async fn an_existing_slot_gets_the_flag_before_it_is_read() {
    let postgres = PostgresServer::builder().version(18).start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&postgres, kafka, "flag").await;
    let log = Logger::root(Discard, o!());
    bed.config.postgres.failover = false;
    setup(&bed.config, false, &log).await.expect("a slot");
    assert!(!has_flag(&bed).await);
    bed.pipeline().start().await.expect("it starts").shutdown().await.expect("a clean stop");
    assert!(!has_flag(&bed).await, "it is left as it is");

    bed.config.postgres.failover = true;
    let pipeline = bed.pipeline().start().await.expect("it starts");
    assert!(has_flag(&bed).await);
    pipeline.shutdown().await.expect("a clean stop");
    bed.drop_slot().await;
    setup(&bed.config, true, &log).await.expect("a new slot");
    assert!(has_flag(&bed).await);
}

#[actix::test]
async fn the_relay_goes_on_with_the_standby_that_was_promoted() {
    let primary = PostgresServer::builder().version(17).start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let mut bed = Bed::on(&primary, kafka, "promoted").await;
    let standby = primary.standby("standby").start().await.expect("a standby");
    let hosts = [&standby, &primary].map(|server| format!("127.0.0.1:{}", server.port())).join(",");
    bed.config.postgres.url = format!("postgresql://postgres@{hosts}/{}", bed.database).into();
    bed.config.postgres.status_interval = Duration::from_millis(500);
    let log = Logger::root(Discard, o!());
    let findings = async || {
        let report = doctor::examine(&bed.config, &log).await.expect("a report");
        let bad = report.checks.into_iter().filter(|check| check.outcome != CheckOutcome::Ok);
        bad.map(|check| (check.name, check.remedy.unwrap_or_default())).collect::<Vec<_>>()
    };
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let mut history = Workload::new(&bed.name, 100).emit(&mut bed.client().await).await;
    bed.confirmed(bed.wal_end().await).await;

    // The copy is there a moment after the slot moved; the remedy of the rest is typed as it stands.
    let in_step = async {
        loop {
            let found = findings().await;
            if found.iter().all(|(name, _)| *name == "synchronized_standby_slots") {
                return found;
            }
            Workload { seed: 7, aggregate_prefix: "other-", ..Workload::new("other", 10) }
                .emit(&mut bed.client().await)
                .await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    let found = timeout(LIMIT, in_step).await.expect("the copy gets in step");
    let [(_, remedy)] = &found[..] else { panic!("{found:?}") };
    assert!(remedy.contains("'standby'"), "{remedy}");
    for statement in remedy.split("; ") {
        primary.execute("postgres", statement).await.expect("done");
    }
    let applied = async { while !findings().await.is_empty() {} };
    timeout(LIMIT, applied).await.expect("nothing is left to do");

    standby.caught_up_with(&primary).await.expect("received");
    primary.kill().await;
    standby.promote().await.expect("promoted");
    let here = Bed {
        postgres: &standby,
        kafka,
        database: bed.database.clone(),
        name: bed.name.clone(),
        config: bed.config.clone(),
    };
    let new = Workload { seed: 2, aggregate_prefix: "new-", ..Workload::new(&bed.name, 100) };
    history.merge(new.emit(&mut here.client().await).await);
    here.confirmed(here.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let report = here.check(&history).await;
    assert!(report.is_clean(), "{report}");
}
