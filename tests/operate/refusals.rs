//! What the operator sees when the command can't do its work: one line that says
//! what, to what, and what to do; the documented exit code; never a secret.
//!
//! The real binary against real servers. Its log is JSON on stderr when that is no
//! terminal; the one line that starts with `factlib: ` comes last.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use factlib::testing::{PostgresServer, shared_kafka, shared_postgres, wait_for_count};
use serde_json::Value;

use crate::support::terminal::{self, Folder, SOON, stop};

/// In every connection string here, and nowhere in any output.
const SECRET: &str = "hunter2";

/// A folder with a `factlib.toml`, as an operator works in it.
struct Desk(Folder);

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    /// The lines of the log.
    log: Vec<Value>,
    /// What follows `factlib: `, where it complained.
    complaint: Option<String>,
}

impl Desk {
    fn new(settings: &str) -> Self {
        Desk(Folder::new(settings))
    }

    /// A relay with these connections, and a fast end where they can't be made.
    fn relay(url: &str, brokers: &str, more: &str) -> Self {
        Self::new(&format!(
            "postgres.url = \"{url}\"\nkafka.brokers = \"{brokers}\"\n\
             pipeline.startup_timeout = \"1s\"\n{more}"
        ))
    }

    async fn type_in(&self, line: &str) -> Ended {
        let terminal::Ended { code, out: stdout, err: stderr } = self.0.type_in(line).await;
        assert!(!stderr.contains(SECRET) && !stdout.contains(SECRET), "{stdout}{stderr}");
        let mut lines: Vec<&str> = stderr.lines().collect();
        let complaint = lines.pop_if(|line| line.starts_with("factlib: "));
        let log = lines.into_iter().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|_| panic!("not a log line: {line}"))
        });
        Ended {
            code,
            stdout,
            log: log.collect(),
            complaint: complaint.map(|line| line["factlib: ".len()..].to_owned()),
        }
    }

    /// The complaint of a command that ends with this exit code and says all of `parts`.
    async fn refuses(&self, line: &str, code: i32, parts: &[&str]) -> String {
        let ended = self.type_in(line).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{line}: {ended:?}");
        let complaint = ended.complaint.unwrap_or_else(|| panic!("{line} says nothing"));
        for part in parts {
            assert!(complaint.contains(part), "{part:?} is not in: {complaint}");
        }
        complaint
    }

    /// Runs the relay until it reads, then does `work`, then stops it in order.
    async fn relays(&self, work: impl AsyncFnOnce()) {
        let relay = self.0.relay().await;
        work().await;
        stop(relay).await;
    }
}

/// The command in the backquotes of a remedy.
fn remedy(complaint: &str) -> &str {
    complaint.split('`').nth(1).unwrap_or_else(|| panic!("no command in: {complaint}"))
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// The connection string of a user with a password, which most servers here do not ask for.
fn url(server: &PostgresServer, user: &str, database: &str) -> String {
    format!("postgresql://{user}:{SECRET}@127.0.0.1:{}/{database}", server.port())
}

async fn brokers() -> String {
    shared_kafka().await.expect("a Kafka").bootstrap()
}

/// A desk for a database of its own in the shared server, and that database's name.
async fn desk(more: &str) -> (Desk, String) {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let database = server.create_database("refusals").await.expect("a database");
    let names = format!(
        "postgres.slot = \"{database}\"\npostgres.publication = \"p\"\n\
         postgres.message_prefix = \"{database}\"\n{more}"
    );
    (Desk::relay(&url(server, "postgres", &database), &brokers().await, &names), database)
}

async fn execute(database: &str, statement: &str) {
    let server = shared_postgres().await.expect("a PostgreSQL");
    server.execute(database, statement).await.expect("PostgreSQL takes it");
}

/// Relays a fact, so that there is a checkpoint; then the relay is stopped.
async fn relay_a_fact(desk: &Desk, database: &str) {
    desk.relays(async || {
        let fact = "--aggregate-type user --aggregate-id u1 --event-type created";
        let emitted = desk.type_in(&format!("factlib emit {fact}")).await;
        assert_eq!(emitted.code, Some(0), "{emitted:?}");
        let topic = format!("{database}.user");
        wait_for_count(&brokers().await, &[&topic], 1, SOON).await.expect("it arrives");
    })
    .await;
}

#[tokio::test]
async fn a_log_level_leaves_the_one_line() {
    let desk = Desk::relay(
        &format!("postgresql://u:{SECRET}@127.0.0.1:{}", closed_port()),
        "127.0.0.1:1",
        "",
    );
    let ended = desk.type_in("factlib setup --log-level error").await;
    assert_eq!((ended.code, ended.log.len()), (Some(3), 0), "{ended:?}");
    assert!(ended.complaint.is_some());
    let ended = desk.type_in("factlib run --log-level error").await;
    assert_eq!((ended.code, ended.log.len()), (Some(4), 0), "{ended:?}");
    assert!(ended.complaint.is_some());
}

#[tokio::test]
async fn a_malformed_configuration_names_the_setting_and_its_place() {
    for (settings, parts) in [
        ("[postgres\n", &["factlib.toml line 1", "is not TOML"][..]),
        ("[kafka]\nbroker = \"a:1\"\n", &["kafka.broker", "line 2", "did you mean kafka.brokers?"]),
        ("[kafka]\nbrokers = [\"a\"]\n", &["kafka.brokers", "\"a\" is not host:port"]),
        ("[pipeline]\nwindow = \"1KiB\"\n", &["pipeline.window", "at least one batch"]),
        ("[postgres]\nslot = \"My-Slot\"\n", &["postgres.slot", "\"My-Slot\"", "lower-case"]),
        (
            "[postgres]\nurl = \"postgresql://u:hunter2@h/d?sslmod=require\"\n",
            &["sslmod", "sslmode"],
        ),
        ("[postgres]\nurl = \"mysql://u:hunter2@h/d\"\n", &["postgres", "scheme"]),
        ("[postgres]\nurl = \"host=h password='hunter2\"\n", &["closing quote"]),
        ("[kafka]\nusername = \"u\"\n", &["kafka.password", "kafka.username needs it"]),
        ("[kafka.properties]\nacks = 1\n", &["kafka.properties.acks"]),
    ] {
        let desk = Desk::new(settings);
        for line in ["factlib run", "factlib setup"] {
            desk.refuses(line, 2, parts).await;
        }
    }
}

#[tokio::test]
async fn a_login_that_is_refused_ends_every_command() {
    let server = PostgresServer::builder().password("another").start().await.expect("a PostgreSQL");
    server.execute("postgres", "CREATE ROLE plain LOGIN PASSWORD 'hunter2'").await.expect("a role");
    let fact = "factlib emit --aggregate-type a --aggregate-id b --event-type c";
    let wrong = Desk::relay(&url(&server, "postgres", "postgres"), &brokers().await, "");
    let nowhere = Desk::relay(&url(&server, "plain", "nowhere"), &brokers().await, "");
    for line in ["factlib run", "factlib setup", fact] {
        let parts = ["password authentication failed", "28P01", "check user and password"];
        wrong.refuses(line, 3, &parts).await;
        let parts = ["database \"nowhere\" does not exist", "3D000", "create it"];
        nowhere.refuses(line, 3, &parts).await;
    }
    let plain = Desk::relay(&url(&server, "plain", "postgres"), &brokers().await, "");
    for line in ["factlib run", "factlib setup"] {
        plain.refuses(line, 3, &["42501", "REPLICATION"]).await;
    }
    let nothing = format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port());
    let nothing = Desk::relay(&nothing, &brokers().await, "");
    nothing.refuses("factlib run", 3, &["password", "PGPASSWORD"]).await;
}

#[tokio::test]
async fn a_server_that_cannot_decode_says_which_setting_to_change() {
    let server = PostgresServer::builder().setting("wal_level", "replica").start().await;
    let server = server.expect("a PostgreSQL");
    let desk = Desk::relay(&url(&server, "postgres", "postgres"), &brokers().await, "");
    for line in ["factlib run", "factlib setup"] {
        let parts = ["wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'"];
        desk.refuses(line, 3, &parts).await;
    }
}

#[tokio::test]
async fn a_server_without_a_free_slot_says_how_to_get_one() {
    let server = PostgresServer::builder().setting("max_replication_slots", "1").start().await;
    let server = server.expect("a PostgreSQL");
    let taken = "SELECT pg_create_physical_replication_slot('taken')";
    server.execute("postgres", taken).await.expect("a slot");
    let desk = Desk::relay(&url(&server, "postgres", "postgres"), &brokers().await, "");
    for line in ["factlib run", "factlib setup"] {
        let parts = ["cannot create slot factlib", "53400", "raise max_replication_slots"];
        desk.refuses(line, 3, &parts).await;
    }
}

#[tokio::test]
async fn a_postgres_that_cannot_be_reached_is_given_up_after_the_startup_timeout() {
    let at = format!("127.0.0.1:{}", closed_port());
    let desk = Desk::relay(&format!("postgresql://u:{SECRET}@{at}/d"), &brokers().await, "");
    let begun = Instant::now();
    let parts = ["cannot connect to PostgreSQL at", at.as_str(), "Connection refused"];
    desk.refuses("factlib run", 3, &parts).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_given_up_after_the_startup_timeout() {
    let (desk, _) = desk("").await;
    let at = format!("127.0.0.1:{}", closed_port());
    let begun = Instant::now();
    let line = format!("factlib run --brokers {at}");
    desk.refuses(&line, 4, &["cannot reach Kafka at", &at, "Connection refused"]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_after_the_startup_timeout() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = silent.local_addr().expect("bound").to_string();
    let begun = Instant::now();
    let postgres = Desk::relay(&format!("postgresql://u:{SECRET}@{at}/d"), &brokers().await, "");
    postgres.refuses("factlib run", 3, &["PostgreSQL at", &at]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let (kafka, _) = desk("").await;
    let line = format!("factlib run --brokers {at}");
    kafka.refuses(&line, 4, &["cannot reach Kafka at", &at]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn without_leave_to_create_what_is_missing_is_named_and_setup_makes_it() {
    let (desk, database) = desk("postgres.create = false\ncheckpoint.store = \"file\"\n").await;
    let publication = desk.refuses("factlib run", 3, &["publication p does not exist"]).await;
    assert!(publication.contains("CREATE PUBLICATION \"p\""), "{publication}");
    execute(&database, "CREATE PUBLICATION p").await;
    let parts = [&format!("slot {database} does not exist"), "postgres.create = true"];
    let slot = desk.refuses("factlib run", 3, &parts).await;
    assert_eq!((remedy(&publication), remedy(&slot)), ("factlib setup", "factlib setup"));
    let setup = desk.type_in(remedy(&slot)).await;
    assert_eq!((setup.code, setup.complaint), (Some(0), None));
    assert!(setup.stdout.contains("publication p: exists"), "{}", setup.stdout);
    assert!(setup.stdout.contains(&format!("slot {database}: created")), "{}", setup.stdout);
    desk.relays(async || {}).await;
}

#[tokio::test]
async fn a_missing_checkpoint_table_is_named_and_setup_makes_it() {
    let (desk, database) = desk("postgres.create = false\n").await;
    execute(&database, "CREATE PUBLICATION p").await;
    let complaint = desk.refuses("factlib run", 6, &["table factlib.checkpoints"]).await;
    assert_eq!(desk.type_in(remedy(&complaint)).await.code, Some(0));
    desk.relays(async || {}).await;
}

/// Brings a slot that has a checkpoint into a state in which facts may be missing.
async fn accepts(break_it: &str, why: &str) {
    let (desk, database) = desk("").await;
    relay_a_fact(&desk, &database).await;
    execute(&database, "SELECT pg_logical_emit_message(true, 'other', 'moves the WAL')").await;
    execute(&database, &break_it.replace("{slot}", &database)).await;
    for line in ["factlib run", "factlib setup"] {
        let complaint = desk.refuses(line, 5, &[why, &database, "missing"]).await;
        assert_eq!(remedy(&complaint), "factlib setup --accept-position");
    }
    let accepted = desk.type_in("factlib setup --accept-position").await;
    assert_eq!((accepted.code, accepted.complaint), (Some(0), None), "{:?}", accepted.log);
    // It relays again, what comes from now on.
    desk.relays(async || {
        let fact = "--aggregate-type again --aggregate-id u1 --event-type created";
        assert_eq!(desk.type_in(&format!("factlib emit {fact}")).await.code, Some(0));
        let topic = format!("{database}.again");
        wait_for_count(&brokers().await, &[&topic], 1, SOON).await.expect("it arrives");
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_is_gone_has_to_be_accepted() {
    accepts("SELECT pg_drop_replication_slot('{slot}')", "is gone").await;
}

#[tokio::test]
async fn a_slot_that_was_recreated_has_to_be_accepted() {
    let statements = "SELECT pg_drop_replication_slot('{slot}');
        SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')";
    accepts(statements, "recreated or advanced").await;
}

#[tokio::test]
async fn a_slot_that_was_advanced_has_to_be_accepted() {
    let statement = "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())";
    accepts(statement, "recreated or advanced").await;
}

#[tokio::test]
async fn a_slot_of_another_plugin_is_left_alone() {
    let (desk, database) = desk("").await;
    let create =
        format!("SELECT pg_create_logical_replication_slot('{database}', 'test_decoding')");
    execute(&database, &create).await;
    for line in ["factlib run", "factlib setup", "factlib setup --accept-position"] {
        desk.refuses(line, 3, &["test_decoding", &database, "postgres.slot"]).await;
    }
}

#[tokio::test]
async fn in_the_wrong_database_nothing_is_made() {
    let (right, database) = desk("").await;
    assert_eq!(right.type_in("factlib setup").await.code, Some(0));
    let server = shared_postgres().await.expect("a PostgreSQL");
    let wrong = server.create_database("wrong").await.expect("a database");
    let names = |more: &str| {
        format!(
            "postgres.slot = \"{database}\"\npostgres.publication = \"p\"\n\
             checkpoint.store = \"postgres\"\n{more}"
        )
    };
    let made = "SELECT (to_regnamespace('factlib') IS NOT NULL
        OR EXISTS (SELECT FROM pg_publication))::text";
    let untouched = async || {
        assert_eq!(server.query_text(&wrong, made).await.expect("an answer"), "false");
    };
    let desk = async |more: &str| {
        Desk::relay(&url(server, "postgres", &wrong), &brokers().await, &names(more))
    };
    // The slot is there, and belongs to the other one.
    for line in ["factlib run", "factlib setup", "factlib setup --accept-position"] {
        desk("").await.refuses(line, 3, &["belongs to", &database, &wrong]).await;
        untouched().await;
    }
    // The slot is nowhere yet, but neither is the table of the outbox.
    let tables = "postgres.source = \"tables\"\n[[outbox]]\ntable = \"public.outbox_events\"\n";
    let more = format!("postgres.slot = \"{database}_2\"\n{tables}");
    let settings = names("").replace(&format!("postgres.slot = \"{database}\"\n"), "") + &more;
    let desk = Desk::relay(&url(server, "postgres", &wrong), &brokers().await, &settings);
    for line in ["factlib run", "factlib setup"] {
        desk.refuses(line, 3, &["outbox_events"]).await;
        untouched().await;
    }
}

#[tokio::test]
async fn what_another_instance_makes_at_the_same_moment_is_found_there() {
    let (_, database) = desk("").await;
    let server = shared_postgres().await.expect("a PostgreSQL");
    let desk = Desk::new(&format!(
        "postgres.url = \"{}\"\nkafka.brokers = \"{}\"\npostgres.slot = \"{database}\"\n\
         postgres.publication = \"p\"\npostgres.message_prefix = \"{database}\"\n",
        server.url_for(&database),
        brokers().await
    ));
    let mut other = server.connect(&database).await.expect("a session");
    let making = other.transaction().await.expect("a transaction");
    making.batch_execute("CREATE PUBLICATION p").await.expect("made");
    let waits = format!(
        "SELECT count(*)::text FROM pg_stat_activity WHERE datname = '{database}'
         AND wait_event_type = 'Lock' AND query LIKE 'CREATE PUBLICATION%'"
    );
    let commit = async {
        while server.query_text("postgres", &waits).await.expect("an answer") == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        making.commit().await.expect("committed");
    };
    tokio::join!(desk.relays(async || {}), commit);
}

#[tokio::test]
async fn an_acceptance_that_fails_leaves_the_refusal_in_force() {
    let (desk, database) = desk("").await;
    relay_a_fact(&desk, &database).await;
    let drop = format!("SELECT pg_drop_replication_slot('{database}')");
    execute(&database, &drop).await;
    let create =
        format!("SELECT pg_create_logical_replication_slot('{database}', 'test_decoding')");
    execute(&database, &create).await;
    desk.refuses("factlib setup --accept-position", 3, &["test_decoding"]).await;
    execute(&database, &drop).await;
    desk.refuses("factlib run", 5, &["is gone", "missing"]).await;
}

#[tokio::test]
async fn a_publication_made_for_a_slot_that_is_older_is_a_warning() {
    let (desk, database) = desk("").await;
    let create = format!("SELECT pg_create_logical_replication_slot('{database}', 'pgoutput')");
    execute(&database, &create).await;
    let setup = desk.type_in("factlib setup").await;
    assert_eq!((setup.code, setup.complaint), (Some(0), None));
    let server = shared_postgres().await.expect("a PostgreSQL");
    let version = server.query_text("postgres", "SHOW server_version_num").await;
    let warns = version.expect("a version").parse::<u32>().expect("a number") < 18_00_00;
    let said = |line: &Value| line.to_string().contains("the slot is older than the publication");
    assert_eq!(setup.log.iter().any(said), warns, "{:?}", setup.log);
}

#[tokio::test]
async fn a_slot_whose_wal_is_gone_has_to_be_accepted() {
    let server = PostgresServer::builder().setting("max_slot_wal_keep_size", "1MB").start().await;
    let server = server.expect("a PostgreSQL");
    let desk = Desk::relay(&url(&server, "postgres", "postgres"), &brokers().await, "");
    desk.relays(async || {}).await;
    // Each switch ends a segment of 16 MB; the checkpoint then takes what is too much.
    for _ in 0..3 {
        let write = "SELECT pg_logical_emit_message(false, 'other', 'x'), pg_switch_wal()";
        server.execute("postgres", write).await.expect("WAL");
    }
    server.execute("postgres", "CHECKPOINT").await.expect("a checkpoint");
    let complaint = desk.refuses("factlib run", 5, &["was invalidated", "missing"]).await;
    let accepted = desk.type_in(remedy(&complaint)).await;
    assert_eq!((accepted.code, accepted.complaint), (Some(0), None), "{:?}", accepted.log);
    desk.relays(async || {}).await;
}

#[tokio::test]
async fn a_publication_that_is_younger_than_what_the_slot_reads_has_to_be_accepted() {
    let (desk, database) = desk("").await;
    let create = format!("SELECT pg_create_logical_replication_slot('{database}', 'pgoutput')");
    execute(&database, &create).await;
    execute(&database, "CREATE TABLE t (id int)").await;
    // Of a change to a table, the server asks the publication of that moment.
    execute(&database, "INSERT INTO t VALUES (1)").await;
    let server = shared_postgres().await.expect("a PostgreSQL");
    let version = server.query_text("postgres", "SHOW server_version_num").await;
    if version.expect("a version").parse::<u32>().expect("a number") >= 18_00_00 {
        return desk.relays(async || {}).await;
    }
    let parts = ["publication \"p\" does not exist", "older than what the slot reads"];
    let complaint = desk.refuses("factlib run", 3, &parts).await;
    // The walsender tells of its error first, and gives the slot free then.
    let drop = format!(
        "DO $$ BEGIN
           WHILE (SELECT active FROM pg_replication_slots WHERE slot_name = '{database}') LOOP
             PERFORM pg_sleep(0.01);
           END LOOP;
         END $$;
         SELECT pg_drop_replication_slot('{database}')"
    );
    execute(&database, &drop).await;
    assert_eq!(desk.type_in(remedy(&complaint)).await.code, Some(0));
    relay_a_fact(&desk, &database).await;
}
