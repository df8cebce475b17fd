//! Processes of a server that is killed: a postmaster's children are in sessions of their own, so that no
//! signal to a group reaches them.

use std::{fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

/// A killed process is gone within milliseconds, unless it waits for a disk.
const END_LIMIT: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the process ids of a process's children; none where there is no `/proc`, as there they end by
/// themselves when they notice that the postmaster is gone.
pub(super) fn children_of(parent: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Kills the processes and waits until they are gone.
pub(super) async fn kill_all(pids: &[i32]) {
    for pid in pids {
        // The only possible error is that it has just ended.
        kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
    }
    let deadline = Instant::now() + END_LIMIT;
    while pids.iter().any(|pid| parent_of(*pid).is_some()) && Instant::now() < deadline {
        sleep(PROBE_INTERVAL).await;
    }
}

/// Returns the parent of a process that runs; one that only waits to be reaped does not.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid …; the name may contain anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}
