//! Listens for the signals that stop a command.

use factlib::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM, SIGINT and SIGHUP; while it exists, they no longer kill the process.
///
/// SIGHUP arrives when a terminal closes. It stops a relay of one pipeline like the others and does
/// not reload the configuration; a folder of pipelines is read again. If the process was started with it ignored, as by `nohup`, it stays ignored.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    pub fn new() -> Result<Self> {
        let listen = |kind| {
            let failure = "cannot listen for signals";
            signal(kind).map_err(|error| Error::new(ErrorKind::Config, failure).caused_by(error))
        };
        let listens_for_hang_up = !ignores_hang_up();
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listens_for_hang_up.then(|| listen(SignalKind::hangup())).transpose()?,
        })
    }

    /// Runs work that can be given up at any time until it ends, or until a signal stops it.
    pub async fn or_stop<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            signal = self.next() => Err(stopped_by(signal)),
        }
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hang_up => "SIGHUP",
        }
    }
}

/// The error of a command that a signal stopped before it was done.
pub fn stopped_by(signal: &str) -> Error {
    Error::new(ErrorKind::DrainTimeout, format!("stopped by {signal}"))
}

/// True if the process was started with SIGHUP ignored; detected on Linux only.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    ignored.unwrap_or(0) & 1 == 1
}
