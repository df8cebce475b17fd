//! `factlib doctor`: a good setup is ok from end to end, each error and warning comes with a
//! remedy, and the remedy, typed as it stands, makes the line ok. It changes nothing.
//!
//! The real binary against real servers.

use std::{fs, net::TcpListener, path::PathBuf};

use factlib::testing::{
    KafkaServer, PostgresServer, StopMode, create_topic, shared_kafka, shared_postgres,
};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::support::terminal::{Ended, Folder, SOON, stop};

/// A folder with a `factlib.toml`, as an operator works in it.
struct Desk(Folder);

/// What the doctor says, as JSON.
struct Findings {
    code: Option<i32>,
    report: Value,
}

impl Desk {
    fn new(url: &str, brokers: &str, more: &str) -> Self {
        let settings = format!(
            "postgres.url = \"{url}\"\nkafka.brokers = \"{brokers}\"\n\
             pipeline.startup_timeout = \"5s\"\n{more}"
        );
        Desk(Folder::new(&settings))
    }

    /// A database of its own in the shared server, with names of its own, and the shared Kafka.
    async fn shared(more: &str) -> (Self, String) {
        let server = shared_postgres().await.expect("a PostgreSQL");
        let database = server.create_database("doctor").await.expect("a database");
        let names = format!(
            "postgres.slot = \"{database}\"\npostgres.publication = \"p\"\n\
             postgres.message_prefix = \"{database}\"\n{more}"
        );
        (Self::new(&server.url_for(&database), &brokers().await, &names), database)
    }

    async fn type_in(&self, line: &str) -> Ended {
        self.0.type_in(line).await
    }

    async fn doctor(&self) -> Findings {
        self.doctor_with("").await
    }

    async fn doctor_with(&self, more: &str) -> Findings {
        let Ended { code, out, err } = self.type_in(&format!("factlib doctor --json{more}")).await;
        assert_eq!(err, "", "{out}");
        let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}"));
        Findings { code, report }
    }
}

impl Findings {
    fn line(&self, name: &str) -> &Value {
        let checks = self.report["checks"].as_array().expect("checks");
        let line = checks.iter().find(|check| check["name"] == name);
        line.unwrap_or_else(|| panic!("no line {name}: {:#}", self.report))
    }

    /// The remedy of a line that came out so.
    fn remedy(&self, name: &str, outcome: &str) -> String {
        let line = self.line(name);
        assert_eq!(line["outcome"], outcome, "{line:#}");
        let code = if self.report["errors"] == 0 { 0 } else { 1 };
        assert_eq!(self.code, Some(code), "{:#}", self.report);
        line["remedy"].as_str().expect("a remedy").to_owned()
    }

    fn is_ok(&self, name: &str) {
        assert_eq!(self.line(name)["outcome"], "ok", "{:#}", self.report);
    }

    /// Not a warning anywhere.
    fn all_ok(&self) {
        let checks = self.report["checks"].as_array().expect("checks");
        let bad: Vec<_> = checks.iter().filter(|check| check["outcome"] != "ok").collect();
        assert!(bad.is_empty() && self.code == Some(0), "{bad:#?}");
        assert!(checks.len() > 12, "{:#}", self.report);
        assert_eq!(self.report["ok"], true);
    }
}

async fn brokers() -> String {
    shared_kafka().await.expect("a Kafka").bootstrap()
}

/// The statement that begins so in a remedy, up to where its sentence goes on.
fn statement<'a>(remedy: &'a str, begin: &str) -> &'a str {
    let at = remedy.find(begin).unwrap_or_else(|| panic!("no {begin} in: {remedy}"));
    let rest = &remedy[at..];
    let end = [" and restart", "; ", ", or "].iter().filter_map(|end| rest.find(end)).min();
    &rest[..end.unwrap_or(rest.len())]
}

async fn execute(server: &PostgresServer, statement: &str) {
    let done = server.execute("postgres", statement).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Types a call of one of Kafka's programs.
async fn type_kafka(call: &str) {
    let words: Vec<&str> = call.split(' ').collect();
    // Of the two programs, only this one's class is in the jars that a broker needs.
    if let ["kafka-topics.sh", "--bootstrap-server", at, "--create", "--topic", topic] = words[..] {
        return create_topic(at, topic, 1, &[]).await.expect("a topic");
    }
    assert_eq!(words[0], "kafka-configs.sh", "{call}");
    let cache = std::env::var_os("FACTLIB_CACHE").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| std::env::home_dir().expect("a home").join(".cache/factlib"));
    let libs = std::env::var_os("FACTLIB_KAFKA_LIBS").map(PathBuf::from);
    let libs = libs.unwrap_or_else(|| {
        let folders = fs::read_dir(cache).expect("a cache").filter_map(Result::ok);
        let kafka = folders.map(|entry| entry.path().join("libs")).find(|path| path.is_dir());
        kafka.expect("a Kafka")
    });
    // What the script does.
    let mut java = Command::new("java");
    java.arg("-cp").arg(libs.join("*")).arg("kafka.admin.ConfigCommand").args(&words[1..]);
    let output = timeout(SOON, java.output()).await.expect("it ends").expect("java runs");
    assert!(output.status.success(), "{call}: {output:?}");
}

#[tokio::test]
async fn a_good_setup_is_ok_before_and_after_it_is_made_and_nothing_is_changed() {
    let (desk, database) = Desk::shared("").await;
    desk.doctor().await.all_ok();
    let server = shared_postgres().await.expect("a PostgreSQL");
    let made = format!(
        "SELECT (EXISTS (SELECT FROM pg_publication)
             OR EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{database}')
             OR to_regnamespace('factlib') IS NOT NULL)::text"
    );
    assert_eq!(server.query_text(&database, &made).await.expect("an answer"), "false");
    let topics = factlib::testing::topic_names(&brokers().await).await.expect("topics");
    assert!(!topics.iter().any(|topic| topic.starts_with(&database)), "{topics:?}");

    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    create_topic(&brokers().await, &format!("{database}.user"), 2, &[]).await.expect("a topic");
    desk.doctor().await.all_ok();
    let Ended { code, out, .. } = desk.type_in("factlib doctor").await;
    assert_eq!(code, Some(0));
    assert!(!out.contains('\x1b') && out.ends_with(" 0 errors, 0 warnings\n"), "{out}");
    let columns = out.lines().filter_map(|line| line.find("postgresql").or(line.find("kafka")));
    assert!(columns.into_iter().all(|column| column == 9), "not aligned: {out}");
}

#[tokio::test]
async fn wal_level_replica_is_an_error_until_the_setting_is_typed() {
    let server = PostgresServer::builder().setting("wal_level", "replica").start().await;
    let server = server.expect("a PostgreSQL");
    let desk = Desk::new(&server.url(), &brokers().await, "");
    let remedy = desk.doctor().await.remedy("wal_level", "error");
    execute(&server, statement(&remedy, "ALTER SYSTEM")).await;
    server.restart(StopMode::Fast).await.expect("a restart");
    desk.doctor().await.all_ok();
}

#[tokio::test]
async fn what_may_not_be_created_is_an_error_until_it_is_typed() {
    let (desk, database) = Desk::shared("postgres.create = false\n").await;
    let server = shared_postgres().await.expect("a PostgreSQL");
    let findings = desk.doctor().await;
    let publication = findings.remedy("publication", "error");
    let table = findings.remedy("checkpoint store", "error");
    let create = statement(&publication, "CREATE PUBLICATION");
    server.execute(&database, create).await.expect("a publication");
    desk.doctor().await.is_ok("publication");
    assert!(table.contains("`factlib setup`"), "{table}");
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    desk.doctor().await.all_ok();
    server
        .execute(&database, &format!("SELECT pg_drop_replication_slot('{database}')"))
        .await
        .expect("dropped");
    let remedy = desk.doctor().await.remedy("slot", "error");
    assert!(remedy.contains("`factlib setup`"), "{remedy}");
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    desk.doctor().await.all_ok();
}

#[tokio::test]
async fn outbox_tables_on_the_oldest_server_are_looked_at_too() {
    let server = PostgresServer::builder().version(10).start().await.expect("a PostgreSQL 10");
    let tables = "postgres.source = \"tables\"\n";
    let messages = Desk::new(&server.url(), &brokers().await, "");
    let remedy = messages.doctor().await.remedy("version", "error");
    assert!(remedy.contains("postgres.source = \"tables\""), "{remedy}");
    let desk = Desk::new(&server.url(), &brokers().await, tables);
    let remedy = desk.doctor().await.remedy("publication", "error");
    assert!(remedy.contains("factlib setup --outbox-table=public.outbox_events"), "{remedy}");
    execute(&server, &factlib::emit::schema::outbox_table("public.outbox_events").expect("a name"))
        .await;
    desk.doctor().await.is_ok("publication");

    // Who does not own the table can't publish it.
    execute(&server, "CREATE ROLE relay LOGIN REPLICATION").await;
    execute(&server, "GRANT CREATE ON DATABASE postgres TO relay").await;
    let url = format!("postgresql://relay@127.0.0.1:{}/postgres", server.port());
    let relay = Desk::new(&url, &brokers().await, tables);
    let remedy = relay.doctor().await.remedy("publication", "error");
    execute(&server, statement(&remedy, "CREATE PUBLICATION")).await;
    relay.doctor().await.is_ok("publication");
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    let findings = desk.doctor().await;
    assert_eq!(findings.code, Some(0), "{:#}", findings.report);
}

#[tokio::test]
async fn a_role_that_lacks_rights_is_an_error_until_they_are_granted() {
    let server = PostgresServer::start().await.expect("a PostgreSQL");
    execute(&server, "CREATE ROLE \"the relay\" LOGIN").await;
    let url = format!("postgresql://the%20relay@127.0.0.1:{}/postgres", server.port());
    let desk = Desk::new(&url, &brokers().await, "");
    let findings = desk.doctor().await;
    execute(&server, &findings.remedy("replication", "error")).await;
    execute(&server, &findings.remedy("privileges", "error")).await;
    desk.doctor().await.all_ok();
    drop(desk.0.relay().await);

    // Tables of somebody else.
    execute(&server, "DROP OWNED BY \"the relay\"").await;
    let owner = Desk::new(&server.url(), &brokers().await, "postgres.slot = \"other\"\n");
    assert_eq!(owner.type_in("factlib setup").await.code, Some(0));
    let theirs = Desk::new(&url, &brokers().await, "postgres.slot = \"other\"\n");
    let findings = theirs.doctor().await;
    let grants = findings.remedy("privileges", "error");
    assert!(
        grants.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON factlib.checkpoints"),
        "{grants}"
    );
    execute(&server, &grants).await;
    theirs.doctor().await.all_ok();
    drop(theirs.0.relay().await);
}

#[tokio::test]
async fn too_few_slots_is_an_error_until_there_are_more_or_one_is_dropped() {
    let server = PostgresServer::builder().setting("max_replication_slots", "1").start().await;
    let server = server.expect("a PostgreSQL");
    execute(&server, "SELECT pg_create_logical_replication_slot('idle', 'pgoutput')").await;
    let desk = Desk::new(&server.url(), &brokers().await, "");
    let remedy = desk.doctor().await.remedy("slots", "error");
    execute(&server, statement(&remedy, "SELECT pg_drop")).await;
    desk.doctor().await.all_ok();
    execute(&server, "SELECT pg_create_logical_replication_slot('idle', 'pgoutput')").await;
    execute(&server, statement(&remedy, "ALTER SYSTEM")).await;
    server.restart(StopMode::Fast).await.expect("a restart");
    desk.doctor().await.all_ok();
    drop(desk.0.relay().await);
}

#[tokio::test]
async fn a_slot_in_use_by_another_program_is_a_warning_that_names_the_process() {
    let (desk, database) = Desk::shared("").await;
    let relay = desk.0.relay().await;
    let own = desk.doctor().await;
    own.all_ok();
    assert!(own.report.to_string().contains("is read by a running relay"), "{}", own.report);
    stop(relay).await;
    let server = shared_postgres().await.expect("a PostgreSQL");
    let mut other = desk.0.command("factlib run");
    let url = format!("{}?application_name=pump", server.url_for(&database));
    let mut relay = other.env("FACTLIB_POSTGRES__URL", url).spawn().expect("it starts");
    let asking = async {
        loop {
            let findings = desk.doctor().await;
            if findings.report.to_string().contains("is read by pump") {
                return findings.remedy("slot", "warning");
            }
        }
    };
    let remedy = timeout(SOON, asking).await.expect("it reads");
    let pid = "SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = ";
    let pid = server.query_text("postgres", &format!("{pid}'{database}'")).await.expect("a pid");
    assert!(remedy.ends_with(&format!("SELECT pg_terminate_backend({pid})")), "{remedy}");
    relay.kill().await.expect("it is killed");
}

#[tokio::test]
async fn a_lost_slot_is_an_error_until_that_is_accepted_and_its_limit_a_warning() {
    let server = PostgresServer::builder().setting("max_slot_wal_keep_size", "1MB").start().await;
    let server = server.expect("a PostgreSQL");
    let desk = Desk::new(&server.url(), &brokers().await, "");
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    // Each switch ends a segment of 16 MB; the checkpoint then takes what is too much.
    for _ in 0..3 {
        execute(&server, "SELECT pg_logical_emit_message(false, 'o', 'x'), pg_switch_wal()").await;
    }
    execute(&server, "CHECKPOINT").await;
    let findings = desk.doctor().await;
    let remedy = findings.remedy("slot", "error");
    let command = remedy.split('`').nth(1).expect("a command");
    assert_eq!(desk.type_in(command).await.code, Some(0));
    desk.doctor().await.is_ok("slot");
    let remedy = findings.remedy("max_slot_wal_keep_size", "warning");
    for statement in remedy.split("; ") {
        execute(&server, statement).await;
    }
    // The postmaster reads its settings by and by.
    let reread =
        async { while desk.doctor().await.line("max_slot_wal_keep_size")["outcome"] != "ok" {} };
    timeout(SOON, reread).await.expect("the limit is raised");
    desk.doctor().await.all_ok();
}

#[tokio::test]
async fn much_retained_wal_is_a_warning_that_names_the_open_transaction() {
    let (desk, database) = Desk::shared("postgres.retained_wal_warning = \"1B\"\n").await;
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    let server = shared_postgres().await.expect("a PostgreSQL");
    let write = "SELECT pg_logical_emit_message(false, 'other', 'moves the WAL')";
    server.execute(&database, write).await.expect("WAL");
    let remedy = desk.doctor().await.remedy("retained WAL", "warning");
    // Another test's transaction may be open on the shared server.
    assert!(remedy.contains("factlib slot drop") || remedy.contains("end transaction"), "{remedy}");
}

#[tokio::test]
async fn a_slot_that_does_not_follow_to_standbys_is_a_warning_until_it_does() {
    let server = PostgresServer::builder().version(18).start().await.expect("a PostgreSQL 18");
    let desk = Desk::new(&server.url(), &brokers().await, "postgres.failover = false\n");
    assert_eq!(desk.type_in("factlib setup").await.code, Some(0));
    desk.doctor().await.all_ok();
    execute(&server, "SELECT pg_create_physical_replication_slot('standby')").await;
    let remedy = desk.doctor().await.remedy("failover", "warning");
    // Version 18 was fetched without its psql; any does.
    let newest = shared_postgres().await.expect("a PostgreSQL");
    let output = Command::new(newest.program("psql"))
        .arg(format!("{}?replication=database", server.url()))
        .args(["-c", statement(&remedy, "ALTER_REPLICATION_SLOT")])
        .output()
        .await
        .expect("psql runs");
    assert!(output.status.success(), "{output:?}");
    desk.doctor().await.all_ok();
}

#[tokio::test]
async fn a_standby_that_is_not_known_is_a_warning_until_it_has_a_slot() {
    let (desk, database) = Desk::shared("").await;
    let server = shared_postgres().await.expect("a PostgreSQL");
    let wait = format!(" --set delivery.wait_for_standbys={database}");
    let remedy = desk.doctor_with(&wait).await.remedy("wait_for_standbys", "warning");
    execute(server, statement(&remedy, "SELECT pg_create_physical_replication_slot")).await;
    desk.doctor_with(&wait).await.is_ok("wait_for_standbys");
    execute(server, &format!("SELECT pg_drop_replication_slot('{database}')")).await;
}

#[tokio::test]
async fn servers_that_are_away_are_errors_and_the_other_one_is_looked_at() {
    let (desk, _) = Desk::shared("").await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = listener.local_addr().expect("bound");
    drop(listener);
    let findings = desk.doctor_with(&format!(" --brokers {closed}")).await;
    let remedy = findings.remedy("brokers", "error");
    assert!(remedy.contains("kafka.brokers"), "{remedy}");
    findings.is_ok("clock");
    let findings = desk.doctor_with(&format!(" --postgres-url postgresql://u@{closed}/d")).await;
    let remedy = findings.remedy("connection", "error");
    assert!(remedy.contains("postgres.url"), "{remedy}");
    findings.is_ok("brokers");
    // As the remedy has it: with the right addresses.
    desk.doctor().await.all_ok();
}

#[tokio::test]
async fn topics_that_nobody_may_create_or_write_are_errors_until_it_is_typed() {
    let (desk, database) = Desk::shared("kafka.topics.create = false\n").await;
    type_kafka(&desk.doctor().await.remedy("dead-letter topic", "error")).await;
    desk.doctor().await.all_ok();

    let topic = format!("{database}.user");
    let settings = [("min.insync.replicas", "2"), ("max.message.bytes", "1000")];
    create_topic(&brokers().await, &topic, 1, &settings).await.expect("a topic");
    let findings = desk.doctor().await;
    type_kafka(&findings.remedy("max.message.bytes", "warning")).await;
    let remedy = findings.remedy("min.insync.replicas", "error");
    assert!(remedy.contains(&topic), "{remedy}");
    type_kafka(&remedy).await;
    desk.doctor().await.all_ok();
}

/// The preset of Debezium and routes send elsewhere than `{topic_prefix}.…`.
#[tokio::test]
async fn the_topics_that_are_looked_at_are_those_that_are_sent_to() {
    let (desk, database) = Desk::shared("").await;
    let routed = format!("audit-{database}");
    let taken = format!("aud.{database}");
    let settings = format!(
        "delivery.mode = \"exactly-once\"\n\
         [[route]]\nmatch.aggregate_type = \"login\"\ntopic = \"{routed}\"\n\
         [[route]]\nmatch.aggregate_type = \"logout\"\ntopic = \"aud_{database}\"\n\
         [[route]]\nmatch.aggregate_type = \"other\"\ntopic = \"cdc-{database}.{{aggregate_type}}\"\n"
    );
    let server = shared_postgres().await.expect("a PostgreSQL");
    let names = format!(
        "postgres.slot = \"{database}\"\npostgres.publication = \"p\"\n\
         postgres.message_prefix = \"{database}\"\n{settings}"
    );
    let routes = Desk::new(&server.url_for(&database), &brokers().await, &names);
    routes.doctor().await.all_ok();
    let small = [("max.message.bytes", "1000")];
    for topic in [routed.clone(), format!("cdc-{database}.other")] {
        create_topic(&brokers().await, &topic, 1, &small).await.expect("a topic");
        let remedy = routes.doctor().await.remedy("max.message.bytes", "warning");
        assert!(remedy.contains(&topic), "{remedy}");
        type_kafka(&remedy).await;
        routes.doctor().await.all_ok();
    }
    // A name that Kafka takes for one that is there.
    create_topic(&brokers().await, &taken, 1, &[]).await.expect("a topic");
    let remedy = routes.doctor().await.remedy("topics of routes", "error");
    assert!(remedy.contains("the same in a name"), "{remedy}");
    // Positions that Kafka would delete.
    let positions = format!("{database}.checkpoints");
    create_topic(&brokers().await, &positions, 1, &[]).await.expect("a topic");
    type_kafka(&routes.doctor().await.remedy("position topic", "error")).await;
    routes.doctor().await.is_ok("position topic");
    drop(desk);
    // Debezium's preset.
    let preset = "[[outbox]]\ntable = \"public.outbox\"\npreset = \"debezium\"\n";
    let (desk, database) = Desk::shared(preset).await;
    let create = "CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, \
                  aggregateid text NOT NULL, type text NOT NULL, payload jsonb)";
    server.execute(&database, create).await.expect("a table");
    let found = desk.doctor().await;
    let new = found.line("new topics")["found"].as_str().expect("a text").to_owned();
    assert!(new.starts_with("outbox.event.…"), "{new}");
}

#[tokio::test]
async fn more_replicas_than_brokers_is_an_error_and_one_in_sync_a_warning() {
    let (desk, _) = Desk::shared("kafka.topics.replication_factor = 3\n").await;
    let remedy = desk.doctor().await.remedy("new topics", "error");
    assert!(remedy.contains("kafka.topics.replication_factor"), "{remedy}");
    desk.doctor_with(" --set kafka.topics.replication_factor=1").await.all_ok();

    let kafka = KafkaServer::builder().brokers(3).property("default.replication.factor", "3");
    let kafka = kafka.start().await.expect("three brokers");
    let thin = [("min.insync.replicas", "1")];
    create_topic(&kafka.bootstrap(), "many.user", 1, &thin).await.expect("a topic");
    let line = format!(
        " --brokers {} --topic-prefix many --set kafka.topics.replication_factor=3",
        kafka.bootstrap()
    );
    let findings = desk.doctor_with(&line).await;
    let replicas = findings.line("min.insync.replicas");
    assert_eq!(replicas["outcome"], "warning", "{replicas:#}");
    type_kafka(replicas["remedy"].as_str().expect("a remedy")).await;
    desk.doctor_with(&line).await.all_ok();
}

#[tokio::test]
async fn a_broker_that_is_not_where_it_says_is_named_with_the_address() {
    let (desk, _) = Desk::shared("").await;
    let nowhere = "broker.invalid:9092";
    let alone = KafkaServer::builder().proxied().advertised(1, nowhere).start();
    let alone = alone.await.expect("a Kafka");
    let at = alone.proxy(1).expect("a way in").address();
    let findings = desk.doctor_with(&format!(" --brokers {at}")).await;
    let remedy = findings.remedy("advertised addresses", "error");
    assert!(remedy.contains("advertised.listeners"), "{remedy}");
    drop(alone);

    // Others answer, and one is never found.
    let kafka = KafkaServer::builder().brokers(3).advertised(3, nowhere).start();
    let kafka = kafka.await.expect("three brokers");
    let at = kafka.bootstrap().replace(&format!(",{nowhere}"), "");
    let findings = desk.doctor_with(&format!(" --brokers {at}")).await;
    let remedy = findings.remedy("advertised addresses", "error");
    assert!(remedy.contains("advertised.listeners"), "{remedy}");
    let found = findings.line("advertised addresses")["found"].as_str().expect("text");
    assert!(found.starts_with(&format!("{nowhere} can't be resolved")), "{found}");
}

#[tokio::test]
async fn a_second_relay_of_the_same_facts_is_a_warning_to_both() {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let database = server.create_database("twice").await.expect("a database");
    let desk = async |slot: &str, prefix: &str| {
        let names = format!(
            "postgres.slot = \"{database}_{slot}\"\npostgres.publication = \"{prefix}\"\n\
             postgres.message_prefix = \"{database}_{prefix}\"\ncheckpoint.store = \"memory\"\n"
        );
        Desk::new(&server.url_for(&database), &brokers().await, &names)
    };
    let (first, second, other) =
        (desk("a", "one").await, desk("b", "one").await, desk("c", "two").await);
    let relay = first.0.relay().await;
    let findings = second.doctor().await;
    let remedy = findings.remedy("other relays", "warning");
    assert!(remedy.contains("postgres.slot"), "{remedy}");
    let found = findings.line("other relays")["found"].as_str().expect("text");
    assert!(found.contains(&format!("{database}_a")), "{found}");
    // Of other facts, it is none of its business; nor is itself.
    other.doctor().await.is_ok("other relays");
    first.doctor().await.is_ok("other relays");
    let log = second.0.relay_says("sends the same events").await;
    assert!(log.contains(&format!("{database}_a")), "{log}");
    stop(relay).await;
    second.doctor().await.is_ok("other relays");
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_exit_code_2() {
    let (desk, _) = Desk::shared("").await;
    let Ended { code, out, err } = desk.type_in("factlib doctor --set pipeline.window=1KiB").await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("pipeline.window"), "{err}");
}
