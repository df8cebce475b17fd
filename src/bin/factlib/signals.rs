//! The signals that ask for an end.

use factlib::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP; once this exists, they no longer kill the process.
///
/// SIGHUP comes from a terminal that is closed. It stops the relay like the others; it does not
/// reload the configuration. Where it is ignored, as under `nohup`, it stays ignored.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    pub fn new() -> Result<Self> {
        let listen = |kind| {
            let what = "cannot listen for signals";
            signal(kind).map_err(|error| Error::new(ErrorKind::Config, what).caused_by(error))
        };
        let heeds_hang_up = !ignores_hang_up();
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: heeds_hang_up.then(|| listen(SignalKind::hangup())).transpose()?,
        })
    }

    /// The name of the next one.
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

/// True if the process was started with SIGHUP ignored; known on Linux only.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    ignored.unwrap_or(0) & 1 == 1
}
