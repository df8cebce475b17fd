//! What a first start refuses of a table or a publication: with the reason, and with a remedy
//! that helps. Doctor says the same.

use factlib::{
    ErrorKind,
    config::{ChangePolicy, Config, OutboxPreset, OutboxTable},
    doctor::{self, CheckOutcome},
    testing::{PostgresServer, shared_kafka, shared_postgres},
};
use slog::{Discard, Logger, o};

use crate::support::rows::EVENTS;

/// Columns of a table that is no more than an outbox.
const COLUMNS: &str =
    "id int NOT NULL, aggregate_type text, aggregate_id text, event_type text, payload bytea";

struct Case {
    name: &'static str,
    /// From and up to these versions.
    versions: (u32, u32),
    /// Makes the table, and a publication `p` where there is one before the start.
    made: String,
    policies: (ChangePolicy, ChangePolicy),
    /// Parts of the reason, in turn; each with the statement of the remedy that is typed then.
    refused: Vec<(&'static str, String)>,
}

fn case(name: &'static str, made: impl Into<String>) -> Case {
    let policies = (ChangePolicy::Ignore, ChangePolicy::Ignore);
    Case { name, versions: (10, 99), made: made.into(), policies, refused: Vec::new() }
}

impl Case {
    fn from(mut self, major: u32) -> Self {
        self.versions.0 = major;
        self
    }

    fn up_to(mut self, major: u32) -> Self {
        self.versions.1 = major;
        self
    }

    fn policies(mut self, on_update: ChangePolicy, on_delete: ChangePolicy) -> Self {
        self.policies = (on_update, on_delete);
        self
    }

    /// Refused with this reason until the remedy's statement is typed, where it begins with one.
    fn until(mut self, reason: &'static str, remedy: impl Into<String>) -> Self {
        self.refused.push((reason, remedy.into()));
        self
    }

    /// Refused with this reason; the remedy is no statement.
    fn refused(self, reason: &'static str) -> Self {
        self.until(reason, "")
    }
}

fn cases() -> Vec<Case> {
    use ChangePolicy::{Ignore, Stop, Warn};
    let table = |more: &str| format!("CREATE TABLE outbox_events ({COLUMNS}{more})");
    let keyed = table(", PRIMARY KEY (id)");
    let partitioned = format!("{} PARTITION BY LIST (id)", table(""));
    let foreign = "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w";
    let published = |table: &str, operations: &str| {
        format!(
            "{table}; CREATE PUBLICATION p FOR TABLE outbox_events WITH (publish = '{operations}')"
        )
    };
    let alter = |change: &str| format!("ALTER PUBLICATION \"p\" {change}");
    let again = "BEGIN; ALTER PUBLICATION \"p\" DROP TABLE \"public\".\"outbox_events\"; \
                 ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"outbox_events\"; COMMIT";
    let full = "ALTER TABLE \"public\".\"outbox_events\" REPLICA IDENTITY FULL";
    vec![
        case("a view", format!("CREATE TABLE o ({COLUMNS}); CREATE VIEW outbox_events AS TABLE o"))
            .refused("outbox table outbox_events is a view: only rows of tables are in the WAL"),
        case(
            "a foreign table",
            format!("{foreign}; CREATE FOREIGN TABLE outbox_events ({COLUMNS}) SERVER s"),
        )
        .refused("outbox table outbox_events is a foreign table"),
        case("an unlogged table", keyed.replace("CREATE TABLE", "CREATE UNLOGGED TABLE")).until(
            "outbox table outbox_events is UNLOGGED: its rows are not in the WAL",
            "ALTER TABLE \"public\".\"outbox_events\" SET LOGGED",
        ),
        case(
            "an unlogged table beside a publication",
            format!(
                "{}; CREATE PUBLICATION p",
                keyed.replace("CREATE TABLE", "CREATE UNLOGGED TABLE")
            ),
        )
        .until(
            "outbox table outbox_events is UNLOGGED",
            "ALTER TABLE \"public\".\"outbox_events\" SET LOGGED",
        )
        .until(
            "publication p does not have outbox table outbox_events",
            alter("ADD TABLE \"public\".\"outbox_events\""),
        ),
        case(
            "an unlogged partition",
            format!(
                "{partitioned}; CREATE UNLOGGED TABLE part PARTITION OF outbox_events FOR VALUES IN (1)"
            ),
        )
        .from(13)
        .until(
            "partition public.part of outbox table outbox_events is UNLOGGED",
            "ALTER TABLE \"public\".\"part\" SET LOGGED",
        ),
        case(
            "a foreign partition",
            format!(
                "{foreign}; {partitioned}; CREATE FOREIGN TABLE part PARTITION OF outbox_events FOR VALUES IN (1) SERVER s"
            ),
        )
        .from(13)
        .until(
            "partition public.part of outbox table outbox_events is a foreign table",
            "ALTER TABLE \"public\".\"outbox_events\" DETACH PARTITION \"public\".\"part\"",
        ),
        case("partitions on an old server", partitioned.clone()).up_to(12).refused(
            "outbox table outbox_events is partitioned, which PostgreSQL 10 can't publish as a whole",
        ),
        case("a child", format!("{keyed}; CREATE TABLE child () INHERITS (outbox_events)")).until(
            "table public.child, a child of outbox table outbox_events, is not configured",
            "ALTER TABLE \"public\".\"child\" NO INHERIT \"public\".\"outbox_events\"",
        ),
        case(
            "one partition of a table that is published as a whole",
            format!(
                "{}; CREATE TABLE outbox_events PARTITION OF whole FOR VALUES IN (1);
                 CREATE PUBLICATION p FOR TABLE whole WITH (publish_via_partition_root = true)",
                partitioned.replace("outbox_events", "whole")
            ),
        )
        .from(13)
        .until("publishes its rows as those of public.whole", "set outbox.table = \"public.whole\""),
        case("a deferrable key", table(", PRIMARY KEY (id) DEFERRABLE"))
            .policies(Warn, Ignore)
            .until("outbox table outbox_events has a DEFERRABLE primary key", full),
        case("no key in a publication by hand", published(&table(""), "insert, update, delete"))
            .until(
                "outbox table outbox_events has no primary key: where publication p publishes UPDATE and DELETE, PostgreSQL refuses",
                alter("SET (publish = 'insert')"),
            ),
        case(
            "what to do about a key",
            published(
                &format!(
                    "{keyed}; ALTER TABLE outbox_events REPLICA IDENTITY USING INDEX outbox_events_pkey;
                     ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey"
                ),
                "insert, update",
            ),
        )
        .until(
            "outbox table outbox_events has a replica identity whose index does not count",
            "set outbox.on_update and outbox.on_delete to \"ignore\" and ALTER PUBLICATION \"p\" SET (publish = 'insert'), or give it a primary key that is not DEFERRABLE and published, or ALTER TABLE \"public\".\"outbox_events\" REPLICA IDENTITY FULL",
        ),
        case(
            "a full identity and a column left out",
            format!(
                "{keyed}; ALTER TABLE outbox_events ADD COLUMN number int, REPLICA IDENTITY FULL;
                 CREATE PUBLICATION p FOR TABLE outbox_events (id, aggregate_type, aggregate_id, event_type, payload) WITH (publish = 'insert, update')"
            ),
        )
        .from(15)
        .until(
            "outbox table outbox_events has REPLICA IDENTITY FULL and an unpublished column number",
            alter("SET (publish = 'insert')"),
        ),
        case("a time that is none", format!("{keyed}; ALTER TABLE outbox_events ADD COLUMN created_at text"))
            .until("column created_at of outbox table outbox_events is no", "correct outbox.columns"),
        case(
            "a generated column before it can be published",
            keyed.replace(
                "aggregate_id text",
                "aggregate_id text GENERATED ALWAYS AS (lower(aggregate_type)) STORED",
            ),
        )
        .from(12)
        .up_to(17)
        .until(
            "column aggregate_id of outbox table outbox_events is generated",
            "make it an ordinary column that the application fills: ALTER TABLE \"public\".\"outbox_events\" ALTER COLUMN \"aggregate_id\" DROP EXPRESSION; PostgreSQL 18 can publish it",
        ),
        case(
            "a virtual column",
            keyed.replace(
                "aggregate_id text",
                "aggregate_id text GENERATED ALWAYS AS (lower(aggregate_type)) VIRTUAL",
            ),
        )
        .from(18)
        .until(
            "column aggregate_id of outbox table outbox_events is generated",
            "a virtual column is never published: make it STORED or an ordinary column",
        ),
        case(
            "a deferrable key in a publication by hand",
            published(&table(", PRIMARY KEY (id) DEFERRABLE"), "insert, delete"),
        )
        .until("outbox table outbox_events has a DEFERRABLE primary key: where", full),
        case(
            "no replica identity",
            published(
                &format!("{keyed}; ALTER TABLE outbox_events REPLICA IDENTITY NOTHING"),
                "insert, update",
            ),
        )
        .until("has REPLICA IDENTITY NOTHING", full),
        case("no INSERT", published(&keyed, "update")).until(
            "publication p does not publish INSERT of outbox_events",
            alter("SET (publish = 'insert, update')"),
        ),
        case("no UPDATE", published(&keyed, "insert")).policies(Stop, Ignore).until(
            "does not publish UPDATE of outbox_events, so outbox.on_update = \"stop\" has no effect",
            alter("SET (publish = 'insert, update')"),
        ),
        case("no TRUNCATE", published(&keyed, "insert, delete"))
            .policies(Ignore, Stop)
            .from(11)
            .until(
                "does not publish TRUNCATE of outbox_events, so outbox.on_delete = \"stop\" has no effect",
                alter("SET (publish = 'insert, delete, truncate')"),
            ),
        case("no TRUNCATE to be had", published(&keyed, "insert, delete"))
            .policies(Ignore, Stop)
            .up_to(10),
        case(
            "a generated column",
            table(", PRIMARY KEY (id)").replace(
                "aggregate_id text",
                "aggregate_id text GENERATED ALWAYS AS (lower(aggregate_type)) STORED",
            ),
        )
        .from(13)
        .until(
            "column aggregate_id of outbox table outbox_events is generated, and publication p does not publish it",
            "ALTER TABLE \"public\".\"outbox_events\" ALTER COLUMN \"aggregate_id\" DROP EXPRESSION",
        ),
        case(
            "a generated column that can be published",
            published(&keyed, "insert").replace(
                "aggregate_id text",
                "aggregate_id text GENERATED ALWAYS AS (lower(aggregate_type)) STORED",
            ),
        )
        .from(18)
        .until("column aggregate_id", alter("SET (publish_generated_columns = stored)")),
        case(
            "a row filter",
            format!("{keyed}; CREATE PUBLICATION p FOR TABLE outbox_events WHERE (id > 7)"),
        )
        .from(15)
        .until("publication p has a row filter on outbox_events: rows that do not match (id > 7)", again),
        case(
            "a column left out",
            format!(
                "{keyed}; CREATE TABLE other (id int PRIMARY KEY);
                 CREATE PUBLICATION p FOR TABLE other, outbox_events (id, aggregate_type, aggregate_id, event_type)"
            ),
        )
        .from(15)
        .until("publication p does not publish column payload of outbox_events", again),
        case(
            "a key left out",
            format!(
                "{keyed}; ALTER TABLE outbox_events ADD COLUMN number int; ALTER TABLE outbox_events DROP CONSTRAINT outbox_events_pkey, ADD PRIMARY KEY (number);
                 CREATE PUBLICATION p FOR TABLE outbox_events (id, aggregate_type, aggregate_id, event_type, payload) WITH (publish = 'insert, update')"
            ),
        )
        .from(15)
        .until(
            "outbox table outbox_events has an unpublished column number in its key",
            alter("SET (publish = 'insert')"),
        ),
    ]
}

async fn hold_on(server: &PostgresServer) {
    let version = server.query_text("postgres", "SHOW server_version_num").await;
    let major = version.expect("a version").parse::<u32>().expect("a number") / 10_000;
    for case in cases() {
        if (case.versions.0..=case.versions.1).contains(&major) {
            case.hold(server).await;
        }
    }
}

async fn started(major: u32) -> PostgresServer {
    PostgresServer::builder().version(major).start().await.expect("PostgreSQL starts")
}

impl Case {
    async fn hold(self, server: &PostgresServer) {
        let name = self.name;
        let database = server.create_database("start").await.expect("a database");
        let client = server.connect(&database).await.expect("a session");
        client.batch_execute(&self.made).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut config = Config::default();
        config.postgres.url = server.url_for(&database).into();
        config.postgres.slot = database.clone();
        config.postgres.publication = "p".into();
        let mut table = OutboxTable::new("outbox_events", OutboxPreset::Factlib);
        (table.on_update, table.on_delete) = self.policies;
        config.outbox = vec![table];
        config.kafka.brokers = vec![shared_kafka().await.expect("Kafka starts").bootstrap()];
        let log = Logger::root(Discard, o!());
        for (reason, remedy) in &self.refused {
            let error = factlib::setup(&config, false, &log).await;
            let error = error.err().unwrap_or_else(|| panic!("{name}: not refused: {reason}"));
            assert_eq!(error.kind(), ErrorKind::PostgresRefused, "{name}: {error}");
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(remedy), "{name}: {text}\n{remedy}");
            let report = doctor::examine(&config, &log).await.expect("a report");
            let said = report.checks.iter().any(|check| {
                check.outcome == CheckOutcome::Error
                    && check.found.contains(reason)
                    && check.remedy.as_ref().is_some_and(|text| text.contains(remedy))
            });
            assert!(said, "{name}: {:#?}", report.checks);
            if !["ALTER", "BEGIN"].iter().any(|begin| remedy.starts_with(begin)) {
                return;
            }
            client.batch_execute(remedy).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        factlib::setup(&config, false, &log)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // What is published must not make the application's changes fail.
        for change in ["UPDATE outbox_events SET payload = ''", "DELETE FROM outbox_events"] {
            client.batch_execute(change).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let query = "SELECT pg_drop_replication_slot($1)";
        client.execute(query, &[&database]).await.expect("the slot is dropped");
    }
}

#[actix::test]
async fn what_is_wrong_is_refused_until_the_remedy_is_typed_on_postgresql_10() {
    hold_on(&started(10).await).await;
}

#[actix::test]
async fn what_is_wrong_is_refused_until_the_remedy_is_typed_on_postgresql_14() {
    hold_on(&started(14).await).await;
}

#[actix::test]
async fn what_is_wrong_is_refused_until_the_remedy_is_typed_on_the_newest_that_is_installed() {
    hold_on(shared_postgres().await.expect("PostgreSQL starts")).await;
}

#[actix::test]
async fn what_is_wrong_is_refused_until_the_remedy_is_typed_on_postgresql_18() {
    hold_on(&started(18).await).await;
}

#[actix::test]
async fn a_row_filter_can_be_accepted_and_what_is_worth_a_look_refuses_nothing() {
    let server = started(18).await;
    let database = server.create_database("accepted").await.expect("a database");
    let client = server.connect(&database).await.expect("a session");
    let made = format!(
        "{EVENTS}; CREATE TABLE tenant_outbox (LIKE outbox_events INCLUDING ALL);
         CREATE TABLE orders (id int PRIMARY KEY);
         CREATE PUBLICATION p FOR TABLE outbox_events WHERE (event_type <> 'secret'), tenant_outbox, orders
             WITH (publish = 'insert')"
    );
    client.batch_execute(&made).await.expect("made");
    let mut config = Config::default();
    config.postgres.url = server.url_for(&database).into();
    config.postgres.slot = database.clone();
    config.postgres.publication = "p".into();
    config.postgres.accept_row_filter = true;
    config.outbox = vec![OutboxTable::new("outbox_events", OutboxPreset::Factlib)];
    config.kafka.brokers = vec![shared_kafka().await.expect("Kafka starts").bootstrap()];
    let log = Logger::root(Discard, o!());
    factlib::setup(&config, false, &log).await.expect("it is accepted");
    let report = doctor::examine(&config, &log).await.expect("a report");
    let warned = async |config: &Config| {
        let report = doctor::examine(config, &Logger::root(Discard, o!())).await.expect("a report");
        let checks = report.checks.into_iter().filter(|check| check.name == "publication");
        let checks = checks.filter(|check| check.outcome == CheckOutcome::Warning);
        checks
            .map(|check| format!("{} ({})", check.found, check.remedy.unwrap_or_default()))
            .collect()
    };
    let found: Vec<String> = warned(&config).await;
    let expected = [
        "publication p does not publish UPDATE of outbox_events, so outbox.on_update = \"warn\" has no effect \
         (ALTER PUBLICATION \"p\" SET (publish = 'insert, update'))",
        "publication p publishes public.orders, which no [[outbox]] names: its rows are not sent (add \
         [[outbox]] with table = \"public.orders\", or ALTER PUBLICATION \"p\" DROP TABLE \"public\".\"orders\")",
        "publication p publishes public.tenant_outbox, which no [[outbox]] names: its rows are not sent (add \
         [[outbox]] with table = \"public.tenant_outbox\", or ALTER PUBLICATION \"p\" DROP TABLE \
         \"public\".\"tenant_outbox\")",
    ];
    assert_eq!(found, expected, "{:#?}", report.checks);
    // Of all tables, only those count that look like an outbox.
    let all =
        "DROP PUBLICATION p; CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert, update')";
    client.batch_execute(all).await.expect("made");
    let found: Vec<String> = warned(&config).await;
    let expected = "publication p publishes public.tenant_outbox, which no [[outbox]] names: its rows are \
                    not sent (add [[outbox]] with table = \"public.tenant_outbox\")";
    assert_eq!(found, [expected]);
}
