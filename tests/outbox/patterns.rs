//! Outbox tables by a pattern: a new tenant's table is read without a restart, one that is dropped
//! disturbs nobody, and what can't be read is said.

use std::time::{Duration, Instant};

use factlib::{
    PipelineStatus,
    config::{OutboxPreset, OutboxTable},
    doctor::{self, CheckOutcome},
    testing::{CollectedLogs, ConsumedRecord, LogLine},
};
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use crate::support::{Bed, bed::LIMIT, rows::records, status::until};

/// The time in which a new table is to be read.
const SOON: Duration = Duration::from_secs(10);

/// The generation of a pipeline that was never restarted.
const FIRST: u64 = 1;

const ADDED: &str = "an outbox table was added to the publication";
const NOT_PUBLISHED: &str = "rows of an outbox table were not published, or not all of them";
const PROBLEM: &str = "an outbox table is not relayed as it is configured";

/// An outbox of this quoted name.
fn outbox(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (
             id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregate_type text NOT NULL DEFAULT 'user',
             aggregate_id text NOT NULL, event_type text NOT NULL DEFAULT 'e',
             payload text NOT NULL DEFAULT 'x', created_at timestamptz NOT NULL DEFAULT now())"
    )
}

fn tenant(name: &str) -> String {
    format!("CREATE SCHEMA {name}; {}", outbox(&format!("{name}.outbox")))
}

fn row(table: &str, aggregate_id: &str) -> String {
    format!("INSERT INTO {table} (aggregate_id) VALUES ('{aggregate_id}')")
}

async fn execute(bed: &Bed<'_>, statements: &str) {
    let done = bed.client().await.batch_execute(statements).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

fn by_pattern(bed: &mut Bed<'_>, patterns: &[&str]) {
    let table = |pattern: &&str| OutboxTable::new(*pattern, OutboxPreset::Factlib);
    bed.config.outbox = patterns.iter().map(table).collect();
}

fn topic(bed: &Bed<'_>) -> String {
    format!("{}.user", bed.name)
}

fn keys(records: &[ConsumedRecord]) -> Vec<String> {
    let keys = records.iter().map(|record| record.key.as_deref().expect("a key"));
    let mut keys: Vec<_> = keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    keys.sort_unstable();
    keys
}

/// What the doctor finds wrong, apart from the clock and the machine.
async fn complaints(bed: &Bed<'_>) -> Vec<String> {
    let log = Logger::root(Discard, o!());
    let report = doctor::examine(&bed.config, &log).await.expect("a report");
    let wrong = report.checks.into_iter().filter(|check| check.outcome == CheckOutcome::Error);
    wrong.map(|check| format!("{}: {}", check.name, check.found)).collect()
}

fn is_about(message: &'static str, table: &'static str) -> impl Fn(&LogLine) -> bool {
    move |line| line.message == message && line.value("table") == Some(table)
}

#[actix::test]
async fn a_new_tenant_is_read_soon_and_without_a_restart() {
    let mut bed = Bed::shared("patterns").await;
    execute(&bed, &format!("{}; {}", tenant("tenant_a"), tenant("other"))).await;
    execute(&bed, &outbox("public.tenant_outbox")).await;
    by_pattern(&mut bed, &["tenant_*.outbox", "\"tenant.b\".\"out\"\"*\""]);
    let odd = "\"tenant.b\".\"out\"\"*\"";
    execute(&bed, &format!("CREATE SCHEMA \"tenant.b\"; {}", outbox(odd))).await;
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let (name, topic) = (bed.name.clone(), topic(&bed));
    for table in ["tenant_a.outbox", odd, "other.outbox", "public.tenant_outbox"] {
        execute(&bed, &row(table, &table.replace('\'', ""))).await;
    }
    let mut expected = vec![odd.to_owned(), "tenant_a.outbox".to_owned()];
    assert_eq!(keys(&records(&bed, &topic, 2).await), expected);

    // What is published by the transaction that creates it is read from the first row on.
    let begun = Instant::now();
    let published = format!(
        "BEGIN; {}; ALTER PUBLICATION \"{name}\" ADD TABLE tenant_own.outbox; {}; COMMIT",
        tenant("tenant_own"),
        row("tenant_own.outbox", "own first"),
    );
    execute(&bed, &published).await;
    expected.push("own first".into());
    records(&bed, &topic, 3).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    // What nobody publishes, the relay does.
    let begun = Instant::now();
    execute(&bed, &tenant("tenant_new")).await;
    logs.await_line(is_about(ADDED, "tenant_new.outbox"), LIMIT).await.expect("it is added");
    execute(&bed, &row("tenant_new.outbox", "new")).await;
    expected.push("new".into());
    records(&bed, &topic, 4).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    // Names that have to be quoted, of a partitioned table.
    let odd = "\"tenant_A.\"\"%*\".outbox";
    let parted = outbox(odd).replace("PRIMARY KEY DEFAULT", "DEFAULT");
    execute(
        &bed,
        &format!(
            "CREATE SCHEMA \"tenant_A.\"\"%*\"; {parted} PARTITION BY HASH (id);
             CREATE TABLE \"tenant_A.\"\"%*\".part PARTITION OF {odd} FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             ALTER TABLE {odd} ADD PRIMARY KEY (id)"
        ),
    )
    .await;
    logs.await_line(is_about(ADDED, odd), LIMIT).await.expect("it is added");
    execute(&bed, &row(odd, "odd")).await;
    expected.push("odd".into());
    expected.sort_unstable();
    assert_eq!(keys(&records(&bed, &topic, 5).await), expected);

    let status = pipeline.status();
    assert_eq!(status.generation, FIRST);
    assert_eq!((status.publication_problems, status.unpublished), (vec![], vec![]));
    let lines = logs.lines();
    let bad = lines.iter().filter(|line| [NOT_PUBLISHED, PROBLEM].contains(&&*line.message));
    assert_eq!(bad.count(), 0, "{lines:#?}");
    assert_eq!(complaints(&bed).await, Vec::<String>::new());
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn rows_from_before_a_table_was_published_are_said_with_the_replay() {
    let mut bed = Bed::shared("earlier").await;
    by_pattern(&mut bed, &["tenant_*.outbox"]);
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("it starts without a table");
    until(&pipeline, "a look", |status| !status.publication_problems.is_empty()).await;
    let problems = pipeline.status().publication_problems;
    assert!(!problems[0].is_error && problems[0].problem.contains("matches no table"));
    let name = &bed.name;
    execute(&bed, &format!("{}; {}", tenant("tenant_a"), row("tenant_a.outbox", "lost"))).await;
    // By somebody else, in a later transaction.
    let add = format!("ALTER PUBLICATION \"{name}\" ADD TABLE tenant_b.outbox");
    execute(&bed, &format!("{}; {}", tenant("tenant_b"), row("tenant_b.outbox", "lost"))).await;
    execute(&bed, &add).await;
    until(&pipeline, "both are said", |status| status.unpublished.len() == 2).await;
    execute(&bed, &row("tenant_a.outbox", "sent")).await;
    assert_eq!(keys(&records(&bed, &topic(&bed), 1).await), ["sent"]);
    for table in ["tenant_a.outbox", "tenant_b.outbox"] {
        let rows = pipeline.status().unpublished;
        let rows = rows.iter().find(|rows| rows.table == table).expect("the table");
        assert!(rows.from_lsn.is_some_and(|from| from < rows.to_lsn), "{rows:?}");
        let replay = format!("factlib replay --table {table} --since 2");
        assert!(rows.replay.starts_with(&replay), "{rows:?}");
    }
    until(&pipeline, "all is well", |status| status.publication_problems.is_empty()).await;
    let said = logs.lines().iter().filter(|line| line.message == NOT_PUBLISHED).count();
    assert_eq!(said, 2);
    pipeline.shutdown().await.expect("a clean stop");

    // Also for those that are created while no relay runs.
    execute(&bed, &format!("{}; {}", tenant("tenant_c"), row("tenant_c.outbox", "lost"))).await;
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    let line = logs.await_line(is_about(NOT_PUBLISHED, "tenant_c.outbox"), LIMIT).await;
    let remedy = line.expect("it is said").value("remedy").map(str::to_owned).expect("a remedy");
    assert!(remedy.starts_with("factlib replay --table tenant_c.outbox --since TIME "), "{remedy}");
    execute(&bed, &row("tenant_c.outbox", "sent too")).await;
    assert_eq!(keys(&records(&bed, &topic(&bed), 2).await), ["sent", "sent too"]);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_tenant_that_is_dropped_under_load_disturbs_nobody() {
    const ROWS: usize = 300;
    let mut bed = Bed::shared("dropped_tenant").await;
    by_pattern(&mut bed, &["tenant_*.outbox"]);
    bed.config.postgres.publication_check_interval = Duration::from_millis(200);
    let tenants = ["tenant_a", "tenant_b", "tenant_c"];
    execute(&bed, &format!("{}; {}", tenant("tenant_a"), tenant("tenant_c"))).await;
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    execute(&bed, &tenant("tenant_b")).await;
    logs.await_line(is_about(ADDED, "tenant_b.outbox"), LIMIT).await.expect("it is added");
    let writers = tenants.map(|name| {
        let sessions = bed.sessions();
        actix::spawn(async move {
            let (client, connection) =
                sessions.connect(tokio_postgres::NoTls).await.expect("a session");
            actix::spawn(connection);
            for n in 0..ROWS {
                let statement = row(&format!("{name}.outbox"), &format!("{name} {n:03}"));
                client.batch_execute(&statement).await.expect("a row");
                // Half way, one tenant goes.
                if name == "tenant_b" && n == ROWS / 2 {
                    client.batch_execute("DROP SCHEMA tenant_b CASCADE").await.expect("dropped");
                    return;
                }
            }
        })
    });
    for writer in writers {
        writer.await.expect("all is written");
    }
    // What was committed before the table went is sent as well.
    let sent = 2 * ROWS + ROWS / 2 + 1;
    let mut all = keys(&records(&bed, &topic(&bed), sent).await);
    all.dedup();
    assert_eq!(all.len(), sent);
    logs.await_line(is_about("an outbox table is gone", "tenant_b.outbox"), LIMIT)
        .await
        .expect("it is noticed");
    execute(&bed, &tenant("tenant_d")).await;
    logs.await_line(is_about(ADDED, "tenant_d.outbox"), LIMIT).await.expect("it is added");
    execute(&bed, &row("tenant_d.outbox", "d")).await;
    records(&bed, &topic(&bed), sent + 1).await;
    let status = pipeline.status();
    assert_eq!(status.generation, FIRST);
    assert_eq!((status.publication_problems, status.unpublished), (vec![], vec![]));
    assert!(!logs.lines().iter().any(|line| line.message == PROBLEM));
    assert_eq!(complaints(&bed).await, Vec::<String>::new());
    // Written and dropped before the relay has read any of it.
    pipeline.shutdown().await.expect("a clean stop");
    execute(&bed, &row("tenant_d.outbox", "last of d")).await;
    execute(&bed, "DROP SCHEMA tenant_d CASCADE").await;
    let pipeline = bed.pipeline().start().await.expect("it starts again");
    let all = keys(&records(&bed, &topic(&bed), sent + 2).await);
    assert!(all.contains(&"last of d".to_owned()));
    bed.confirmed(bed.wal_end().await).await;
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_role_that_owns_nothing_says_what_its_owner_has_to_run() {
    let mut bed = Bed::shared("least_rights").await;
    by_pattern(&mut bed, &["tenant_*.outbox"]);
    bed.config.postgres.publication_check_interval = Duration::from_millis(200);
    let (name, role) = (bed.name.clone(), format!("{}_relay", bed.name));
    execute(
        &bed,
        &format!(
            "{}; CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {name} TO {role};
             CREATE PUBLICATION {name} FOR TABLE tenant_a.outbox WITH (publish = 'insert, update')",
            tenant("tenant_a")
        ),
    )
    .await;
    let url = bed.postgres.url_for(&bed.database).replacen("postgres@", &format!("{role}@"), 1);
    bed.config.postgres.url = url.into();
    let (log, logs) = CollectedLogs::logger();
    let pipeline = bed.pipeline().logger(log).start().await.expect("the pipeline starts");
    execute(&bed, &row("tenant_a.outbox", "a")).await;
    records(&bed, &topic(&bed), 1).await;
    execute(&bed, &tenant("tenant_b")).await;
    let is_said =
        |status: &PipelineStatus| status.publication_problems.iter().any(|at| at.is_error);
    until(&pipeline, "it is said", is_said).await;
    let problem = pipeline.status().publication_problems.remove(0);
    let add = format!("ALTER PUBLICATION \"{name}\" ADD TABLE \"tenant_b\".\"outbox\"");
    assert_eq!(problem.table.as_deref(), Some("tenant_b.outbox"));
    assert_eq!(
        problem.problem,
        format!("publication {name} does not have outbox table tenant_b.outbox")
    );
    assert_eq!(problem.remedy, format!("as the owner of the table and of the publication: {add}"));
    let complaint = complaints(&bed).await;
    assert_eq!(complaint, [format!("publication: {}", problem.problem)]);
    let log_of_doctor = Logger::root(Discard, o!());
    let report = doctor::examine(&bed.config, &log_of_doctor).await.expect("a report");
    let new_tables =
        report.checks.iter().find(|check| check.name == "new tables").expect("it is there");
    assert!(new_tables.found.contains("has to add it"), "{}", new_tables.found);
    // The others flow, and it is over once the statement was run.
    execute(&bed, &row("tenant_a.outbox", "a again")).await;
    records(&bed, &topic(&bed), 2).await;
    execute(&bed, &add).await;
    until(&pipeline, "it is over", |status| status.publication_problems.is_empty()).await;
    execute(&bed, &row("tenant_b.outbox", "b")).await;
    records(&bed, &topic(&bed), 3).await;
    assert_eq!(logs.lines().iter().filter(|line| line.message == PROBLEM).count(), 1);

    // With the rights of the owner, which need no more than a membership, the relay does it.
    execute(
        &bed,
        &format!(
            "CREATE ROLE {role}_owner; GRANT {role}_owner TO {role};
             ALTER PUBLICATION {name} OWNER TO {role}; {}; GRANT USAGE ON SCHEMA tenant_c TO {role};
             ALTER TABLE tenant_c.outbox OWNER TO {role}_owner",
            tenant("tenant_c")
        ),
    )
    .await;
    logs.await_line(is_about(ADDED, "tenant_c.outbox"), LIMIT).await.expect("it is added");
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_new_table_of_all_tables_is_read_with_all_that_the_catalog_knows_of_it() {
    let mut bed = Bed::shared("all_tables").await;
    by_pattern(&mut bed, &["tenant_*.outbox", "*.outbox_late", "tenant_named.outbox"]);
    // The one that is named has columns of its own.
    bed.config.outbox[2].columns.payload = Some("body".into());
    let all = format!(
        "CREATE PUBLICATION \"{}\" FOR ALL TABLES WITH (publish = 'insert, update')",
        bed.name
    );
    let named = tenant("tenant_named").replace("payload", "body");
    execute(&bed, &format!("{named}; {all}")).await;
    // No look while the test runs: the stream alone says that there is something new.
    bed.config.postgres.publication_check_interval = Duration::from_secs(3_600);
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let begun = Instant::now();
    let moods =
        tenant("tenant_a").replace("payload text NOT NULL DEFAULT 'x'", "payload tenant_a.mood");
    let moods =
        moods.replace("CREATE TABLE", "CREATE TYPE tenant_a.mood AS ENUM ('fine'); CREATE TABLE");
    execute(&bed, &format!("BEGIN; {moods}; {}; COMMIT", row("tenant_a.outbox", "none"))).await;
    let fine = "INSERT INTO tenant_a.outbox (aggregate_id, payload) VALUES ('fine', 'fine')";
    execute(&bed, fine).await;
    execute(&bed, &format!("{}; {}", outbox("outbox_late"), row("outbox_late", "late"))).await;
    execute(&bed, &row("tenant_named.outbox", "named")).await;
    // A table that does not fit, and is no outbox for anybody: its rows can be got back.
    execute(&bed, "CREATE SCHEMA tenant_z; CREATE TABLE tenant_z.outbox (id int PRIMARY KEY)")
        .await;
    execute(&bed, "INSERT INTO tenant_z.outbox VALUES (1)").await;
    execute(&bed, &row("outbox_late", "behind it")).await;
    let sent = records(&bed, &topic(&bed), 5).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(keys(&sent), ["behind it", "fine", "late", "named", "none"]);
    let payload = |key: &[u8]| {
        let record =
            sent.iter().find(|record| record.key.as_deref() == Some(key)).expect("the record");
        let value = record.value.as_deref().expect("a value");
        <factlib::proto::OutboxEvent as prost::Message>::decode(value).expect("an event").payload
    };
    assert_eq!((&payload(b"fine")[..], &payload(b"named")[..]), (&b"fine"[..], &b"x"[..]));
    let letters = records(&bed, &bed.config.dead_letter_topic(), 1).await;
    assert!(
        String::from_utf8_lossy(letters[0].value.as_deref().expect("a row")).contains("\"id\"")
    );
    let status = pipeline.status();
    assert_eq!(status.generation, FIRST);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn a_table_that_does_not_fit_is_said_and_does_not_stop_the_others() {
    let mut bed = Bed::shared("misfit").await;
    by_pattern(&mut bed, &["tenant_*.outbox"]);
    bed.config.postgres.publication_check_interval = Duration::from_millis(200);
    execute(&bed, &tenant("tenant_a")).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    execute(&bed, &row("tenant_a.outbox", "a")).await;
    records(&bed, &topic(&bed), 1).await;
    // To publish it would make the application's UPDATE fail.
    let keyless = tenant("tenant_b").replace("PRIMARY KEY", "");
    let misnamed = tenant("tenant_c").replace("payload", "body");
    execute(&bed, &format!("{keyless}; {misnamed}")).await;
    let are_said = |status: &PipelineStatus| {
        let about = |table: &str| {
            let mut problems = status.publication_problems.iter();
            problems.any(|problem| problem.is_error && problem.table.as_deref() == Some(table))
        };
        about("tenant_b.outbox") && about("tenant_c.outbox")
    };
    until(&pipeline, "both are said", are_said).await;
    let said = format!("{:?}", pipeline.status().publication_problems);
    assert!(said.contains("tenant_c.outbox has no column payload"), "{said}");
    execute(
        &bed,
        &format!("{}; UPDATE tenant_b.outbox SET event_type = 'f'", row("tenant_b.outbox", "b")),
    )
    .await;
    execute(&bed, &row("tenant_a.outbox", "a again")).await;
    assert_eq!(keys(&records(&bed, &topic(&bed), 2).await), ["a", "a again"]);
    // Mended, they are taken up, and what was written meanwhile is said.
    execute(&bed, "ALTER TABLE tenant_b.outbox ADD PRIMARY KEY (id)").await;
    execute(&bed, "ALTER TABLE tenant_c.outbox RENAME body TO payload").await;
    until(&pipeline, "they fit", |status| {
        status.publication_problems.is_empty() && status.unpublished.len() == 1
    })
    .await;
    assert_eq!(pipeline.status().unpublished[0].table, "tenant_b.outbox");
    execute(&bed, &row("tenant_c.outbox", "c")).await;
    records(&bed, &topic(&bed), 3).await;
    assert_eq!(pipeline.status().generation, FIRST);
    pipeline.shutdown().await.expect("a clean stop");
}

#[actix::test]
async fn the_statements_of_setup_publish_the_tables_that_match() {
    let mut bed = Bed::shared("printed").await;
    by_pattern(&mut bed, &["tenant_*.outbox", "app.facts", "\"te'n\"\"ant\".o*"]);
    execute(&bed, &format!("{}; {}", tenant("tenant_a"), tenant("tenantXb"))).await;
    execute(&bed, &format!("CREATE SCHEMA app; {}", outbox("app.facts"))).await;
    execute(&bed, &format!("CREATE SCHEMA \"te'n\"\"ant\"; {}", outbox("\"te'n\"\"ant\".o1")))
        .await;
    let sql = factlib::setup_sql(&bed.config);
    execute(&bed, sql.split_once("SELECT pg_create_logical").expect("a slot").0).await;
    let tables = "SELECT schemaname || '.' || tablename FROM pg_publication_tables
                  WHERE pubname = current_database() ORDER BY schemaname COLLATE \"C\"";
    let published = async |bed: &Bed<'_>| -> Vec<String> {
        let rows = bed.client().await.query(tables, &[]).await.expect("rows");
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(published(&bed).await, ["app.facts", "te'n\"ant.o1", "tenant_a.outbox"]);
    // What was created since, setup adds.
    execute(&bed, &tenant("tenant_b")).await;
    let log = Logger::root(Discard, o!());
    factlib::setup(&bed.config, false, &log).await.expect("it is set up");
    let all = ["app.facts", "te'n\"ant.o1", "tenant_a.outbox", "tenant_b.outbox"];
    assert_eq!(published(&bed).await, all);
}

#[actix::test]
async fn old_rows_go_from_all_tables_that_match() {
    let mut bed = Bed::shared("pattern_retention").await;
    by_pattern(&mut bed, &["tenant_*.outbox", "tenant_own.outbox"]);
    // Only tables of factlib's shape are cleaned by default.
    let debezium = OutboxTable::new("tenant_own.outbox", OutboxPreset::Debezium);
    bed.config.outbox[1] = debezium;
    bed.config.outbox[1].columns.aggregate_type = Some("aggregate_type".into());
    bed.config.outbox[1].columns.aggregate_id = Some("aggregate_id".into());
    execute(&bed, &tenant("tenant_own")).await;
    let old = |table: &str| {
        format!("INSERT INTO {table} (aggregate_id, created_at) VALUES ('old', 'epoch')")
    };
    execute(&bed, &old("tenant_own.outbox")).await;
    bed.config.retention.after = Some(Duration::from_secs(3600));
    bed.config.retention.interval = Duration::from_millis(100);
    bed.config.checkpoint.idle_interval = Duration::from_millis(100);
    execute(&bed, &tenant("tenant_a")).await;
    let pipeline = bed.pipeline().start().await.expect("the pipeline starts");
    let added = format!("ALTER PUBLICATION \"{}\" ADD TABLE tenant_b.outbox", bed.name);
    execute(&bed, &format!("BEGIN; {}; {added}; COMMIT", tenant("tenant_b"))).await;
    for table in ["tenant_a.outbox", "tenant_b.outbox"] {
        execute(&bed, &format!("{}; {}", old(table), row(table, "young"))).await;
    }
    records(&bed, &topic(&bed), 4).await;
    let left = "SELECT count(*) FROM (TABLE tenant_a.outbox UNION ALL TABLE tenant_b.outbox) AS t";
    let client = bed.client().await;
    let waiting = async {
        while client.query_one(left, &[]).await.expect("a count").get::<_, i64>(0) != 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, waiting).await.expect("old rows are removed");
    let kept = "SELECT count(*) FROM tenant_own.outbox";
    assert_eq!(client.query_one(kept, &[]).await.expect("a count").get::<_, i64>(0), 1);
    pipeline.shutdown().await.expect("a clean stop");
}
