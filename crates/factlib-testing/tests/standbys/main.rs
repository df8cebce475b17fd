//! Physical standbys: they receive, lag, are promoted, and follow another primary.

use factlib_testing::{PostgresServer, StopMode};

async fn count(server: &PostgresServer) -> String {
    server.query_text("postgres", "SELECT count(*)::text FROM rows").await.expect("a count")
}

async fn insert(server: &PostgresServer) {
    server.execute("postgres", "INSERT INTO rows VALUES (1)").await.expect("a row");
}

/// A primary of that version is killed; a standby that lags and one that does not are promoted.
async fn failover(version: u32) {
    let primary = PostgresServer::builder().version(version).start().await.expect("it starts");
    primary.execute("postgres", "CREATE TABLE rows (n int)").await.expect("a table");
    let [current, lagging] = ["current", "lagging"].map(|name| primary.standby(name));
    let current = current.start().await.expect("a standby");
    let lagging = lagging.start().await.expect("a standby");
    insert(&primary).await;
    current.caught_up_with(&primary).await.expect("received");
    lagging.caught_up_with(&primary).await.expect("received");
    lagging.pause_receipt().await.expect("paused");
    insert(&primary).await;
    current.caught_up_with(&primary).await.expect("received");
    assert_eq!([count(&current).await, count(&lagging).await], ["2", "1"]);
    lagging.resume_receipt().await.expect("resumed");
    lagging.caught_up_with(&primary).await.expect("received");
    lagging.pause_receipt().await.expect("paused");
    insert(&primary).await;
    current.caught_up_with(&primary).await.expect("received");

    let slot = "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')";
    primary.execute("postgres", slot).await.expect("a slot");
    primary.kill().await;
    assert_eq!(primary.pid(), None);
    // As Patroni does: nobody reads the slot here, so its state says nothing about the WAL.
    current.stop(StopMode::Fast).await;
    current.copy_slot_from(&primary, "slot").await.expect("copied");
    current.start_again().await.expect("it starts");
    current.promote().await.expect("promoted");
    let slots = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots";
    assert_eq!(current.query_text("postgres", slots).await.expect("slots"), "slot");
    lagging.follow(&current).await.expect("it follows");
    lagging.resume_receipt().await.expect("resumed");
    insert(&current).await;
    lagging.caught_up_with(&current).await.expect("received");
    assert_eq!([count(&current).await, count(&lagging).await], ["4", "4"]);

    let port = primary.port();
    drop(primary);
    let again = current.standby("again").port(port).start().await.expect("a standby");
    again.caught_up_with(&current).await.expect("received");
    assert_eq!((again.port(), &*count(&again).await), (port, "4"));
    lagging.pause_receipt().await.expect("paused");
    insert(&current).await;
    again.caught_up_with(&current).await.expect("received");
    current.kill().await;
    lagging.promote().await.expect("promoted");
    assert_eq!([count(&again).await, count(&lagging).await], ["5", "4"]);
}

#[tokio::test]
async fn a_standby_is_promoted() {
    failover(18).await;
}

#[tokio::test]
#[ignore = "takes minutes, and 15 is not on every machine"]
async fn a_standby_of_each_older_version_is_promoted() {
    for version in [10, 14, 15, 17] {
        failover(version).await;
    }
}
