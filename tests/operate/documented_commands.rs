//! Types the commands of the pages, and runs their SQL, on real servers in the state that the page
//! is about.

use std::{fs, path::Path, process::Stdio};

use factlib::testing::wait_for_count;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
};
use tokio::{process::Command, time::timeout};

use super::desk::{Desk, brokers};
use crate::support::{
    repository::read,
    terminal::{Folder, SOON},
};

/// The blocks of a page that this file runs.
fn blocks(page: &str) -> Vec<String> {
    let text = read(page);
    let marked = text.split("<!-- run by: tests/operate/documented_commands.rs -->\n```").skip(1);
    let block = |marked: &str| {
        let (_, text) = marked.split_once('\n').expect("a language");
        text.split_once("\n```").expect("an end").0.to_owned()
    };
    let blocks: Vec<_> = marked.map(block).collect();
    assert!(!blocks.is_empty(), "{page} has no block for this file");
    blocks
}

/// The first block of a language.
fn first(page: &str, language: &str) -> String {
    let text = read(page);
    let (_, block) = text.split_once(&format!("```{language}\n")).expect("a block");
    block.split_once("\n```").expect("its end").0.to_owned()
}

/// Types each line in a shell, in this folder; each has to succeed.
async fn type_all(folder: &Folder, lines: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_factlib")).parent().expect("a folder");
    let mut printed = String::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(SOON, shell.output()).await.expect("it ends").expect("it runs");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {}: {out}{err}", output.status);
        printed += &out;
    }
    printed
}

#[tokio::test]
async fn routes_are_explained() {
    let folder = Folder::new(&first("docs/routing.md", "toml"));
    let fact = r#"{"aggregate_type": "noise", "aggregate_id": "1", "event_type": "made"}"#;
    fs::write(folder.path().join("facts.jsonl"), fact).expect("written");
    let printed = type_all(&folder, &blocks("docs/routing.md")[0]).await;
    for part in ["shop.orders.placed", "audit", "order-7"] {
        assert!(printed.contains(part), "no {part} in {printed}");
    }
}

#[tokio::test]
async fn sql_of_the_pages_runs() {
    let desk = Desk::new().await;
    desk.execute(&blocks("docs/outbox-tables.md")[0]).await;
    // The table is the one that the relay would make.
    desk.done("factlib setup --outbox-table --sql-functions").await;
    desk.execute("CREATE TABLE users (id text PRIMARY KEY, name text)").await;
    desk.execute(&blocks("docs/emitting.md")[0]).await;
    desk.execute(
        "CREATE TRIGGER created AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION user_created(); \
         INSERT INTO users VALUES ('u2', 'Grace')",
    )
    .await;
    desk.execute(&blocks("docs/handlers.md")[0]).await;
    // A consumer that gets an event twice.
    let consumer = &blocks("docs/consuming.md")[0];
    desk.execute(consumer).await;
    let (_, again) = consumer.split_once("BEGIN;").expect("a transaction");
    desk.execute(again.split_once("COMMIT;").expect("its end").0).await;
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_redriven() {
    let desk = Desk::new().await;
    let settings = desk.folder.path().join("factlib.toml");
    let text = fs::read_to_string(&settings).expect("settings");
    fs::write(&settings, text + "kafka.topics.partitions = 1\n").expect("written");
    desk.done("factlib setup --sql-functions").await;
    // For a partition that the topic does not have yet.
    let event = format!(
        "SELECT factlib.emit('user', 'u' || n, 'created', '{{}}'::jsonb, \
         '{{\"factlib.partition\": \"1\"}}', '{}') FROM generate_series(1, 20) n",
        desk.name
    );
    desk.execute(&event).await;
    let mut relay = desk.folder.relay().await;
    let letters = format!("{}.dead-letter", desk.name);
    wait_for_count(&brokers().await, &[&letters], 20, SOON).await.expect("they are parked");
    relay.kill().await.expect("it ends");
    let user = format!("{}.user", desk.name);
    let mut admin = ClientConfig::new();
    admin.set("bootstrap.servers", brokers().await);
    let admin: AdminClient<DefaultClientContext> = admin.create().expect("a client");
    let added = NewPartitions::new(&user, 2);
    let added = admin.create_partitions([&added], &AdminOptions::new()).await;
    assert!(added.expect("answered")[0].is_ok(), "the cause is corrected");
    let mut lines = blocks("docs/dead-letters.md")[0].replace("shop.", &format!("{}.", desk.name));
    if !Path::new("/usr/bin/jq").exists() {
        lines = lines
            .lines()
            .map(|line| line.split(" | jq").next().unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
    }
    type_all(&desk.folder, &lines).await;
    wait_for_count(&brokers().await, &[&user], 19, SOON).await.expect("all but one are there");
}

#[tokio::test]
async fn rows_are_replayed_and_audited() {
    let desk = Desk::new().await;
    desk.done("factlib setup --outbox-table").await;
    desk.execute(
        "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload) \
         VALUES (gen_random_uuid(), 'user', 'u1', 'created', '{}')",
    )
    .await;
    let lines = &blocks("docs/retention-and-replay.md")[0];
    type_all(&desk.folder, &lines.replace("shop.", &format!("{}.", desk.name))).await;
    let repaired = format!("{}.user.repaired", desk.name);
    wait_for_count(&brokers().await, &[&repaired], 1, SOON).await.expect("it was sent");
    // The rows are younger than the minute that an audit leaves out.
    let audit = type_all(&desk.folder, &blocks("docs/audit.md")[0]).await;
    assert!(audit.ends_with("no faults\n"), "{audit}");
}
