//! What a process used, as Linux counts it.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// `USER_HZ`, in which `/proc` counts: the same on every Linux that we know of.
const TICKS_PER_S: f64 = 100.0;
/// A process that has ended tells no more; so much of its end is missed.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// User and system time of a process, all its threads.
pub fn cpu_s(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}

/// The most that was ever resident.
fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// What the processes of a run used.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub peak_bytes: u64,
    pub walsender_cpu_s: f64,
    pub broker_cpu_s: f64,
}

/// Looks at processes until it is told to stop: some end before they can be asked.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    /// 0 until it is known.
    walsender: Arc<AtomicU32>,
    thread: JoinHandle<Usage>,
}

impl Sampler {
    pub fn start(subject: u32, broker: u32) -> Self {
        let (stop, walsender) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let thread = {
            let (stop, walsender) = (Arc::clone(&stop), Arc::clone(&walsender));
            thread::spawn(move || sample(subject, broker, &walsender, &stop))
        };
        Sampler { stop, walsender, thread }
    }

    pub fn walsender(&self, pid: u32) {
        self.walsender.store(pid, Relaxed);
    }

    pub fn usage(self) -> Usage {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn sample(subject: u32, broker: u32, walsender: &AtomicU32, stop: &AtomicBool) -> Usage {
    let mut usage = Usage::default();
    let broker_before = cpu_s(broker).unwrap_or_default();
    loop {
        let last = stop.load(Relaxed);
        usage.cpu_s = cpu_s(subject).unwrap_or(usage.cpu_s).max(usage.cpu_s);
        usage.peak_bytes = peak_bytes(subject).unwrap_or_default().max(usage.peak_bytes);
        if let pid @ 1.. = walsender.load(Relaxed) {
            usage.walsender_cpu_s = cpu_s(pid).unwrap_or_default().max(usage.walsender_cpu_s);
        }
        if last {
            usage.broker_cpu_s = cpu_s(broker).unwrap_or_default() - broker_before;
            return usage;
        }
        thread::sleep(SAMPLE_INTERVAL);
    }
}
