//! `factlib demo` as a shell sees it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use factlib::testing::shared_postgres;

use super::screen::Screen;
use crate::support::terminal::SOON;

/// The demo in an empty folder, with temporary files in another.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.current_dir(folder).arg("demo").env("TMPDIR", folder);
    // What is set for real servers must not matter.
    command.env("FACTLIB_KAFKA__BROKERS", "nowhere").env("KAFKA_SSL", "maybe");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A short path, as sockets need one, that the server's own user may pass.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(permissions).tempdir_in("/tmp").unwrap()
}

/// The number of a summary's line.
fn number(summary: &str, name: &str) -> u64 {
    let line = summary.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_nothing_is_left(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let needle = folder.to_str().unwrap();
    let processes = Command::new("ps").args(["-eo", "args="]).output().unwrap().stdout;
    let processes = String::from_utf8_lossy(&processes).into_owned();
    assert!(!processes.lines().any(|line| line.contains(needle)), "{processes}");
}

fn assert_all_arrived(text: &str) {
    let text = text_of(text);
    let begin = text.rfind("\nemitted          ").expect("a summary");
    let summary = &text[begin + 1..];
    let emitted = number(summary, "emitted");
    assert!(emitted > 100, "{summary}");
    assert_eq!(number(summary, "delivered"), emitted);
    assert!(number(summary, "rolled back") > 0, "{summary}");
    for name in ["duplicates", "lost", "order violations", "altered"] {
        assert_eq!(number(summary, name), 0, "{summary}");
    }
    let latency = summary.lines().find(|line| line.starts_with("latency")).unwrap();
    assert!(!latency.contains("max 0.0 ms"), "{latency}");
}

#[test]
fn every_fact_arrives_and_nothing_is_left_behind() {
    let folder = folder();
    let output = demo(folder.path()).args(["--rate", "800"]).env("DEMO_SECONDS", "4").output();
    let output = output.unwrap();
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*errors), (Some(0), ""), "{text}");
    assert_all_arrived(&text);
    assert!(text.lines().filter(|line| line.contains(" running ")).count() >= 4, "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no escapes");
    assert_nothing_is_left(folder.path());
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let folder = folder();
    let mut child = demo(folder.path()).args(["--seconds", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut text = String::new();
    while !text.contains("  2 s running") {
        text += &lines.next().expect("it goes on until it is told to stop");
        text += "\n";
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    text.extend(lines.map(|line| line + "\n"));
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert_all_arrived(&text);
    assert_nothing_is_left(folder.path());
}

#[test]
fn a_key_stops_the_broker_and_starts_it_again_and_nothing_is_lost() {
    let folder = folder();
    let mut command = demo(folder.path());
    command.args(["--seconds", "600"]);
    let (mut screen, mut child) = Screen::start(command, 100);
    screen.until("b: stop the broker  space: stay  q: end");
    screen.press("b");
    screen.until("down: committed facts wait");
    // Some hundred facts behind, at 500 a second.
    let waiting = |text: &str| {
        let lag = text.rsplit("lag ").next()?.split_whitespace().next()?.to_owned();
        lag.parse::<u32>().ok()
    };
    while waiting(&screen.text).is_none_or(|facts| facts < 300) {
        assert!(screen.more(), "{}", screen.text);
    }
    screen.press("b");
    screen.until("broker    up");
    screen.press("q");
    while screen.more() {}
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", screen.text);
    assert!(screen.text.contains("Status page: http://127.0.0.1:"), "{}", screen.text);
    assert!(screen.text.contains("factlib init"), "{}", screen.text);
    assert_all_arrived(&screen.text);
    assert_nothing_is_left(folder.path());
}

/// The lines of a frame without its escapes.
fn lines(frame: &str) -> Vec<String> {
    let escapes = regex::Regex::new("\x1b\\[[?0-9]*[a-zA-Z]").unwrap();
    frame.lines().map(|line| escapes.replace_all(line, "").replace('\r', "")).collect()
}

#[test]
fn a_narrow_terminal_shows_the_whole_table_and_nothing_of_a_wider_one() {
    let folder = folder();
    let mut command = demo(folder.path());
    command.args(["--seconds", "600"]);
    let (mut screen, mut child) = Screen::start(command, 120);
    screen.until("q: end");
    screen.until("event     shop.");
    let begin = screen.text.len();
    screen.resize(50);
    screen.until_from(begin, "\x1b[H\x1b[2J");
    let begin = begin + screen.text[begin..].find("\x1b[H\x1b[2J").unwrap();
    screen.until_from(begin, "q: end");
    let frame = screen.text[begin..].to_owned();
    assert!(frame.contains("Status page: "), "{frame}");
    // The address is longer, and wraps.
    let table: Vec<_> =
        lines(&frame).into_iter().skip_while(|line| !line.starts_with("running")).collect();
    assert!(table.len() > 8, "{frame}");
    assert!(table.iter().all(|line| line.chars().count() <= 50), "{table:#?}");
    let is_whole = |line: &&String| !line.ends_with('…');
    let cut: Vec<_> = table.iter().filter(|line| !is_whole(line)).collect();
    // Only the payload of an event does not fit.
    assert!(cut.iter().all(|line| line.starts_with("event ")), "{cut:?}");
    screen.press("q");
    while screen.more() {}
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", screen.text);
}

/// A terminal's text without what moves and colours it.
fn text_of(screen: &str) -> String {
    screen.replace('\r', "").replace("\x1b[J", "").replace("\x1b[?7h", "")
}

/// What is left of the demo on the servers.
async fn left_over(url: &str, brokers: &str) -> Vec<String> {
    let client = factlib::postgres::sql::connect_url(url).await.unwrap();
    let names =
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name LIKE 'factlib\\_demo%'
        UNION ALL SELECT pubname::text FROM pg_publication
        UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname = 'factlib'";
    let rows = client.query(names, &[]).await.unwrap();
    let mut left: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let topics = ["order", "payment", "user"].map(|name| format!("factlib-demo.{name}"));
    let settings = factlib_kafka::Settings::new(vec![brokers.to_owned()]);
    let cluster = factlib_kafka::Client::new(settings).cluster(None).await.unwrap();
    left.extend(topics.into_iter().filter(|topic| cluster.topics.contains_key(topic)));
    left
}

#[tokio::test]
async fn own_servers_are_used_after_a_question_and_left_as_they_were() {
    let postgres = shared_postgres().await.unwrap();
    let database = postgres.create_database("demo").await.unwrap();
    let (url, brokers) = (postgres.url_for(&database), super::desk::brokers().await);
    let folder = folder();
    let run = |more: &[&str]| {
        let mut command = demo(folder.path());
        command.args(["--postgres", &url, "--kafka", &brokers, "--seconds", "2"]).args(more);
        command.env_remove("FACTLIB_KAFKA__BROKERS").env_remove("KAFKA_SSL");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let (code, out, err) = run(&[]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("nobody agreed") && err.contains("--yes"), "{err}");
    assert!(left_over(&url, &brokers).await.is_empty());

    // As after a demo that was killed.
    postgres
        .execute(&database, "SELECT pg_create_logical_replication_slot('factlib_demo', 'pgoutput')")
        .await
        .unwrap();
    factlib::testing::create_topic(&brokers, "factlib-demo.user", 1, &[]).await.unwrap();

    let (code, out, err) = run(&["--yes"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "left from an earlier demo",
        "  slot factlib_demo\n",
        "  topic factlib-demo.user\n",
        "removed: slot factlib_demo, publication factlib_demo, topic factlib-demo.order",
    ] {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
    let summary = out.split("removed:").next().unwrap();
    assert_all_arrived(summary);
    // A broker may name a deleted topic for a moment.
    let gone = async { while !left_over(&url, &brokers).await.is_empty() {} };
    tokio::time::timeout(SOON, gone).await.expect("all of it goes");

    // A name that the user chose is somebody's.
    postgres
        .execute(
            &database,
            "SELECT pg_create_logical_replication_slot('factlib_demo_2', 'pgoutput')",
        )
        .await
        .unwrap();
    let (code, _, err) = run(&["--yes", "--slot", "factlib_demo_2"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("slot factlib_demo_2 exists"), "{err}");
    postgres.execute(&database, "SELECT pg_drop_replication_slot('factlib_demo_2')").await.unwrap();
}
