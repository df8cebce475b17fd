//! A relay that reads from a standby: what it leaves to the primary, a promotion, a conflict.

use std::{sync::Arc, time::Duration};

use factlib::{
    ErrorKind,
    config::DeliveryMode,
    doctor::{self, CheckOutcome},
    setup,
    testing::{KafkaServer, PostgresServer, shared_kafka},
};
use secrecy::{ExposeSecret, SecretString};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, Workload, bed::LIMIT, relay::Launch};

fn log() -> Logger {
    Logger::root(Discard, o!())
}

/// A primary and its standby, with a bed whose relay reads from the standby.
async fn servers(version: u32, feedback: &str) -> [PostgresServer; 2] {
    let primary = PostgresServer::builder().version(version).start().await;
    let primary = primary.expect("PostgreSQL starts");
    let standby = primary.standby("standby_a").setting("hot_standby_feedback", feedback);
    let standby = standby.start().await.expect("a standby starts");
    [primary, standby]
}

async fn bed<'a>([primary, standby]: &'a [PostgresServer; 2], kafka: &'a KafkaServer) -> Bed<'a> {
    let mut bed = Bed::on(primary, kafka, "standby").await;
    let database = bed.database.clone();
    standby.caught_up_with(primary).await.expect("the standby has the database");
    bed.config.postgres.url = standby.url_for(&database).into();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    bed.config.postgres.primary_url =
        Some(format!("postgresql://postgres@{hosts}/{database}").into());
    bed
}

async fn is_read_and_followed_through_its_promotion(version: u32) {
    let servers = servers(version, "on").await;
    let [primary, standby] = &servers;
    let kafka = shared_kafka().await.expect("Kafka starts");
    let bed = bed(&servers, kafka).await;
    // Nobody writes: without the relay's asking, the slot would not be created.
    setup(&bed.config, false, &log()).await.expect("it is set up");
    let report = doctor::examine(&bed.config, &log()).await.expect("a report");
    assert_eq!(report.count(CheckOutcome::Error), 0, "{report:?}");
    let role = "the server is a standby, whose primary is known";
    assert!(format!("{report:?}").contains(role), "{report:?}");
    let url = |url: &SecretString| url.expose_secret().to_owned();
    let launch =
        Launch::new(&bed, Arc::default()).set("postgres.url", url(&bed.config.postgres.url)).set(
            "postgres.primary_url",
            bed.config.postgres.primary_url.as_ref().map(url).expect("set"),
        );
    let relay = launch.start().await;
    let mut history = Workload::new(&bed.name, 300).emit(&mut bed.client().await).await;
    bed.delivered(&history).await;
    let there =
        format!("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = '{}'", bed.name);
    assert_eq!(primary.query_text("postgres", &there).await.expect("an answer"), "0");
    assert_eq!(standby.query_text("postgres", &there).await.expect("an answer"), "1");
    saved(&bed).await;
    standby.caught_up_with(primary).await.expect("the standby has the checkpoint");

    primary.kill().await;
    standby.promote().await.expect("it is promoted");
    let (config, name) = (bed.config.clone(), bed.name.clone());
    let bed = Bed { postgres: standby, kafka, database: bed.database.clone(), name, config };
    let more = |seed, aggregate_prefix| Workload {
        seed,
        aggregate_prefix,
        ..Workload::new(&bed.name, 300)
    };
    history.merge(more(2, "b").emit(&mut bed.client().await).await);
    bed.delivered(&history).await;
    bed.confirmed(bed.wal_end().await).await;
    relay.stop().await;
    // The saved position is of the new timeline.
    history.merge(more(3, "c").emit(&mut bed.client().await).await);
    let relay = launch.start().await;
    bed.delivered(&history).await;
    relay.stop().await;
    let report = bed.check(&history).await;
    assert!(report.is_clean() && report.duplicates == 0, "{report}");
}

/// Waits until a position is saved.
async fn saved(bed: &Bed<'_>) {
    let saving = async {
        while bed.saved().await.is_none() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, saving).await.expect("a position is saved on the primary");
}

#[actix::test]
async fn a_standby_is_read_and_followed_through_its_promotion() {
    is_read_and_followed_through_its_promotion(17).await;
}

#[actix::test]
#[ignore = "takes long; for docs/postgresql.md"]
async fn on_other_versions_too() {
    for version in [16, 18] {
        is_read_and_followed_through_its_promotion(version).await;
    }
}

#[actix::test]
async fn a_conflict_with_the_primary_is_named_as_is_what_a_standby_has_not() {
    let servers = servers(17, "off").await;
    let [primary, standby] = &servers;
    let mut bed = bed(&servers, shared_kafka().await.expect("Kafka starts")).await;
    let primary_url = bed.config.postgres.primary_url.take();
    let error = setup(&bed.config, false, &log()).await.expect_err("it needs the primary");
    assert!(error.to_string().contains("postgres.primary_url"), "{error}");
    bed.config.postgres.primary_url = primary_url;
    bed.config.delivery.mode = DeliveryMode::ExactlyOnce;
    let error = setup(&bed.config, false, &log()).await.expect_err("it needs a primary");
    assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
    bed.config.delivery.mode = DeliveryMode::AtLeastOnce;
    setup(&bed.config, false, &log()).await.expect("it is set up");
    let report = doctor::examine(&bed.config, &log()).await.expect("a report");
    assert!(format!("{report:?}").contains("off: the primary may remove rows"), "{report:?}");

    // The catalog's rows of a table that is gone are removed on both.
    for statement in
        ["CREATE TABLE conflict (id int)", "DROP TABLE conflict", "VACUUM pg_catalog.pg_class"]
    {
        primary.execute(&bed.database, statement).await.expect("done");
    }
    // So that all of it is flushed, and so received.
    primary.execute("postgres", "CHECKPOINT").await.expect("a checkpoint");
    standby.caught_up_with(primary).await.expect("the standby follows");
    let error = bed.pipeline().start().await.expect_err("the slot is lost");
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    let text = error.to_string();
    for part in ["rows_removed", "hot_standby_feedback = on", "creates a new slot"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let report = setup(&bed.config, true, &log()).await.expect("a new slot").to_string();
    assert!(report.contains("in place of the invalidated one (rows_removed)"), "{report}");
}
