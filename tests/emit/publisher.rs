use factlib::emit::{DEFAULT_PREFIX, Emitter, Fact, Publisher};

use super::{Database, facts};

#[tokio::test]
async fn a_publisher_commits_each_call_and_connects_again() {
    let database = Database::create("publisher").await;
    let publisher = Publisher::new(&database.url().await).expect("a connection string");
    let id = publisher.publish(Fact::new("job", "nightly", "started")).await.expect("published");
    let events = database.events(DEFAULT_PREFIX).await;
    assert_eq!(events.iter().map(|event| &event.id).collect::<Vec<_>>(), [&id.to_string()]);

    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.client.execute(end, &[]).await.expect("ended");
    // The first call may be the one that learns of it.
    let fact = Fact::new("job", "nightly", "ended");
    if let Err(error) = publisher.publish(&fact).await {
        assert!(error.is_transient(), "{error}");
        publisher.publish(&fact).await.expect("published over a new connection");
    }
    assert_eq!(database.events(DEFAULT_PREFIX).await.len(), 1);
}

#[tokio::test]
async fn a_publisher_uses_its_emitter() {
    let database = Database::create("publisher").await;
    let publisher = Publisher::new(&database.url().await).expect("a connection string");
    let publisher = publisher.emitter(Emitter::archive("p", "outbox_events"));
    let facts = facts();
    let ids = publisher.publish_all(&facts).await.expect("published");
    assert_eq!(ids, facts.iter().map(Fact::event_id).collect::<Vec<_>>());
    assert_eq!(database.events("p").await.len(), 3);
    assert_eq!(database.rows().await.len(), 3);
}
