//! `factlib init`: flags or answers become a file, which the doctor checks and `setup` follows.

use std::fs;

use factlib::testing::shared_postgres;

use super::{
    desk::{Desk, brokers},
    screen::Screen,
};
use crate::support::terminal::Folder;

/// An empty folder, and a database with its URL.
async fn desk() -> (Folder, String, String) {
    let server = shared_postgres().await.expect("a PostgreSQL");
    let database = server.create_database("init").await.expect("a database");
    let folder = Folder::new("");
    fs::remove_file(folder.path().join("factlib.toml")).expect("removed");
    let url = server.url_for(&database);
    (folder, database, url)
}

fn written(folder: &Folder) -> String {
    fs::read_to_string(folder.path().join("factlib.toml")).expect("a file")
}

#[tokio::test]
async fn flags_become_a_file_that_is_checked_and_set_up() {
    let (folder, database, url) = desk().await;
    let url = url.replace("postgres@", "postgres:s3cret@");
    let line =
        format!("factlib init --postgres {url} --kafka {} --slot {database}", brokers().await);
    let ended = folder.type_in(&format!("{line} --yes")).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    for part in [
        "wrote factlib.toml\n",
        "FACTLIB_POSTGRES__PASSWORD",
        "checks: 0 errors",
        &format!("slot {database}: created"),
        "Next: factlib run",
    ] {
        assert!(ended.out.contains(part), "no {part:?} in {}", ended.out);
    }
    let file = written(&folder);
    assert!(!file.contains("s3cret"), "{file}");
    let doctor = folder.type_in("factlib doctor").await;
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);

    let again = folder.type_in(&line).await;
    let complaint = "factlib: factlib.toml exists already (`factlib doctor` checks it; --force replaces it, --output names another)";
    assert_eq!((again.code, again.out.as_str()), (Some(2), ""));
    assert!(again.err.starts_with(complaint), "{}", again.err);
    assert_eq!(written(&folder), file);
    // Without anybody to ask, nothing is set up.
    let forced = folder.type_in(&format!("{line} --force --mode exactly-once")).await;
    assert_eq!(forced.code, Some(0), "{}{}", forced.out, forced.err);
    assert!(forced.out.ends_with("Next: factlib setup, then factlib run\n"), "{}", forced.out);
    assert!(written(&folder).contains("mode = \"exactly-once\""));
}

#[tokio::test]
async fn a_table_is_created_if_it_is_missing() {
    let (folder, database, url) = desk().await;
    let line = format!(
        "factlib init --postgres {url} --kafka {} --slot {database} --table sales.outbox",
        brokers().await
    );
    let ended = folder.type_in(&line).await;
    assert!(ended.out.contains("ERROR"), "{}", ended.out);
    assert!(ended.out.contains("factlib setup --outbox-table=sales.outbox"), "{}", ended.out);
    let ended = folder.type_in(&format!("{line} --yes --force")).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    assert!(ended.out.contains("outbox table: sales.outbox"), "{}", ended.out);
    let doctor = folder.type_in("factlib doctor").await;
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);
}

#[tokio::test]
async fn an_answer_that_nobody_gives_is_named() {
    let folder = Folder::new("");
    fs::remove_file(folder.path().join("factlib.toml")).expect("removed");
    for (line, complaint) in [
        ("factlib init", "--postgres is missing"),
        ("factlib init --postgres postgresql://db/shop", "--kafka is missing"),
        ("factlib init --kafka k:9092 --postgres mysql://db", "its scheme is not postgresql://"),
        ("factlib init --kafka k --postgres postgresql://db", "kafka.brokers"),
    ] {
        let ended = folder.type_in(line).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{line}");
        assert!(ended.err.contains(complaint), "{line}: {}", ended.err);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_terminal_asks_for_what_no_flag_gives() {
    let (folder, database, url) = desk().await;
    let brokers = brokers().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.current_dir(folder.path()).env_clear();
    command.args(["init", "--slot", &database, "--publication", &database]);
    let (mut screen, mut child) = Screen::start(command, 100);
    for (question, answer) in [
        ("PostgreSQL, as a URL [postgresql://localhost:5432/postgres]: ", url.as_str()),
        ("Kafka brokers, HOST:PORT,… [localhost:9092]: ", &brokers),
        ("messages or table [messages]: ", "fish"),
        ("messages or table [messages]: ", ""),
        ("at-least-once or exactly-once [at-least-once]: ", ""),
        ("go on? [y/N] ", "y"),
    ] {
        screen.until(question);
        screen.press(&format!("{answer}\n"));
    }
    while screen.more() {}
    assert_eq!(child.wait().expect("it ran").code(), Some(0), "{}", screen.text);
    assert!(screen.text.contains(&format!("slot {database}: created")), "{}", screen.text);
    assert!(screen.text.contains("\x1b[32mok"), "{}", screen.text);
    let file = written(&folder);
    assert!(file.contains(&format!("url = \"{url}\"")), "{file}");
}

#[tokio::test]
async fn a_terminal_without_colours_stays_plain() {
    let desk = Desk::new().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.current_dir(desk.folder.path()).env_clear().env("NO_COLOR", "1").arg("doctor");
    let (mut screen, _child) = Screen::start(command, 100);
    while screen.more() {}
    assert!(screen.text.contains("checks: "), "{}", screen.text);
    assert!(!screen.text.contains('\x1b'), "{}", screen.text);
}
