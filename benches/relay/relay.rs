//! The relay itself: `factlib run`, its release build, with the settings it comes with.

use std::{process::Stdio, time::Duration};

use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    Result,
    backlog::Source,
    embedded::With,
    servers::{NAME, Servers},
    topics::Topics,
};

/// How it delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    AtLeastOnce,
    /// The same, with receipts in a topic.
    WithReceipts,
    /// With this `delivery.interval`.
    ExactlyOnce {
        interval_ms: u32,
    },
}

impl Mode {
    pub const EXACTLY_ONCE: Mode = Mode::ExactlyOnce { interval_ms: 20 };
}

const DRAIN_LIMIT: Duration = Duration::from_secs(60);

pub struct Relay {
    pub child: Child,
    pub pid: u32,
}

impl Relay {
    /// Everything that is not said here is default.
    pub fn start(
        servers: &Servers,
        slot: &str,
        topics: &Topics,
        mode: Mode,
        source: Source,
    ) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_factlib"));
        command
            .arg("run")
            .args(["--postgres-url", &servers.url()])
            .args(["--slot", slot, "--publication", NAME, "--prefix", NAME])
            .args(["--brokers", &servers.kafka.bootstrap()])
            .args(["--topic-prefix", &topics.prefix])
            .args(["--log-level", "warn"])
            // No factlib.toml, .env or variable of the caller's counts.
            .current_dir(servers.postgres.socket_dir())
            .env_clear();
        if source == Source::Table {
            command.env("FACTLIB_POSTGRES__SOURCE", "tables");
        }
        if let Mode::ExactlyOnce { interval_ms } = mode {
            command
                .env("FACTLIB_DELIVERY__MODE", "exactly-once")
                .env("FACTLIB_DELIVERY__INTERVAL", format!("{interval_ms}ms"));
        }
        if mode == Mode::WithReceipts {
            command.env("FACTLIB_RECEIPTS__STORE", "topic");
        }
        Self::spawn(command)
    }

    /// Inside this program, with something.
    pub fn embedded(servers: &Servers, slot: &str, topics: &Topics, with: With) -> Result<Self> {
        let with = with.to_possible_value().ok_or("no name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--embedded", &servers.url(), slot, &servers.kafka.bootstrap()]);
        command.args([topics.prefix.as_str(), with.get_name()]);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child.id().ok_or("the relay ended at once")?;
        Ok(Relay { child, pid })
    }

    /// Waits for its end, which is a failure.
    pub async fn ended(&mut self) -> Box<dyn std::error::Error + Send + Sync> {
        match self.child.wait().await {
            Ok(status) => format!("the relay ended by itself: {status}").into(),
            Err(error) => error.into(),
        }
    }

    /// Has it drain and end.
    pub async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)?;
        let status = timeout(DRAIN_LIMIT, self.child.wait()).await??;
        if status.success() { Ok(()) } else { Err(format!("the relay ended: {status}").into()) }
    }
}
