//! The machine, the servers and the day of a comparison.

use std::{fs, path::PathBuf, thread};

use time::OffsetDateTime;

use super::installed::version_of;
use crate::support::{Result, servers::Servers};

#[derive(Clone, Debug)]
pub struct Machine {
    pub cores: usize,
    pub memory_gib: f64,
    /// Of one minute, before anything was started.
    pub load_before: String,
    pub postgres: String,
    pub kafka: String,
    /// In UTC, as `2026-11-27`.
    pub date: String,
}

impl Machine {
    pub async fn look(servers: &Servers) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        // Debian's has its own name behind it.
        let postgres = servers.text("SHOW server_version").await?;

        Ok(Machine {
            cores: thread::available_parallelism()?.get(),
            memory_gib: memory_gib().unwrap_or(f64::NAN),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
            postgres: postgres.split(' ').next().unwrap_or_default().to_owned(),
            kafka: kafka(servers)?,
            date: OffsetDateTime::now_utc().date().to_string(),
        })
    }
}

fn memory_gib() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

/// Takes the broker's version out of the names of its jars, which its command line has.
fn kafka(servers: &Servers) -> Result<String> {
    let pid = servers.kafka.pid(1)?.ok_or("Kafka has ended")?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let jars = line.split('\0').find(|arg| arg.ends_with("/*")).ok_or("no classpath")?;
    version_of("kafka_2.13-", &PathBuf::from(jars.trim_end_matches('*')))
}
