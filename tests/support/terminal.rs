//! The real binary, typed in a folder of its own with an empty environment.

use std::{fs, path::Path, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Within which everything typed here happens, by far.
pub const SOON: Duration = Duration::from_secs(60);

/// A folder with a `factlib.toml`, as an operator works in it.
pub struct Folder(TempDir);

/// How a command ended, and what it said.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Folder {
    pub fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("factlib.toml"), settings).expect("written");
        Folder(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The command line, such as `factlib run`, typed in this folder.
    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("factlib"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command
            .args(words)
            .current_dir(self.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn type_in(&self, line: &str) -> Ended {
        let output = timeout(SOON, self.command(line).output()).await.expect("it ends");
        let output = output.expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A relay that reads and delivers; its log is read on.
    pub async fn relay(&self) -> Child {
        let mut relay = self.command("factlib run").spawn().expect("it starts");
        let mut log = BufReader::new(relay.stderr.take().expect("piped")).lines();
        let mut seen = String::new();
        let running = async {
            while let Some(line) = log.next_line().await.expect("UTF-8") {
                seen += &format!("{line}\n");
                if line.contains("\"relay running\"") {
                    return true;
                }
            }
            false
        };
        assert!(timeout(SOON, running).await.unwrap_or(false), "it does not run: {seen}");
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        relay
    }
}

impl Folder {
    /// Starts a relay, waits for a line of its log with this text, gives the line and ends it.
    pub async fn relay_says(&self, text: &str) -> String {
        let mut relay = self.command("factlib run").spawn().expect("it starts");
        let mut log = BufReader::new(relay.stderr.take().expect("piped")).lines();
        let mut seen = String::new();
        let said = async {
            while let Some(line) = log.next_line().await.expect("UTF-8") {
                seen += &format!("{line}\n");
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        let line = timeout(SOON, said).await.ok().flatten();
        relay.kill().await.expect("it is killed");
        line.unwrap_or_else(|| panic!("it does not say {text:?}: {seen}"))
    }
}

/// Stops a relay in order.
pub async fn stop(mut relay: Child) {
    let pid = relay.id().expect("it runs").to_string();
    let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(kill.expect("kill runs").success());
    let status = timeout(SOON, relay.wait()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(0));
}
