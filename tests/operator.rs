//! `factlib status`, `slot`, `completions`, `man`: the real binary beside a running relay.

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use factlib::testing::{shared_kafka, shared_postgres, wait_for_count};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(60);

/// A folder with a `factlib.toml`, and a database, slot and prefix of one name.
struct Desk {
    folder: TempDir,
    name: String,
    port: u16,
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    async fn new() -> Self {
        let server = shared_postgres().await.expect("a PostgreSQL");
        let name = server.create_database("operator").await.expect("a database");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = port.local_addr().expect("bound").port();
        let settings = format!(
            "postgres.url = \"{}\"\npostgres.slot = \"{name}\"\npostgres.message_prefix = \"{name}\"\n\
             kafka.brokers = \"{}\"\nhttp.metrics_port = {port}\n",
            server.url_for(&name),
            brokers().await,
        );
        fs::write(folder.path().join("factlib.toml"), settings).expect("written");
        Desk { folder, name, port }
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("factlib"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn type_in(&self, line: &str) -> Ended {
        let output = timeout(SOON, self.command(line).output()).await.expect("it ends");
        let output = output.expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    async fn done(&self, line: &str) -> String {
        let ended = self.type_in(line).await;
        assert_eq!(ended.code, Some(0), "{line}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// What it complains of, beside the exit code.
    async fn refuses(&self, line: &str, code: i32) -> String {
        let ended = self.type_in(line).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{line}: {}", ended.err);
        ended.err.lines().last().expect("a complaint").to_owned()
    }

    async fn relay(&self) -> Child {
        let mut relay = self.command("factlib run").spawn().expect("it starts");
        let mut log = BufReader::new(relay.stderr.take().expect("piped")).lines();
        let running = async {
            while let Some(line) = log.next_line().await.expect("UTF-8") {
                if line.contains("\"relay running\"") {
                    return true;
                }
            }
            false
        };
        assert!(timeout(SOON, running).await.unwrap_or(false), "it does not run");
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        relay
    }

    async fn stop(&self, mut relay: Child) {
        let pid = relay.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(kill.expect("kill runs").success());
        let status = timeout(SOON, relay.wait()).await.expect("it ends").expect("it ran");
        assert_eq!(status.code(), Some(0));
    }

    async fn emit(&self, arrived: usize) {
        let fact = "--aggregate-type user --aggregate-id u1 --event-type created";
        self.done(&format!("factlib emit {fact}")).await;
        let topic = format!("{}.user", self.name);
        wait_for_count(&brokers().await, &[&topic], arrived, SOON).await.expect("it arrives");
    }

    async fn execute(&self, statement: &str) {
        let server = shared_postgres().await.expect("a PostgreSQL");
        server.execute(&self.name, statement).await.expect("PostgreSQL takes it");
    }
}

async fn brokers() -> String {
    shared_kafka().await.expect("a Kafka").bootstrap()
}

/// The value of a line of a table.
fn value<'a>(table: &'a str, name: &str) -> &'a str {
    let line = table.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no line {name} in: {table}"));
    line[name.len()..].trim()
}

#[tokio::test]
async fn status_says_what_the_relay_says() {
    let desk = Desk::new().await;
    let away = desk.refuses("factlib status", 1).await;
    assert!(away.contains("no relay answers") && away.contains("http.metrics_port"), "{away}");
    let relay = desk.relay().await;
    desk.emit(1).await;
    // The acknowledgement may come behind what a reader of the topic sees.
    let counted = async {
        while !value(&desk.done("factlib status").await, "events").starts_with("1 delivered") {}
    };
    timeout(SOON, counted).await.expect("it is counted");
    let text = desk.done("factlib status").await;
    assert_eq!(value(&text, "state"), "running");
    assert!(value(&text, "in flight").ends_with("of 16.0 MiB"), "{text}");
    let topic = format!("{}.user", desk.name);
    let row: Vec<_> = value(&text, &topic).split_whitespace().collect();
    assert_eq!((&row[..2], row[3]), (&["open", "1"][..], "0"), "{text}");
    assert_eq!(&row[row.len() - 2..], ["0", "none"], "{text}");
    assert!(value(&text, "lag").contains(" of WAL, 0 events, "), "{text}");
    assert!(value(&text, "wal_reader").starts_with("running"), "{text}");
    let json = desk.done(&format!("factlib status --json --url 127.0.0.1:{}/", desk.port)).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["state"], &json["topics"][&topic]["events"]), (&"running".into(), &1.into()));

    let mut watch = desk.command("factlib status --watch=1").spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let rate = async {
        while let Some(line) = lines.next_line().await.expect("UTF-8") {
            if line.starts_with("rate") {
                return line.ends_with(" events/s");
            }
        }
        false
    };
    assert!(timeout(SOON, rate).await.expect("a second reading"));
    desk.stop(relay).await;
    let no_status = desk.refuses(&format!("factlib status --url 127.0.0.1:{}", desk.port), 1).await;
    assert!(no_status.contains("no relay answers"), "{no_status}");
}

#[tokio::test]
async fn slot_show_says_who_reads_it_and_where_it_stands() {
    let desk = Desk::new().await;
    let missing = desk.refuses("factlib slot show", 3).await;
    assert!(missing.contains("does not exist") && missing.contains("`factlib setup`"), "{missing}");
    let relay = desk.relay().await;
    desk.emit(1).await;
    let text = desk.done("factlib slot show").await;
    assert!(value(&text, "state").starts_with("active, pid "), "{text}");
    assert_eq!(value(&text, "reads"), format!("pgoutput in database {}", desk.name));
    // The server forgets nothing of a slot that is read.
    for line in ["factlib slot drop --yes", "factlib slot advance --to F/FFFFFFFF --yes"] {
        let used = desk.refuses(line, 3).await;
        assert!(used.contains("is active for PID"), "{line}: {used}");
    }
    desk.stop(relay).await;
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
    assert!(text.contains("stands at"), "{text}");
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
    let relay = desk.relay().await;
    desk.emit(1).await;
    desk.stop(relay).await;
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
    assert!(text.contains("stands at"), "{text}");
    // Nothing was lost, and nothing has to be accepted.
    let relay = desk.relay().await;
    desk.emit(2).await;
    desk.stop(relay).await;
}

#[tokio::test]
async fn completions_manual_and_version_need_no_configuration() {
    let desk = Desk::new().await;
    fs::write(desk.folder.path().join("factlib.toml"), "nonsense").expect("written");
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef factlib"), ("fish", "complete -c factlib")]
    {
        let script = desk.done(&format!("factlib completions {shell}")).await;
        assert!(script.contains(sign) && script.contains("doctor"), "{shell}: {script}");
    }
    assert!(desk.done("factlib man").await.contains(".TH factlib 1"));
    assert!(desk.done("factlib man doctor").await.contains("factlib doctor"));
    assert!(desk.refuses("factlib man fly", 2).await.contains("no command fly"));
    let version = desk.done("factlib --version").await;
    let facts = ["commit: ", "librdkafka: ", "target: "];
    assert!(facts.iter().all(|fact| version.contains(fact)), "{version}");
}
