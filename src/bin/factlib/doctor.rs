//! `factlib doctor`: the report of [`factlib::doctor`], for eyes or for programs.

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
};

use actix_rt::System;
use clap::Args as ClapArgs;
use factlib::{
    Result,
    config::Config,
    doctor::{self, Check, CheckOutcome, Report},
};
use serde_json::json;
use slog::{Discard, Logger, o};

use crate::output;

pub const HELP: &str = "\
Asks both servers what a start would ask, and changes nothing. Each line is ok, warning or
ERROR; the arrow below has what to run or to set.

Examples:
  factlib doctor
  factlib doctor --config /etc/factlib.toml --brokers kafka-1:9092
  factlib doctor --json | jq '.checks[] | select(.outcome != \"ok\")'

Exit codes:
  0 no error; there may be warnings     1 at least one error     2 configuration";

#[derive(Debug, ClapArgs)]
pub struct DoctorArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &DoctorArgs, config: &Config) -> Result<ExitCode> {
    // What would be logged is in the report.
    let log = Logger::root(Discard, o!());
    let report = System::new().block_on(doctor::examine(config, &log))?;
    let errors = report.count(CheckOutcome::Error);
    output::print(&match args.json {
        true => output::json(&json!({
            "ok": errors == 0,
            "errors": errors,
            "warnings": report.count(CheckOutcome::Warning),
            "checks": &report.checks,
        }))?,
        false => text(&report, stdout().is_terminal()),
    })?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text(report: &Report, colours: bool) -> String {
    let name = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let server = report.checks.iter().map(|check| check.server.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in &report.checks {
        text += &line(check, server, name, colours);
    }
    let (errors, warnings) =
        (report.count(CheckOutcome::Error), report.count(CheckOutcome::Warning));
    let (errors, warnings) = (count(errors, "error"), count(warnings, "warning"));
    text + &format!("\n{} checks: {errors}, {warnings}\n", report.checks.len())
}

/// Formats a number with its noun: `1 error`, `2 errors`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn line(check: &Check, server: usize, name: usize, colours: bool) -> String {
    let (word, colour) = match check.outcome {
        CheckOutcome::Ok => ("ok", "32"),
        CheckOutcome::Warning => ("warning", "33"),
        _ => ("ERROR", "31"),
    };
    let word = format!("{word:7}");
    let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
    // An error of librdkafka may have several lines.
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Check { server: of, name: what, .. } = check;
    let mut line = format!("{word}  {of:server$}  {what:name$}  {}\n", one_line(&check.found));
    if let Some(remedy) = check.remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
        line += &format!("{:9}{:server$}  {:name$}  → {}\n", "", "", "", one_line(remedy));
    }
    line
}
