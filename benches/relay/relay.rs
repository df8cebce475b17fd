//! The relay itself: `factlib run`, its release build, with the settings it comes with.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    Result,
    servers::{NAME, Servers},
    topics::Topics,
};

const DRAIN_LIMIT: Duration = Duration::from_secs(60);

pub struct Relay {
    pub child: Child,
    pub pid: u32,
}

impl Relay {
    /// Everything that is not said here is default.
    pub fn start(servers: &Servers, slot: &str, topics: &Topics) -> Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_factlib"))
            .arg("run")
            .args(["--postgres-url", &servers.url()])
            .args(["--slot", slot, "--publication", NAME, "--prefix", NAME])
            .args(["--brokers", &servers.kafka.bootstrap()])
            .args(["--topic-prefix", &topics.prefix])
            .args(["--log-level", "warn"])
            // No factlib.toml, .env or variable of the caller's counts.
            .current_dir(servers.postgres.socket_dir())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
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
