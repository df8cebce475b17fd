//! One version, source and mode of delivery: runs the scenarios in a process of their own.

use std::{
    env,
    process::Stdio,
    time::{Duration, Instant},
};

use factlib::testing::shared_postgres;
use tokio::process::Command;

use super::end_to_end::end_to_end;
use crate::{
    Ctx,
    scenarios::{Scenario, crash, postgres},
};

/// Starts each line of a row's process that is meant for the table.
const MARK: &str = "ROW\t";

/// A row takes a minute; ten times that on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

pub const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "end_to_end", run: |ctx| Box::pin(end_to_end(ctx)) },
    Scenario {
        name: "killed_at_random_moments",
        run: |ctx| Box::pin(crash::killed_at_random_moments(ctx)),
    },
    Scenario {
        name: "walsender_terminated",
        run: |ctx| Box::pin(postgres::walsender_terminated(ctx)),
    },
    Scenario {
        name: "server_stopped_hard",
        run: |ctx| Box::pin(postgres::server_stopped_hard(ctx)),
    },
];

/// What a row is about.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub version: u32,
    pub source: &'static str,
    pub delivery: &'static str,
}

/// What its scenarios came to.
#[derive(Debug)]
pub struct Row {
    pub setting: Setting,
    /// As the server says it, such as 17.6.
    pub release: String,
    /// Of each scenario that ended: name, "kept" or why not.
    pub verdicts: Vec<(String, String)>,
    pub events: u64,
    pub repeated: u64,
    pub seconds: u64,
    /// How many scenarios had to end.
    wanted: usize,
}

impl Row {
    /// Runs the scenarios whose names contain `filter`.
    pub async fn run(setting: Setting, filter: &str) -> Row {
        let begin = Instant::now();
        let child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "matrix::one_row", "--ignored", "--nocapture"])
            .env("FACTLIB_PG_VERSION", setting.version.to_string())
            .env("CHAOS_SOURCE", setting.source)
            .env("CHAOS_DELIVERY", setting.delivery)
            .env("MATRIX_SCENARIO", filter)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = output.expect("a row ends").expect("its output");
        let wanted = SCENARIOS.iter().filter(|one| one.name.contains(filter)).count();
        let (release, verdicts) = (String::new(), Vec::new());
        let mut row =
            Row { setting, release, verdicts, events: 0, repeated: 0, seconds: 0, wanted };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            row.take(line);
        }
        row.seconds = begin.elapsed().as_secs();
        row
    }

    pub fn is_kept(&self) -> bool {
        self.verdicts.len() == self.wanted && self.verdicts.iter().all(|(_, said)| said == "kept")
    }

    fn take(&mut self, line: &str) {
        // The test harness writes "test … ... " before the first line.
        let Some((_, line)) = line.split_once(MARK) else { return };
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        match next() {
            "release" => self.release = next().into(),
            "scenario" => {
                self.verdicts.push((next().into(), next().into()));
                self.events += next().parse::<u64>().unwrap_or_default();
                self.repeated += next().parse::<u64>().unwrap_or_default();
            }
            other => panic!("no line of a row: {other}"),
        }
    }
}

/// Runs the scenarios of this process's row, and prints what [`Row::take`] reads.
pub async fn run_here() {
    let filter = env::var("MATRIX_SCENARIO").unwrap_or_default();
    let server = shared_postgres().await.expect("PostgreSQL starts");
    let release = server.query_text("postgres", "SHOW server_version").await.expect("a version");
    println!("{MARK}release\t{release}");
    for scenario in SCENARIOS.iter().filter(|one| one.name.contains(&filter)) {
        let (name, run) = (scenario.name, scenario.run);
        // A task of its own, so that a scenario that panics is one cell and not the end.
        let outcome = tokio::spawn(async move { run(&mut Ctx::new(name, 1, None)).await }).await;
        let (verdict, report) = match outcome {
            Ok(outcome) if outcome.holds() => ("kept".to_owned(), outcome.report),
            Ok(outcome) => (format!("BROKEN: {}", outcome.report), outcome.report),
            Err(error) => (format!("BROKEN: {error}"), Default::default()),
        };
        let verdict = verdict.replace(['\n', '\t'], " ");
        let (events, repeated) = (report.emitted, report.duplicates);
        println!("{MARK}scenario\t{name}\t{verdict}\t{events}\t{repeated}");
    }
}
