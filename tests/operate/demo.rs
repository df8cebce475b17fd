//! `factlib demo` as a shell sees it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

use nix::pty::{OpenptyResult, openpty};

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
    let (_, summary) = text.rsplit_once("\n\n").expect("a summary");
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

/// What a program shows on a terminal, as it comes.
struct Screen {
    terminal: File,
    text: String,
}

impl Screen {
    /// More of it; false at its end.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Of a terminal that nobody has open any more, Linux answers with an error.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Reads on until this is shown, from here on.
    fn until(&mut self, expected: &str) {
        let begin = self.text.len();
        while !self.text[begin..].contains(expected) {
            assert!(self.more(), "no {expected:?} in\n{}", &self.text[begin..]);
        }
    }

    fn press(&mut self, key: &str) {
        self.terminal.write_all(key.as_bytes()).unwrap();
    }
}

#[test]
fn a_key_stops_the_broker_and_starts_it_again_and_nothing_is_lost() {
    let folder = folder();
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let side = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    let mut command = demo(folder.path());
    command.args(["--seconds", "600"]).stdin(side(&slave)).stdout(side(&slave));
    let mut child = command.spawn().unwrap();
    drop((command, slave));
    let mut screen = Screen { terminal: master.into(), text: String::new() };
    screen.until("b: stop the broker   space: stay (");
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
    assert_all_arrived(&screen.text.replace('\r', "").replace("\x1b[?7h", ""));
    assert_nothing_is_left(folder.path());
}
