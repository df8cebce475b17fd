//! `factlib slot`: what it shows, and what it does not do unasked.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
};

use nix::pty::{OpenptyResult, openpty};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

use super::desk::{Desk, value};
use crate::support::terminal::{SOON, stop};

#[tokio::test]
async fn slot_show_says_who_reads_it_and_where_it_stands() {
    let desk = Desk::new().await;
    let missing = desk.refuses("factlib slot show", 3).await;
    assert!(missing.contains("does not exist") && missing.contains("`factlib setup`"), "{missing}");
    let relay = desk.folder.relay().await;
    desk.emit(1).await;
    let text = desk.done("factlib slot show").await;
    assert!(value(&text, "state").starts_with("active, pid "), "{text}");
    assert_eq!(value(&text, "reads"), format!("pgoutput in database {}", desk.name));
    // The server forgets nothing of a slot that is read.
    for line in ["factlib slot drop --yes", "factlib slot advance --to F/FFFFFFFF --yes"] {
        let used = desk.refuses(line, 3).await;
        assert!(used.contains("is active for PID"), "{line}: {used}");
    }
    stop(relay).await;
    let json = desk.done("factlib slot show --json").await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["active_pid"], &json["refusal"]), (&Value::Null, &Value::Null));
    assert!(json["checkpoint_lsn"].is_string() && json["retained_bytes"].is_u64(), "{json:#}");
    assert_eq!(value(&desk.done("factlib slot show").await, "state"), "inactive");
}

#[tokio::test]
async fn what_could_be_lost_is_named_and_nothing_is_done_without_yes() {
    let desk = Desk::new().await;
    desk.done("factlib setup").await;
    desk.done("factlib emit --aggregate-type user --aggregate-id u1 --event-type created").await;
    let confirmed = async || {
        let json = desk.done("factlib slot show --json").await;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        [&json["confirmed_lsn"], &json["wal_end_lsn"]]
            .map(|lsn| lsn.as_str().expect("a position").to_owned())
    };
    let [before, end] = confirmed().await;
    for line in ["factlib slot drop", &format!("factlib slot advance --to {end}")] {
        let complaint = desk.refuses(line, 2).await;
        for part in ["loses facts", &desk.name, &before, "--yes"] {
            assert!(complaint.contains(part), "{part:?} is not in: {complaint}");
        }
    }
    assert_eq!(confirmed().await[0], before);
    let complaint = desk.refuses("factlib slot advance", 2).await;
    assert!(complaint.contains("no checkpoint"), "{complaint}");
    let text = desk.done(&format!("factlib slot advance --to {end} --yes")).await;
    assert!(text.contains("now at"), "{text}");
    assert_ne!(confirmed().await[0], before);
    let back = desk.refuses(&format!("factlib slot advance --to {before} --yes"), 2).await;
    assert!(back.contains("can't go back"), "{back}");
    let text = desk.done("factlib slot drop --yes").await;
    assert!(text.contains("dropped"), "{text}");
    desk.refuses("factlib slot show", 3).await;
}

#[tokio::test]
async fn advancing_to_the_checkpoint_needs_no_yes_unless_it_is_of_another_cluster() {
    let desk = Desk::new().await;
    let relay = desk.folder.relay().await;
    desk.emit(1).await;
    stop(relay).await;
    // As after a crash between saving and confirming.
    desk.execute("SELECT pg_logical_emit_message(true, 'other', 'moves the WAL')").await;
    desk.execute("UPDATE factlib.checkpoints SET lsn = pg_current_wal_lsn()").await;
    desk.execute("UPDATE factlib.checkpoints SET system_id = system_id::numeric - 1").await;
    let foreign = desk.refuses("factlib slot advance", 2).await;
    assert!(foreign.contains("no checkpoint") && foreign.contains("cluster"), "{foreign}");
    let text = desk.done("factlib slot show").await;
    assert!(value(&text, "no start").contains("belongs to the cluster"), "{text}");
    desk.execute("UPDATE factlib.checkpoints SET system_id = system_id::numeric + 1").await;
    let text = desk.done("factlib slot advance").await;
    assert!(text.contains("now at"), "{text}");
    // Nothing was lost, and nothing has to be accepted.
    let relay = desk.folder.relay().await;
    desk.emit(2).await;
    stop(relay).await;
}

/// What a terminal shows when this is typed and then `answer`, and the exit code.
async fn on_a_terminal(desk: &Desk, line: &str, answer: &str) -> (Option<i32>, String) {
    let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
    let mut command = desk.folder.command(line);
    command.stdin(slave.try_clone().expect("its other end")).stderr(slave);
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    // With its copies of the other end, or the terminal would never be at its end.
    drop(command);
    let mut terminal = File::from(master);
    terminal.write_all(format!("{answer}\n").as_bytes()).expect("typed");
    let shown = spawn_blocking(move || {
        let mut shown = Vec::new();
        // Linux says EIO at the end.
        let _ = terminal.read_to_end(&mut shown);
        String::from_utf8(shown).expect("UTF-8")
    });
    let status = timeout(SOON, child.wait()).await.expect("it ends").expect("it ran");
    (status.code(), shown.await.expect("read"))
}

#[tokio::test]
async fn on_a_terminal_it_asks_and_only_a_yes_is_one() {
    let desk = Desk::new().await;
    desk.done("factlib slot create").await;
    let twice = desk.refuses("factlib slot create", 3).await;
    assert!(twice.contains("already exists"), "{twice}");
    for answer in ["n", "", "yesterday"] {
        let (code, shown) = on_a_terminal(&desk, "factlib slot drop", answer).await;
        assert!(shown.contains("loses facts") && shown.contains("go on? [y/N]"), "{shown}");
        assert_eq!(code, Some(2), "{answer:?}: {shown}");
    }
    assert_eq!(value(&desk.done("factlib slot show").await, "state"), "inactive");
    let (code, shown) = on_a_terminal(&desk, "factlib slot drop", "Y").await;
    assert_eq!(code, Some(0), "{shown}");
    desk.refuses("factlib slot show", 3).await;
}
