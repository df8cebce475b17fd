//! Runs the commands of docs/getting-started.md and compares the output with that on the page.

use std::{collections::VecDeque, path::Path, process::Stdio};

use factlib::testing::{PostgresServer, shared_kafka};
use regex::Regex;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{repository::read, terminal::SOON};

/// What is typed, and what is shown for it.
struct Step {
    typed: String,
    shown: Vec<String>,
}

fn steps() -> Vec<Step> {
    let page = read("docs/getting-started.md");
    let marker = "<!-- run by: tests/operate/first_run.rs -->\n```console\n";
    let (_, part) = page.split_once(marker).expect("a block");
    let (part, _) = part.split_once("```").expect("its end");
    let mut steps: Vec<Step> = Vec::new();
    for line in part.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(typed), _) => steps.push(Step { typed: typed.into(), shown: Vec::new() }),
            (None, Some(step)) => step.shown.push(line.into()),
            (None, None) => panic!("{line} is of no command"),
        }
    }
    steps
}

/// The text without what is another each time.
fn settled(text: &str) -> String {
    let rules = [
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
        (r"\b[0-9A-F]+/[0-9A-F]+\b", "LSN"),
        (r"[A-Z][a-z]{2} +[0-9]+ [0-9:.]{12}", "TIME"),
        (r"\b[0-9]+ checks", "N checks"),
        (r"[ \t]+", " "),
    ];
    rules.iter().fold(text.trim().to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).expect("a pattern").replace_all(&text, *name).into_owned()
    })
}

/// Is this line what was shown, with something in place of each ellipsis?
fn is_shown(line: &str, shown: &str) -> bool {
    let parts: Vec<String> = shown.split('…').map(regex::escape).collect();
    Regex::new(&format!("^{}$", parts.join(".*"))).expect("a pattern").is_match(line)
}

/// Holds lines against those that are shown, of which an ellipsis is any number.
fn differs(lines: &str, shown: &[&String]) -> Option<String> {
    let mut lines: VecDeque<String> =
        lines.lines().map(settled).filter(|line| !line.is_empty()).collect();
    let mut skips = false;
    for wanted in shown {
        if *wanted == "…" {
            skips = true;
            continue;
        }
        let wanted = settled(wanted);
        while skips && lines.front().is_some_and(|line| !is_shown(line, &wanted)) {
            lines.pop_front();
        }
        skips = false;
        match lines.pop_front() {
            Some(line) if is_shown(&line, &wanted) => {}
            other => return Some(format!("{wanted:?} is shown, and it printed {other:?}")),
        }
    }
    lines.pop_front().filter(|_| !skips).map(|line| format!("{line:?} is not shown"))
}

/// A shell, after what was typed before.
struct Shell {
    /// Names on the page, and the addresses that they stand for.
    places: [(&'static str, String); 2],
    folder: TempDir,
    port: u16,
    relay: Option<Child>,
}

impl Shell {
    fn command(&self, typed: &str) -> Command {
        let there = |text: &str| {
            let mut text = text.to_owned();
            for (name, place) in &self.places {
                text = text.replace(name, place);
            }
            text
        };
        let binary = Path::new(env!("CARGO_BIN_EXE_factlib")).parent().expect("a folder");
        let mut command = Command::new("sh");
        // In place of the shell, so that a signal reaches it.
        command
            .args(["-c", &format!("exec {}", there(typed))])
            .current_dir(self.folder.path())
            .env_clear()
            // That of the page may be in use here.
            .env("FACTLIB_HTTP__METRICS_PORT", self.port.to_string())
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            // As on a terminal.
            .env("FACTLIB_LOG__FORMAT", "terminal")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What it prints, with the page's names.
    fn read(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for (name, place) in &self.places {
            text = text.replace(place, name);
        }
        text
    }

    /// What differs from what is shown.
    async fn type_in(&self, step: &Step) -> Option<String> {
        let output = timeout(SOON, self.command(&step.typed).output()).await.expect("it ends");
        let output = output.expect("it runs");
        let (logged, printed): (Vec<_>, Vec<_>) =
            step.shown.iter().partition(|line| line.contains(" INFO "));
        let (out, err) = (self.read(&output.stdout), self.read(&output.stderr));
        let differs = differs(&out, &printed).or_else(|| differs(&err, &logged));
        differs.map(|why| format!("{why}, in:\n{out}{err}"))
    }

    /// Starts it, and waits for what is shown.
    async fn start(&mut self, typed: &str, shown: &[String]) {
        let mut relay = self.command(typed).spawn().expect("it starts");
        let mut lines = BufReader::new(relay.stderr.take().expect("piped")).lines();
        for wanted in shown {
            let coming = async {
                while let Some(line) = lines.next_line().await.expect("UTF-8") {
                    if is_shown(&settled(&line), &settled(wanted)) {
                        return true;
                    }
                }
                false
            };
            assert!(timeout(SOON, coming).await.unwrap_or(false), "{wanted} does not come");
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.relay = Some(relay);
    }
}

#[test]
fn the_readme_has_commands_of_the_first_run() {
    let (readme, typed) = (read("README.md"), steps());
    let (_, part) =
        readme.split_once("<!-- run by: tests/operate/first_run.rs -->\n```sh\n").expect("a block");
    let (part, _) = part.split_once("```").expect("its end");
    for line in part.lines().filter(|line| !line.starts_with('#')) {
        let command = line.split('#').next().unwrap_or_default().trim();
        let command = |step: &Step| step.typed.trim_end_matches(" &") == command;
        assert!(typed.iter().any(command), "{line}");
    }
}

#[tokio::test]
async fn the_first_run_prints_what_the_page_shows() {
    let postgres = PostgresServer::start().await.expect("a PostgreSQL");
    let database = "CREATE DATABASE shop";
    postgres.execute("postgres", database).await.expect("a database");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let places = [
        ("db:5432", format!("127.0.0.1:{}", postgres.port())),
        ("kafka:9092", shared_kafka().await.expect("a Kafka").bootstrap()),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let mut shell = Shell { places, folder, port: port.expect("bound").port(), relay: None };
    let steps = steps();
    assert!(steps.len() < 10, "{} commands", steps.len());
    for step in &steps {
        let words: Vec<_> = step.typed.split(' ').collect();
        match words[0] {
            // It is built already.
            "cargo" => {}
            // Not on every machine; the statement counts.
            "psql" => {
                let statement = step.typed.split('\'').nth(1).expect("a statement");
                postgres.execute("shop", statement).await.expect("PostgreSQL takes it");
                assert!(statement.starts_with(&step.shown.concat()), "{}", step.typed);
            }
            "factlib" => match step.typed.strip_suffix(" &") {
                Some(typed) => shell.start(typed, &step.shown).await,
                // What was emitted is under way for a moment.
                None if words[1] == "status" => {
                    let mut last = None;
                    let asking = async {
                        loop {
                            last = shell.type_in(step).await;
                            if last.is_none() {
                                break;
                            }
                        }
                    };
                    let settled = timeout(SOON, asking).await.is_ok();
                    assert!(settled, "{last:?}");
                }
                None => {
                    let differs = shell.type_in(step).await;
                    assert!(differs.is_none(), "{}: {}", step.typed, differs.unwrap_or_default());
                }
            },
            other => panic!("nobody types {other} here"),
        }
    }
    let mut relay = shell.relay.take().expect("it was started");
    let pid = relay.id().expect("it runs").to_string();
    let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(kill.expect("kill runs").success());
    let status = timeout(SOON, relay.wait()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(0));
}
