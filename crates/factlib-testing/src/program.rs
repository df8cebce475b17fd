//! A program under test, which ends with its handle.

use std::{fs, path::Path, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    Result,
    process::{GuardedChild, ServerHome},
};

/// A running program, in its own temporary folder.
///
/// It is killed when this is dropped, and when this process ends for any reason.
#[derive(Debug)]
pub struct Program {
    child: GuardedChild,
    home: ServerHome,
}

impl Program {
    /// Starts the program with these arguments and an environment of only these variables.
    pub fn start(path: &Path, args: &[String], variables: &[(String, String)]) -> Result<Self> {
        let home = ServerHome::create("program", Signal::SIGKILL)?;
        let variables = variables.iter().map(|(name, value)| format!("{name}={value}"));
        let program = [path.display().to_string()];
        let clear = ["-i".to_owned()];
        let words = clear.into_iter().chain(variables).chain(program).chain(args.iter().cloned());
        let child = home.spawn("output", Path::new("env"), words, None)?;
        Ok(Program { child, home })
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns true until it ends.
    pub fn is_running(&self) -> bool {
        self.child.is_running()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.child.signal(Signal::SIGTERM);
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        self.child.signal(Signal::SIGKILL);
    }

    /// Waits for its end; returns `None` at the limit.
    pub async fn ended(&self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.exited()).await.ok()
    }

    /// Returns what it has printed so far, on both streams.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.home.path().join("output.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
