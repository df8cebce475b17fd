//! The real binary: configured by its environment, watched by its log, ended with its handle.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use factlib::testing::Program;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{task::AbortHandle, time::sleep};

use super::{Bed, History, Report, bed::LIMIT, source::reads_tables};

const BINARY: &str = env!("CARGO_BIN_EXE_factlib");
/// Nothing signals that a file has grown.
const LOOK: Duration = Duration::from_millis(20);
/// Memory is sampled, because a process that is killed can't be asked for its peak.
const SAMPLE: Duration = Duration::from_millis(100);

/// Settings whose keys are Kafka's, with dots.
const TABLES: [&str; 2] = ["kafka.properties.", "kafka.topics.config."];

/// Whether the relay is to write in transactions, in which case no fault explains a duplicate.
pub fn exactly_once() -> bool {
    std::env::var("CHAOS_DELIVERY").is_ok_and(|mode| mode == "exactly-once")
}

/// How the binary is started.
#[derive(Clone)]
pub struct Launch {
    variables: Vec<(String, String)>,
    peak_kb: Arc<AtomicU64>,
}

impl Launch {
    pub fn new(bed: &Bed<'_>, peak_kb: Arc<AtomicU64>) -> Self {
        let partitions = bed.config.kafka.topics.partitions.unwrap_or(1);
        let launch = Launch { variables: Vec::new(), peak_kb };
        let launch = match exactly_once() {
            true => launch.set("delivery.mode", "exactly-once"),
            false => launch,
        };
        let launch = match reads_tables() {
            true => launch.set("postgres.source", "tables"),
            false => launch,
        };
        launch
            .set("postgres.url", bed.postgres.url_for(&bed.database))
            .set("postgres.slot", &bed.name)
            .set("postgres.publication", &bed.name)
            .set("postgres.message_prefix", &bed.name)
            .set("kafka.brokers", bed.kafka.bootstrap())
            .set("kafka.topics.partitions", partitions.to_string())
            .set("checkpoint.idle_interval", "500ms")
            .set("log.format", "json")
    }

    /// A setting, by its name; the last value counts.
    pub fn set(mut self, setting: &str, value: impl Into<String>) -> Self {
        let table = TABLES.into_iter().find(|table| setting.starts_with(table));
        let (section, key) = setting.split_at(table.map_or(setting.len(), str::len));
        let name = section.replace('.', "__") + &key.replace('.', "_");
        self.variables.push((format!("FACTLIB_{}", name.to_uppercase()), value.into()));
        self
    }

    /// Without a setting: with its default.
    pub fn without(mut self, setting: &str) -> Self {
        let variable = format!("FACTLIB_{}", setting.replace('.', "__").to_uppercase());
        self.variables.retain(|(name, _)| *name != variable);
        self
    }

    /// `FACTLIB_FAULT`.
    pub fn fault(self, faults: impl Into<String>) -> Self {
        self.variable("FACTLIB_FAULT", faults)
    }

    /// A variable of the environment.
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts `factlib run`, and waits until it reads.
    pub async fn start(&self) -> Relay {
        let relay = self.spawn();
        relay.says("relay running").await;
        relay
    }

    /// Starts `factlib run`.
    pub fn spawn(&self) -> Relay {
        let program = self.program(&["run"]);
        let (pid, peak_kb) = (program.pid(), Arc::clone(&self.peak_kb));
        let sampler = tokio::spawn(async move {
            while let Some(kb) = status_kb(pid, "VmHWM") {
                peak_kb.fetch_max(kb, Relaxed);
                sleep(SAMPLE).await;
            }
        });
        Relay { program, sampler: sampler.abort_handle() }
    }

    /// Runs another subcommand to its end, which has to be good.
    pub async fn command(&self, words: &[&str]) -> String {
        let program = self.program(words);
        let status = program.ended(LIMIT).await.expect("the command ends");
        assert!(status.success(), "factlib {words:?}: {}", program.output());
        program.output()
    }

    /// Starts a subcommand.
    pub fn program(&self, words: &[&str]) -> Program {
        let words: Vec<_> = words.iter().map(|word| word.to_string()).collect();
        Program::start(Path::new(BINARY), &words, &self.variables).expect("factlib starts")
    }
}

/// A running `factlib run`.
pub struct Relay {
    program: Program,
    sampler: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

impl Relay {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn is_running(&self) -> bool {
        self.program.is_running()
    }

    /// Its resident size now.
    pub fn rss_mb(&self) -> u64 {
        status_kb(self.program.pid(), "VmRSS").unwrap_or_default() / 1024
    }

    /// Waits for a line of the log that contains this text, anywhere.
    pub async fn says(&self, text: &str) {
        let looking = async {
            loop {
                let (running, output) = (self.is_running(), self.program.output());
                if output.lines().any(|line| line.contains(text)) {
                    return;
                }
                assert!(running, "it ended before it said {text:?}:\n{output}");
                sleep(LOOK).await;
            }
        };
        let found = tokio::time::timeout(LIMIT, looking).await;
        found.unwrap_or_else(|_| panic!("it never said {text:?}:\n{}", self.program.output()));
    }

    /// How many lines have this message.
    pub fn count(&self, message: &str) -> u64 {
        let output = self.program.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["msg"] == message).count() as u64
    }

    /// The value of that name in the last line with this message.
    pub fn last(&self, message: &str, name: &str) -> Option<Value> {
        let output = self.program.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Some(lines.rev().find(|line| line["msg"] == message)?[name].clone())
    }

    /// How many panics it has reported.
    pub fn panics(&self) -> usize {
        self.program.output().lines().filter(|line| line.starts_with("factlib: panicked")).count()
    }

    /// All that it has printed.
    pub fn output(&self) -> String {
        self.program.output()
    }

    /// Has it stand still for so long.
    pub async fn freeze(&self, time: Duration) {
        self.pause();
        sleep(time).await;
        self.resume();
    }

    /// Has it stand still.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.program.pid().cast_signed());
        kill(pid, signal).expect("it is there");
    }

    /// Kills it, and waits for its end.
    pub async fn kill(self) {
        self.program.kill();
        self.program.ended(LIMIT).await.expect("a killed process ends");
    }

    /// Waits for the abort that a fault asks for.
    pub async fn aborted(self) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.program.ended(LIMIT).await.expect("the fault strikes");
        assert_eq!(status.signal(), Some(6), "{}", self.program.output());
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.program.terminate();
    }

    /// Stops it, which has to be in order.
    pub async fn stop(self) {
        self.terminate();
        let (code, output) = self.ended().await;
        assert_eq!(code, Some(0), "{output}");
    }

    /// Its exit code and the last line that it wrote, once it has ended by itself.
    pub async fn ended(&self) -> (Option<i32>, String) {
        let status = self.program.ended(LIMIT).await;
        let output = self.program.output();
        let status = status.unwrap_or_else(|| panic!("it does not end:\n{output}"));
        (status.code(), output.lines().last().unwrap_or_default().to_owned())
    }

    /// Waits until all that was committed so far is delivered and confirmed.
    pub async fn settled(&self, bed: &Bed<'_>) {
        let end = bed.wal_end().await;
        let waiting = async {
            while bed.slot().await.0 < end {
                assert!(self.is_running(), "it ended:\n{}", self.program.output());
                sleep(Duration::from_millis(50)).await;
            }
        };
        // A backlog of minutes may have to be worked off.
        let settled = tokio::time::timeout(5 * LIMIT, waiting).await;
        settled.unwrap_or_else(|_| panic!("it is stuck:\n{}", self.program.output()));
    }

    /// Lets everything arrive, stops it in order, and holds all against the history.
    pub async fn finish(self, bed: &Bed<'_>, history: &History) -> Report {
        self.settled(bed).await;
        self.stop().await;
        let report = bed.check(history).await;
        bed.drop_slot().await;
        report
    }
}

/// A value of `/proc/PID/status` in KiB; none once the process has ended.
fn status_kb(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
