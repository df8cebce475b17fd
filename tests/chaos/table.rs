//! All scenarios at full length, a row each as it ends.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::{Ctx, Outcome, scenarios::Scenario};

/// Of the load of a scenario, where `CHAOS_SECONDS` does not say.
const SECONDS: u64 = 60;

const COLUMNS: [(&str, usize); 10] = [
    ("scenario", 36),
    ("emitted", 9),
    ("delivered", 9),
    ("lost", 4),
    ("phantom", 7),
    ("duplicates (at most, because)", 52),
    ("order", 5),
    ("RSS MB", 6),
    ("s", 4),
    ("verdict", 7),
];

/// Runs them one after the other; true if every promise was kept.
pub async fn run(scenarios: &[Scenario]) -> bool {
    let number = |name: &str| {
        env::var(name).ok().filter(|text| !text.is_empty()).map(|text| {
            text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is no number"))
        })
    };
    let (seed, seconds) = (number("CHAOS_SEED").unwrap_or(1), number("CHAOS_SECONDS"));
    let seconds = seconds.unwrap_or(SECONDS);
    let filter = env::var("CHAOS_SCENARIO").unwrap_or_default();
    let style = Style { markdown: env::var("CHAOS_MARKDOWN").is_ok_and(|text| !text.is_empty()) };
    let chosen = || scenarios.iter().filter(|scenario| scenario.name.contains(&filter));
    assert!(chosen().next().is_some(), "no scenario has {filter:?} in its name");
    println!("SEED={seed} SECONDS={seconds}\n");
    style.row(COLUMNS.map(|(name, _)| name.to_owned()));
    style.rule();
    let (mut kept, mut notes) = (true, Vec::new());
    for scenario in chosen() {
        let begin = Instant::now();
        let ctx = Ctx::new(scenario.name, seed, Some(Duration::from_secs(seconds)));
        let run = scenario.run;
        // A task of its own, so that a scenario that panics is one row and not the end.
        let outcome = tokio::spawn(async move {
            let mut ctx = ctx;
            let outcome = run(&mut ctx).await;
            (outcome, ctx.peak_mb())
        });
        let outcome = outcome.await;
        let took = begin.elapsed().as_secs();
        match outcome {
            Ok((outcome, peak_mb)) => {
                kept &= outcome.holds();
                style.outcome(scenario.name, &outcome, peak_mb, took);
                if !outcome.holds() {
                    notes.push(format!("{}: {}", scenario.name, outcome.report));
                }
                notes.extend(outcome.notes.iter().map(|note| format!("{}: {note}", scenario.name)));
            }
            Err(error) => {
                kept = false;
                let mut cells = COLUMNS.map(|_| "–".to_owned());
                (cells[0], cells[8]) = (scenario.name.to_owned(), took.to_string());
                cells[9] = "BROKEN".into();
                style.row(cells);
                notes.push(format!("{}: {error}", scenario.name));
            }
        }
    }
    println!();
    notes.iter().for_each(|note| println!("- {note}"));
    kept
}

struct Style {
    markdown: bool,
}

impl Style {
    fn outcome(&self, name: &str, outcome: &Outcome, peak_mb: u64, seconds: u64) {
        let Outcome { report, most, why, .. } = outcome;
        let exactly = *most == 0 || crate::exactly_once();
        let allowed = if exactly { "0".into() } else { format!("{most}, {why}") };
        self.row([
            name.to_owned(),
            report.emitted.to_string(),
            report.delivered.to_string(),
            report.lost.to_string(),
            report.phantom.to_string(),
            format!("{} ({allowed})", report.duplicates),
            report.order_violations.to_string(),
            peak_mb.to_string(),
            seconds.to_string(),
            if outcome.holds() { "kept".into() } else { "BROKEN".into() },
        ]);
    }

    fn row(&self, cells: [String; 10]) {
        let cells: Vec<_> = match self.markdown {
            true => cells.into(),
            false => cells
                .iter()
                .zip(COLUMNS)
                .map(|(cell, (_, width))| format!("{cell:width$}"))
                .collect(),
        };
        match self.markdown {
            true => println!("| {} |", cells.join(" | ")),
            false => println!("{}", cells.join("  ").trim_end()),
        }
    }

    fn rule(&self) {
        if self.markdown {
            println!("|{}", " --- |".repeat(COLUMNS.len()));
        }
    }
}
