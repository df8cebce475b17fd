//! Defines the metrics of the process, under the names that Prometheus's client libraries use.
//!
//! They come from `/proc`, so other systems than Linux have none.

use super::Family;

/// Lists the metrics with their present values. Their names have no prefix.
#[cfg(target_os = "linux")]
pub(in crate::ops) fn families() -> Vec<Family<'static>> {
    // An unreadable `/proc`, as in some sandboxes, is no reason to refuse a scrape.
    read().unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
pub(in crate::ops) fn families() -> Vec<Family<'static>> {
    Vec::new()
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "clock ticks stay below 2^52 for long")]
fn read() -> procfs::ProcResult<Vec<Family<'static>>> {
    use procfs::{WithCurrentSystemInfo, process::LimitValue, process::Process};

    use super::{counter, gauge, optional_gauge};

    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let start = procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => Some(limit),
        LimitValue::Unlimited => None,
    };
    let threads = u64::try_from(stat.num_threads).unwrap_or(0);
    Ok(vec![
        counter(
            "process_cpu_seconds",
            "User and system CPU time of the process",
            (stat.utime + stat.stime) as f64 / ticks,
        ),
        gauge("process_start_time_seconds", "Unix time at which the process started", start),
        gauge(
            "process_resident_memory_bytes",
            "Memory of the process in RAM",
            stat.rss_bytes().get(),
        ),
        gauge("process_virtual_memory_bytes", "Virtual memory of the process", stat.vsize),
        gauge("process_open_fds", "Open file descriptors", process.fd_count()? as u64),
        optional_gauge("process_max_fds", "Limit of open file descriptors", max_fds),
        gauge("process_threads", "Threads of the process", threads),
    ])
}
