//! All figures of a run, and whether they are what was aimed for.

use std::{fs, path::Path, time::SystemTime};

use serde::Serialize;

use crate::{
    Result,
    backlog::{COST, EXACTLY, FAR, RECEIPTS},
    contest::{Contest, Reader},
    embedded::With,
    latency::Latency,
    relay::Mode,
    servers::{KAFKA_JVM, POSTGRES_SETTINGS, Servers},
};

/// Of several runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl FromIterator<f64> for Spread {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            0 => (at(middle.wrapping_sub(1)) + at(middle)) / 2.0,
            _ => at(middle),
        };
        Spread { median, min: at(0), max: at(figures.len().wrapping_sub(1)) }
    }
}

#[derive(Serialize)]
pub struct Report {
    unix_s: u64,
    cores: usize,
    /// One minute's, before anything was started: more than a little, and others were at work.
    load_before: String,
    postgres: String,
    postgres_settings: &'static [(&'static str, &'static str)],
    kafka_jvm: &'static [&'static str],
    repeats: usize,
    pub contests: Vec<Contest>,
    pub latencies: Vec<Latency>,
    pub idle_cpu_percent: Option<f64>,
    targets: Vec<Target>,
}

/// A figure that was promised.
#[derive(Serialize)]
struct Target {
    what: String,
    wanted: String,
    measured: f64,
    met: bool,
}

impl Report {
    pub async fn new(servers: &Servers, repeats: usize) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let report = Report {
            unix_s: SystemTime::UNIX_EPOCH.elapsed()?.as_secs(),
            cores: std::thread::available_parallelism()?.get(),
            load_before: load.split(' ').next().unwrap_or_default().to_owned(),
            postgres: servers.text("SHOW server_version").await?,
            postgres_settings: POSTGRES_SETTINGS,
            kafka_jvm: KAFKA_JVM,
            repeats,
            contests: Vec::new(),
            latencies: Vec::new(),
            idle_cpu_percent: None,
            targets: Vec::new(),
        };
        println!(
            "PostgreSQL {}, {} cores, load {} at the start, {repeats} repeats; medians",
            report.postgres, report.cores, report.load_before
        );
        Ok(report)
    }

    /// Holds the figures against what is aimed for.
    pub fn judge(&mut self) {
        let mut targets = Vec::new();
        let mut at_least = |what: String, least: f64, measured: f64| {
            let met = measured >= least;
            targets.push(Target { what, wanted: format!("at least {least}"), measured, met });
        };
        for contest in &self.contests {
            let ratio = |reader| contest.ratio(reader).median;
            let name = contest.backlog.name;
            if name == COST {
                for with in [With::Routes, With::Handler] {
                    let reader = Reader::Embedded(with);
                    at_least(format!("{name}: {}, of (a)", reader.label()), 0.95, ratio(reader));
                }
            }
            if name.starts_with(EXACTLY) {
                let reader = Reader::Delivery(Mode::EXACTLY_ONCE);
                at_least(format!("{name}: {}, of (a)", reader.label()), 0.8, ratio(reader));
            }
            if name == RECEIPTS {
                let reader = Reader::Delivery(Mode::WithReceipts);
                at_least(format!("{name}: {}, of (a)", reader.label()), 0.95, ratio(reader));
            }
            if name == FAR {
                let [near, far, exactly] = Reader::FAR.map(ratio);
                at_least(format!("{name}: 5 ms away, of near"), 0.8, far / near);
                at_least(format!("{name}: exactly once, of at least once"), 0.7, exactly / far);
            }
            let (least, aim) = match name {
                "tx5" => (0.7, 0.9),
                "tx1" => (0.8, 1.1),
                _ => continue,
            };
            at_least(format!("{name}: (c) of (a)"), least, ratio(Reader::Relay));
            at_least(format!("{name}: (c) of (a), the aim"), aim, ratio(Reader::Relay));
            at_least(format!("{name}: (b) of (a)"), 0.95, ratio(Reader::Nothing));
        }
        let mut at_most = |what: String, most: f64, measured: f64| {
            let met = measured <= most;
            targets.push(Target { what, wanted: format!("at most {most}"), measured, met });
        };
        for contest in &self.contests {
            let name = contest.backlog.name;
            let cpu_limit = match name {
                "tx5" | "tx1" | "one" => 1.2,
                "table" => 3.0,
                _ => continue,
            };
            let cpu = contest.spread(Reader::Relay, |run| run.cpu_s_per_million).median;
            at_most(format!("{name}: relay's CPU seconds per million"), cpu_limit, cpu);
            let peak = contest.spread(Reader::Relay, |run| run.peak_mib).max;
            at_most(format!("{name}: relay's resident MiB, the most"), 64.0, peak);
        }
        for latency in self.latencies.iter().filter(|latency| latency.round_trip_ms == 0) {
            let (rate, append) = (latency.wanted_per_s, latency.to_append);
            if latency.mode != Mode::AtLeastOnce {
                if latency.mode == Mode::EXACTLY_ONCE {
                    let p99 = latency.to_receipt.p99_ms;
                    at_most(format!("{rate}/s exactly once: ms to the receipt, p99"), 60.0, p99);
                }
            } else if rate == 1_000 {
                at_most(format!("{rate}/s: ms to the append, p50"), 2.0, append.p50_ms);
                at_most(format!("{rate}/s: ms to the append, p99"), 10.0, append.p99_ms);
            } else {
                at_most(format!("{rate}/s: ms to the append, p99"), 25.0, append.p99_ms);
            }
        }
        for latency in self.latencies.iter().filter(|latency| latency.round_trip_ms > 0) {
            let Latency { layout, round_trip_ms, wanted_per_s, to_append, .. } = latency;
            let (p50, p99) = match (latency.mode, round_trip_ms) {
                (Mode::ExactlyOnce { .. }, _) => {
                    let p99 = latency.to_receipt.p99_ms;
                    let what =
                        format!("{round_trip_ms} ms away, exactly once: ms to the receipt, p99");
                    at_most(what, 80.0, p99);
                    continue;
                }
                (_, 1) => (4.0, 15.0),
                (_, 5) => (10.0, 20.0),
                _ => (30.0, 60.0),
            };
            let at = format!(
                "{round_trip_ms} ms away, {} × {} partitions, {wanted_per_s}/s: ms to the append",
                layout.topics, layout.partitions
            );
            at_most(format!("{at}, p50"), p50, to_append.p50_ms);
            at_most(format!("{at}, p99"), p99, to_append.p99_ms);
        }
        if let Some(percent) = self.idle_cpu_percent {
            at_most("idle: % of a core".to_owned(), 0.5, percent);
        }
        self.targets = targets;
        println!("\n| target | wanted | measured | |\n| --- | --- | ---: | --- |");
        for Target { what, wanted, measured, met } in &self.targets {
            let verdict = if *met { "met" } else { "MISSED" };
            println!("| {what} | {wanted} | {measured:.2} | {verdict} |");
        }
    }

    /// Writes the JSON below the target folder, and to `also`.
    pub fn write(&self, also: Option<&Path>) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("relay-{}.json", self.unix_s));
        fs::write(&path, &json)?;
        if let Some(also) = also {
            fs::write(also, &json)?;
        }
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}
