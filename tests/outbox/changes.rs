//! Updates and deletes by policy, and what a start refuses.

use factlib::{
    ErrorKind,
    config::{ChangePolicy, OutboxPreset, OutboxTable},
    testing::CollectedLogs,
};

use crate::support::{
    Bed,
    bed::LIMIT,
    rows::{EVENTS, event, insert, records, with_table},
};

fn table(on_update: ChangePolicy, on_delete: ChangePolicy) -> OutboxTable {
    let mut table = OutboxTable::new("outbox_events", OutboxPreset::Factlib);
    (table.on_update, table.on_delete) = (on_update, on_delete);
    table
}

#[actix::test]
async fn changes_are_ignored_or_warned_of_once() {
    let mut bed = with_table("changed").await;
    bed.config.outbox = vec![table(ChangePolicy::Warn, ChangePolicy::Ignore)];
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let client = bed.client().await;
    insert(&client, &event("a")).await;
    for change in ["UPDATE outbox_events SET processed = true", "DELETE FROM outbox_events"] {
        client.batch_execute(change).await.expect("changed");
    }
    insert(&client, &event("b")).await;
    client.batch_execute("UPDATE outbox_events SET processed = true").await.expect("changed");
    client.batch_execute("TRUNCATE outbox_events").await.expect("truncated");
    records(&bed, &format!("{}.user", bed.name), 2).await;
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
    let warned = logs.lines().iter().filter(|line| line.message.contains("were changed")).count();
    assert_eq!(warned, 1);
}

#[actix::test]
async fn a_change_ends_the_relay_where_that_is_the_policy() {
    let stops = [
        ("on_update", "UPDATE outbox_events SET processed = true"),
        ("on_delete", "DELETE FROM outbox_events"),
        ("on_delete", "TRUNCATE outbox_events"),
    ];
    for (setting, change) in stops {
        let mut bed = with_table("stopped").await;
        bed.config.outbox = vec![table(ChangePolicy::Stop, ChangePolicy::Stop)];
        let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
        let client = bed.client().await;
        insert(&client, &event("a")).await;
        client.batch_execute(change).await.expect("changed");
        let ended = tokio::time::timeout(LIMIT, pipeline.wait()).await.expect("in time");
        let error = ended.expect_err("it ends");
        assert_eq!(error.kind(), ErrorKind::PostgresRefused);
        assert!(error.to_string().contains(&format!("set outbox.{setting} to ")), "{error}");
        // It can be told to read on, and has lost nothing.
        bed.config.outbox = vec![table(ChangePolicy::Ignore, ChangePolicy::Ignore)];
        let pipeline = bed.pipeline().start().await.expect("it starts again");
        bed.confirmed(bed.wal_end().await).await;
        let topic = format!("{}.user", bed.name);
        let bootstrap = bed.kafka.admin_bootstrap();
        let sent = factlib::testing::read_topic(&bootstrap, &topic).await.expect("a topic");
        assert!(!sent.is_empty());
        pipeline.shutdown().await.expect("a clean stop");
    }
}

#[actix::test]
async fn what_is_missing_is_named_with_the_statement_that_mends_it() {
    let mut bed = Bed::shared("missing").await;
    let client = bed.client().await;
    bed.config.outbox = vec![table(ChangePolicy::Stop, ChangePolicy::Ignore)];
    let refused = async |bed: &Bed<'_>| {
        let error = bed.pipeline().start().await.expect_err("it does not start");
        assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{error}");
        error.to_string()
    };
    let error = refused(&bed).await;
    assert!(error.contains("outbox table outbox_events does not exist"), "{error}");

    client.batch_execute(EVENTS).await.expect("the table");
    bed.config.outbox[0].columns.payload = Some("body".into());
    let error = refused(&bed).await;
    assert!(error.contains("has no column body (it has id, aggregate_type"), "{error}");

    bed.config.outbox[0].columns.payload = None;
    let publication = &bed.name;
    let mended = [
        (
            format!("CREATE PUBLICATION \"{publication}\" WITH (publish = 'insert')"),
            format!("ALTER PUBLICATION \"{publication}\" ADD TABLE \"public\".\"outbox_events\""),
        ),
        (
            format!("ALTER PUBLICATION \"{publication}\" ADD TABLE \"public\".\"outbox_events\""),
            format!("ALTER PUBLICATION \"{publication}\" SET (publish = 'insert, update')"),
        ),
    ];
    for (statement, remedy) in &mended {
        client.batch_execute(statement).await.expect("done");
        let error = refused(&bed).await;
        assert!(error.contains(remedy), "{error}");
    }
    client.batch_execute(&mended[1].1).await.expect("mended");
    let pipeline = bed.pipeline().start().await.expect("now it starts");
    insert(&client, &event("a")).await;
    records(&bed, &format!("{}.user", bed.name), 1).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_table_without_a_key_is_not_made_to_refuse_its_writers() {
    let mut bed = with_table("keyless").await;
    let client = bed.client().await;
    client
        .batch_execute("ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey")
        .await
        .expect("altered");
    bed.config.outbox = vec![table(ChangePolicy::Warn, ChangePolicy::Ignore)];
    let error = bed.pipeline().start().await.expect_err("it does not start");
    assert!(error.to_string().contains("has no primary key"), "{error}");
    bed.config.outbox = vec![table(ChangePolicy::Ignore, ChangePolicy::Ignore)];
    let pipeline = bed.pipeline().start().await.expect("it starts");
    insert(&client, &event("a")).await;
    client.batch_execute("UPDATE outbox_events SET processed = true").await.expect("changed");
    records(&bed, &format!("{}.user", bed.name), 1).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_partitioned_table_is_read_as_a_whole_by_its_owner_who_is_no_superuser() {
    let mut bed = Bed::shared("parts").await;
    let database = &bed.database;
    let client = bed.client().await;
    let table_and_owner = format!(
        "CREATE ROLE \"{database}\" LOGIN REPLICATION;
         GRANT CREATE ON DATABASE \"{database}\" TO \"{database}\";
         CREATE TABLE outbox_events (id uuid, aggregate_type text, aggregate_id text, event_type text,
             payload bytea, created_at timestamptz, metadata jsonb, PRIMARY KEY (id, created_at))
             PARTITION BY RANGE (created_at);
         CREATE TABLE outbox_2023 PARTITION OF outbox_events FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
         ALTER TABLE outbox_events OWNER TO \"{database}\""
    );
    client.batch_execute(&table_and_owner).await.expect("the table");
    let url = bed.postgres.url_for(database).replace("postgres@", &format!("{database}@"));
    bed.config.postgres.url = url.into();
    bed.config.outbox = vec![table(ChangePolicy::Warn, ChangePolicy::Ignore)];
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    insert(&client, &event("a")).await;
    client.batch_execute("DROP TABLE outbox_2023").await.expect("dropped");
    records(&bed, &format!("{}.user", bed.name), 1).await;
    pipeline.shutdown().await.expect("a clean stop");
}
