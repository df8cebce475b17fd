//! `factlib run` with a pattern for the databases of a server.

use factlib::{
    emit::{Emitter, Fact},
    testing::{PostgresServer, read_topic, shared_kafka, wait_for_count},
};

use crate::{
    folder::Scene,
    support::{bed::LIMIT, probe::free_port},
};

async fn emit(postgres: &PostgresServer, database: &str) {
    let mut client = postgres.connect(database).await.expect("a session");
    let transaction = client.transaction().await.expect("a transaction");
    let fact = Fact::new("user", database, "created");
    Emitter::new("factlib").emit(&transaction, fact).await.expect("emitted");
    transaction.commit().await.expect("a commit");
}

#[actix::test]
async fn a_database_that_is_created_is_read_and_one_that_is_left_can_be_dropped() {
    let postgres = PostgresServer::start().await.expect("PostgreSQL starts");
    let kafka = shared_kafka().await.expect("Kafka starts");
    let execute = async |sql: &str| postgres.execute("postgres", sql).await.expect(sql);
    execute("CREATE DATABASE tenant_a").await;
    execute("CREATE DATABASE other").await;
    let prefix = postgres.create_database("fleet_tenants").await.expect("a name");
    let scene = Scene::with(
        &[
            ("FACTLIB_FLEET__DATABASES", "tenant_*".into()),
            ("FACTLIB_FLEET__CHECK_INTERVAL", "1s".into()),
            ("FACTLIB_POSTGRES__URL", postgres.url()),
            ("FACTLIB_KAFKA__TOPIC_PREFIX", prefix.clone()),
            ("FACTLIB_KAFKA__BROKERS", kafka.bootstrap()),
            ("FACTLIB_KAFKA__TOPICS__PARTITIONS", "1".into()),
        ],
        free_port(),
    );
    scene.shows(&[("tenant_a", "running", false)]).await;
    execute("CREATE DATABASE tenant_b").await;
    scene.shows(&[("tenant_a", "running", false), ("tenant_b", "running", false)]).await;
    emit(&postgres, "tenant_a").await;
    emit(&postgres, "tenant_b").await;
    let topic = format!("{prefix}.user");
    wait_for_count(&kafka.bootstrap(), &[&topic], 2, LIMIT).await.expect("both arrive");

    execute("ALTER DATABASE tenant_a ALLOW_CONNECTIONS false").await;
    scene.shows(&[("tenant_b", "running", false)]).await;
    // Its slot is dropped with it.
    execute("DROP DATABASE tenant_a").await;
    emit(&postgres, "tenant_b").await;
    wait_for_count(&kafka.bootstrap(), &[&topic], 3, LIMIT).await.expect("it arrives");
    let records = read_topic(&kafka.bootstrap(), &topic).await.expect("a topic");
    let of_b = records.iter().filter(|record| record.key.as_deref() == Some(b"tenant_b"));
    assert_eq!(of_b.count(), 2);
    scene.stop().await;
}
