//! The examples of factlib-testing's README.

/// The README holds this file's code.
#[test]
fn the_readme_shows_this_code() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("crates/factlib-testing/README.md")).unwrap();
    let code = include_str!("readme.rs").split("// README:").skip(2);
    for block in code.map(|block| block.split_once('\n').unwrap().1.trim()) {
        assert!(readme.contains(block), "the README lacks:\n{block}");
    }
}

// README: a service that writes to PostgreSQL

use factlib_emit::{Emitter, Fact, schema};
use factlib_testing::{PostgresServer, shared_postgres};

/// The function under test.
async fn sign_up(
    client: &mut tokio_postgres::Client,
    name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO users (name) VALUES ($1)", &[&name]).await?;
    let fact = Fact::new("user", name, "user.created").payload("{}");
    Emitter::table("outbox_events").emit(&tx, fact).await?;
    tx.commit().await?;
    Ok(())
}

async fn new_database(server: &PostgresServer) -> String {
    let database = server.create_database("shop").await.unwrap();
    server.execute(&database, "CREATE TABLE users (name text PRIMARY KEY)").await.unwrap();
    let outbox = schema::outbox_table("outbox_events").unwrap();
    server.execute(&database, &outbox).await.unwrap();
    database
}

#[tokio::test]
async fn a_sign_up_is_emitted() {
    let server = shared_postgres().await.unwrap();
    let database = new_database(server).await;
    let mut client = server.connect(&database).await.unwrap();
    sign_up(&mut client, "Ada").await.unwrap();
    let query = "SELECT event_type FROM outbox_events WHERE aggregate_id = 'Ada'";
    assert_eq!(server.query_text(&database, query).await.unwrap(), "user.created");
}

// README: through Kafka

use std::time::Duration;

use factlib::{
    Pipeline,
    config::{Config, Source},
};
use factlib_testing::{shared_kafka, wait_for_count};

#[tokio::test]
async fn a_sign_up_reaches_kafka() {
    let (postgres, kafka) = (shared_postgres().await.unwrap(), shared_kafka().await.unwrap());
    let database = new_database(postgres).await;
    let mut config = Config::default();
    config.postgres.url = postgres.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.postgres.source = Some(Source::Tables);
    config.kafka.brokers = vec![kafka.bootstrap()];
    config.kafka.topic_prefix = Some(database.clone());
    let relay = Pipeline::builder().config(config).start_on_own_thread().await.unwrap();

    let mut client = postgres.connect(&database).await.unwrap();
    sign_up(&mut client, "Ada").await.unwrap();

    let topic = format!("{database}.user");
    let limit = Duration::from_secs(60);
    let records = wait_for_count(&kafka.bootstrap(), &[&topic], 1, limit).await.unwrap();
    assert_eq!(records[0].key.as_deref(), Some(b"Ada".as_slice()));
    relay.shutdown().await.unwrap();
}
