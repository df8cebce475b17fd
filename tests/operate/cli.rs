//! The command as a shell sees it: exit code, stdout, stderr.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Within which everything here happens, by far.
const SOON: Duration = Duration::from_secs(30);

/// The command in an empty folder, with an empty environment.
fn factlib(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
    command.current_dir(folder).env_clear();
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_malformed_configuration_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("factlib.toml"), "[kafka]\ncompression = \"lz5\"\n")
        .expect("written");
    let line = "factlib: kafka.compression = \"lz5\" from factlib.toml line 2: \
        expected one of none, gzip, snappy, lz4, zstd\n";
    for subcommand in [&["run"][..], &["setup"], &["emit", "--stdin"], &["config"]] {
        let outcome = run(factlib(folder.path()).args(subcommand));
        assert_eq!(outcome, (Some(2), String::new(), line.into()), "{subcommand:?}");
    }
}

#[test]
fn a_malformed_variable_or_flag_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let outcome = run(factlib(folder.path()).arg("run").env("KAFKA_SSL", "maybe"));
    let line = "factlib: kafka.tls = \"maybe\" from environment variable KAFKA_SSL: expected true or false\n";
    assert_eq!(outcome, (Some(2), String::new(), line.into()));
    let outcome = run(factlib(folder.path()).args(["run", "--log-level", "loud"]));
    let line = "factlib: log.level = \"loud\" from flag --log-level: expected one of error, warn, info, debug, trace\n";
    assert_eq!(outcome, (Some(2), String::new(), line.into()));
    let outcome = run(factlib(folder.path()).args(["run", "--set", "kafka.tls"]));
    let line = "factlib: flag --set kafka.tls: expected section.key=value\n";
    assert_eq!(outcome, (Some(2), String::new(), line.into()));
}

#[test]
fn a_command_that_nothing_configures_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tail = |address: &[&str]| run(factlib(folder.path()).arg("tail").args(address)).2;
    let unconfigured = tail(&[]);
    assert!(unconfigured.contains("nothing is configured"), "{unconfigured}");
    assert!(unconfigured.contains("`factlib init`"), "{unconfigured}");
    let configured = tail(&["--postgres-url", "postgresql://relay@127.0.0.1:1/shop"]);
    assert!(!configured.contains("nothing is configured"), "{configured}");
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("bound").port();
    let (code, out, err) =
        run(factlib(folder.path()).arg("run").env("WAL_HEALTH_PORT", port.to_string()));
    assert_eq!((code, out), (Some(2), String::new()));
    let start = format!("factlib: cannot listen on 127.0.0.1:{port} for http.health_port: ");
    assert!(err.starts_with(&start) && err.lines().count() == 1, "{err}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for line in [&[][..], &["fly"], &["run", "--nothing"], &["emit"]] {
        let (code, out, _) = run(factlib(folder.path()).args(line));
        assert_eq!((code, out), (Some(2), String::new()), "{line:?}");
    }
}

/// The help of a command, and that of all below it, by what is typed for it.
fn help_of(folder: &Path, typed: &[String], all: &mut Vec<(String, String)>) {
    let (code, out, err) = run(factlib(folder).args(typed).arg("--help"));
    assert_eq!((code, err), (Some(0), String::new()), "{typed:?}");
    let list = out.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let list = list.split("\n\n").next().unwrap_or_default();
    for line in list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().expect("a name");
        if name != "help" {
            help_of(folder, &[typed, &[name.to_owned()]].concat(), all);
        }
    }
    all.push((typed.join(" "), out));
}

#[test]
fn each_command_has_an_example_and_says_its_exit_codes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut all = Vec::new();
    help_of(folder.path(), &[], &mut all);
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"") && names.contains(&"slot advance"), "{names:?}");
    assert!(names.len() > 20, "{names:?}");
    for (name, help) in &all {
        assert!(help.lines().count() <= 40, "factlib {name} --help does not fit a screen:\n{help}");
        assert!(help.contains("Examples:\n  "), "factlib {name} has no example");
        assert!(help.contains("\nExit codes:"), "factlib {name} does not say its exit codes");
        let own = format!("factlib {name}");
        let examples = help.split_once("Examples:").expect("examples").1;
        assert!(examples.contains(own.trim()), "the examples of {own} are of something else");
    }
}

#[test]
fn the_version_goes_to_stdout() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, out, _) = run(factlib(folder.path()).arg("-V"));
    assert_eq!((code, out), (Some(0), concat!("factlib ", env!("CARGO_PKG_VERSION"), "\n").into()));
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_secrets() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = |more: &[&str]| {
        let mut command = factlib(folder.path());
        command.arg("config").args(more).args(["--brokers", "a:1,b:2"]);
        run(command.env("MASTER_DATABASE_URL", "postgresql://u:hunter2@db/shop"))
    };
    let (code, out, err) = config(&[]);
    assert_eq!((code, err), (Some(0), String::new()));
    assert!(!out.contains("hunter2"));
    let line = |name: &str| out.lines().find(|line| line.contains(name)).unwrap_or_default();
    let words = |name: &str| line(name).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words("kafka.brokers"), r#"kafka.brokers = ["a:1", "b:2"] # flag --brokers"#);
    let url = r##"# postgres.url = "[redacted]" # environment variable MASTER_DATABASE_URL"##;
    assert_eq!(words("postgres.url"), url);
    assert_eq!(words("kafka.tls_ca"), "# kafka.tls_ca is not set # default");

    // What is shown can be used as a file.
    std::fs::write(folder.path().join("shown.toml"), &out).expect("written");
    let (code, _, err) = run(factlib(folder.path()).args(["config", "--config", "shown.toml"]));
    assert_eq!((code, err), (Some(0), String::new()));

    // Routes too, with names that TOML quotes.
    let routes = format!("{ROUTES}match.metadata.\"x.y\" = \"z\"\n");
    std::fs::write(folder.path().join("factlib.toml"), routes).expect("written");
    let (_, out, _) = config(&[]);
    std::fs::write(folder.path().join("shown.toml"), &out).expect("written");
    let (code, again, err) = run(factlib(folder.path()).args(["config", "--config", "shown.toml"]));
    assert_eq!((code, err), (Some(0), String::new()));
    let route = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("route = ")).unwrap_or_default();
        line.split("  # ").next().unwrap_or_default().to_owned()
    };
    assert!(route(&out).contains("\"x.y\" = \"z\""), "{out}");
    assert_eq!(route(&again), route(&out));

    let (code, out, _) = config(&["--json"]);
    assert_eq!(code, Some(0));
    assert!(!out.contains("hunter2"));
    let entries: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
    assert!(entries.iter().any(|entry| entry["source"] == "flag --brokers"));
}

const ROUTES: &str = r#"
[kafka]
topic_prefix = "shop"
unrouted = "ignore"

[[route]]
match = { aggregate_type = "order", event_type = "/^order\\.(?<what>.+)$/" }
topic = ["{prefix}.orders.{what}", "audit"]
key = "{aggregate_type}-{aggregate_id}"
partition = 2
headers = { tenant = "{metadata.tenant}", content-type = "text/x" }
format = "raw"

[[route]]
match.aggregate_type = "noise"
drop = true
"#;

#[test]
fn a_route_is_explained_from_flags() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("factlib.toml"), ROUTES).expect("written");
    let explain = |line: &str| {
        let words = line.split(' ');
        run(factlib(folder.path()).args(["route", "--explain"]).args(words))
    };
    let order = "--aggregate-type order --event-type order.placed --aggregate-id 7 --id i \
                 --metadata tenant=acme --payload {}";
    let record = |topic: &str| {
        format!(
            r#"record    topic      {topic}
          key        "order-7"
          partition  2
          format     raw
          header     event_id = "i"
          header     event_type = "order.placed"
          header     LSN = "0/0"
          header     aggregate_type = "order"
          header     aggregate_id = "7"
          header     created_at = "0"
          header     metadata.tenant = "acme"
          header     content-type = "text/x"
          header     tenant = "acme"
          value      "{{}}"
"#
        )
    };
    let out = format!(
        "event     \"order.placed\" of \"order\" \"7\"\nroute     route[0], factlib.toml line 6\n{}{}",
        record("shop.orders.placed"),
        record("audit")
    );
    assert_eq!(explain(order), (Some(0), out, String::new()));

    let (code, out, _) = explain("--aggregate-type noise");
    let filtered = "filtered  it is not sent, and counts as done\n";
    assert!(
        out.ends_with(&format!("route     route[1], factlib.toml line 14\n{filtered}")),
        "{out}"
    );
    assert_eq!(code, Some(0));
    let (_, out, _) = explain("--aggregate-type user");
    assert!(out.ends_with(&format!("route     none: kafka.unrouted decides\n{filtered}")), "{out}");
    let (_, out, _) = explain("--aggregate-type order --event-type order.a/b");
    assert!(out.contains("\nrefused   route[0] can't send the event: topic"), "{out}");
    // The flag is the default.
    let words = ["route", "--aggregate-type", "noise"];
    let (code, out, _) = run(factlib(folder.path()).args(words));
    assert!(code == Some(0) && out.ends_with(filtered), "{out}");
}

#[test]
fn a_route_is_explained_from_lines_of_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("factlib.toml"), ROUTES).expect("written");
    let explain = |lines: &str| {
        std::fs::write(folder.path().join("lines"), lines).expect("written");
        let lines = std::fs::File::open(folder.path().join("lines")).expect("opened");
        run(factlib(folder.path()).args(["route", "--explain"]).stdin(lines))
    };
    let line = |kind: &str| {
        format!(
            r#"{{"aggregate_type":"{kind}","aggregate_id":"7","event_type":"order.x","payload":[1]}}"#
        )
    };
    let (code, out, err) = explain(&format!("{}\n\n{}\n", line("order"), line("user")));
    assert_eq!((code, err), (Some(0), String::new()));
    assert!(
        out.contains("topic      shop.orders.x\n") && out.contains("value      \"[1]\"\n"),
        "{out}"
    );
    assert_eq!(out.matches("event     ").count(), 2);
    let (code, _, err) = explain(&format!("{}\nnonsense\n", line("order")));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.starts_with("factlib: cannot explain line 2 of standard input: "), "{err}");
}

#[test]
fn an_unreachable_route_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let routes = "[[route]]\n\n[[route]]\nmatch.aggregate_type = \"a\"\n";
    std::fs::write(folder.path().join("factlib.toml"), routes).expect("written");
    let line = "factlib: route[1] = a table from factlib.toml line 3: \
        is never reached: route[0] takes all that it would\n";
    for subcommand in [&["run"][..], &["route", "--explain"], &["config"]] {
        let outcome = run(factlib(folder.path()).args(subcommand));
        assert_eq!(outcome, (Some(2), String::new(), line.into()), "{subcommand:?}");
    }
}

#[test]
fn the_reference_needs_no_valid_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("factlib.toml"), "nonsense").expect("written");
    let (code, out, _) = run(factlib(folder.path()).args(["config", "--reference"]));
    assert_eq!((code, out), (Some(0), factlib::binary::markdown()));
    let (code, out, _) = run(factlib(folder.path()).args(["config", "--example"]));
    assert_eq!((code, out), (Some(0), factlib::binary::example()));
}

/// `run` against servers that take connections and say nothing, once it has connected.
fn run_that_waits_for_its_servers(folder: &Path) -> Child {
    let servers = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = servers.local_addr().expect("bound");
    let child = factlib(folder)
        .args(["run", "--log-format", "json", "--set", "log.service=shop"])
        .args(["--brokers", &address.to_string()])
        .args(["--postgres-url", &format!("postgresql://relay@{address}/shop")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let (sender, connected) = mpsc::channel();
    std::thread::spawn(move || {
        // Kept open as long as the test lives.
        let mut connections = Vec::new();
        while let Ok(connection) = servers.accept() {
            connections.push(connection);
            let _ = sender.send(());
        }
    });
    connected.recv_timeout(SOON).expect("it connects");
    child
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// The exit code and stderr of a command that ends soon.
fn ended(child: Child) -> (Option<i32>, String) {
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = output.recv_timeout(SOON).expect("it ends").expect("its output");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn a_signal_during_the_start_is_a_clean_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["-TERM", "-INT"] {
        let child = run_that_waits_for_its_servers(folder.path());
        signal(&child, name);
        let (code, err) = ended(child);
        assert_eq!(code, Some(0), "{err}");
        let line = err.lines().last().expect("a log line");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["service"], "shop");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["signal"], format!("SIG{}", &name[1..]));
        let caller = line["caller"].as_str().unwrap_or_default();
        assert!(caller.starts_with("src/bin/factlib/run.rs:"), "{line}");
    }
}
