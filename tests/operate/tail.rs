//! `factlib tail`: events as they commit, and nothing left behind.

use factlib::testing::shared_postgres;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::desk::Desk;
use crate::support::terminal::{SOON, stop};

/// A tail that has begun.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    async fn begin(desk: &Desk, line: &str) -> Self {
        let mut child = desk.folder.command(line).spawn().expect("it starts");
        let mut err = BufReader::new(child.stderr.take().expect("piped")).lines();
        let begun = timeout(SOON, err.next_line()).await.expect("it begins").expect("UTF-8");
        let begins = |line: &String| line.starts_with("printing events from ");
        assert!(begun.as_ref().is_some_and(begins), "{begun:?}");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Tail { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(SOON, self.lines.next_line()).await.expect("it comes");
        line.expect("UTF-8").expect("a line")
    }

    async fn ended(mut self) -> Option<i32> {
        timeout(SOON, self.child.wait()).await.expect("it ends").expect("it ran").code()
    }
}

/// Slots of the database, but for the relay's.
async fn slots(desk: &Desk) -> i64 {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let client = server.connect(&desk.name).await.expect("a connection");
    let slots = "SELECT count(*) FROM pg_replication_slots
                 WHERE database = current_database() AND slot_name LIKE 'factlib\\_tail\\_%'";
    client.query_one(slots, &[]).await.expect("an answer").get(0)
}

async fn emit(desk: &Desk, of: &str, id: &str, payload: &str) {
    let fact = format!("--aggregate-type {of} --aggregate-id {id} --event-type {of}.changed");
    desk.done(&format!("factlib emit {fact} --payload {payload}")).await;
}

#[tokio::test]
async fn what_commits_is_printed_and_what_is_rolled_back_is_not() {
    let desk = Desk::new().await;
    let missing = desk.refuses("factlib tail", 3).await;
    assert!(missing.contains("publication") && missing.contains("`factlib setup`"), "{missing}");
    desk.done("factlib setup").await;
    emit(&desk, "user", "before", "x").await;
    let mut tail = Tail::begin(&desk, "factlib tail").await;
    emit(&desk, "user", "u1", "{\"a\":1}").await;
    let message = "SELECT pg_logical_emit_message(true, current_database()::text, 'x'::text)";
    desk.execute(&format!("BEGIN; {message}; ROLLBACK")).await;
    desk.execute(message).await;
    emit(&desk, "order", "7", "\u{1b}[2J").await;
    let first = tail.line().await;
    assert!(first.ends_with(" user.changed user/u1 {\"a\":1}"), "{first}");
    assert!(first.starts_with("20") && first.contains("Z user.changed"), "{first}");
    let second = tail.line().await;
    assert!(second.contains(" invalid event: the logical message at "), "{second}");
    assert!(tail.line().await.ends_with(" order.changed order/7 \\u{1b}[2J"));
    assert_eq!(slots(&desk).await, 1);
    let pid = tail.child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs").success());
    assert_eq!(tail.ended().await, Some(0));
    let gone = async { while slots(&desk).await > 0 {} };
    timeout(SOON, gone).await.expect("the slot ends with it");
}

#[tokio::test]
async fn filters_and_a_count_choose_and_a_relay_is_not_disturbed() {
    let desk = Desk::new().await;
    let wrong = desk.refuses("factlib tail --aggregate-id /(/", 2).await;
    assert!(wrong.contains("aggregate id \"/(/\" is not a valid regular expression"), "{wrong}");
    let relay = desk.folder.relay().await;
    let filter = "--aggregate-type order --aggregate-id 7* --event-type /^order/";
    let mut tail = Tail::begin(&desk, &format!("factlib tail --json --count 2 {filter}")).await;
    for (of, id) in [("user", "7"), ("order", "8"), ("order", "71"), ("order", "72")] {
        emit(&desk, of, id, "[1,2]").await;
    }
    let lines = [tail.line().await, tail.line().await];
    let lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    for (line, id) in lines.iter().zip(["71", "72"]) {
        assert_eq!(
            (&line["aggregate_id"], &line["payload"]),
            (&id.into(), &serde_json::json!([1, 2]))
        );
        assert!(
            line["lsn"].is_string() && line["xid"].is_u64() && line["id"].is_string(),
            "{line}"
        );
    }
    assert_eq!(tail.ended().await, Some(0));
    // The relay has the user's event as well.
    desk.emit(2).await;
    stop(relay).await;
}
