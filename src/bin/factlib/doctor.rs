//! `factlib doctor`: prints the report of [`factlib::doctor`] as text or JSON.

use std::{io::stdout, process::ExitCode};

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
Checks in both servers what a start would check, and changes nothing. Each line is ok, warning
or ERROR; the line with the arrow below it says what to run or set.

Examples:
  factlib doctor
  factlib doctor --config /etc/factlib.toml --brokers kafka-1:9092
  factlib doctor --json | jq '.checks[] | select(.outcome != \"ok\")'

Exit codes:
  0 no errors, perhaps warnings     1 at least one error     2 configuration";

#[derive(Debug, ClapArgs)]
pub struct DoctorArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &DoctorArgs, config: &Config) -> Result<ExitCode> {
    let report = examine(config)?;
    let errors = report.count(CheckOutcome::Error);
    output::print(&match args.json {
        true => output::json(&json!({
            "ok": errors == 0,
            "errors": errors,
            "warnings": report.count(CheckOutcome::Warning),
            "checks": &report.checks,
        }))?,
        false => text(&report, output::has_colours(&stdout())),
    })?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Errors of a report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Health {
    NoError,
    /// Only errors that `factlib setup` removes.
    NeedsSetup,
    HasErrors,
}

/// Prints the report as text.
pub fn print_report(config: &Config) -> Result<Health> {
    let report = examine(config)?;
    output::print(&text(&report, output::has_colours(&stdout())))?;
    let errors = report.checks.iter().filter(|check| check.outcome == CheckOutcome::Error);
    let is_of_setup =
        |check: &Check| check.remedy.as_ref().is_some_and(|it| it.contains("`factlib setup"));
    let (of_setup, other): (Vec<_>, Vec<_>) = errors.partition(|check| is_of_setup(check));
    Ok(match (of_setup.is_empty(), other.is_empty()) {
        (true, true) => Health::NoError,
        (false, true) => Health::NeedsSetup,
        (_, false) => Health::HasErrors,
    })
}

fn examine(config: &Config) -> Result<Report> {
    // The report has everything that would be logged.
    let log = Logger::root(Discard, o!());
    System::new().block_on(doctor::examine(config, &log))
}

fn text(report: &Report, colours: bool) -> String {
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let server_width = longest(&mut report.checks.iter().map(|check| check.server.len()));
    let name_width = longest(&mut report.checks.iter().map(|check| check.name.len()));
    let mut text = String::new();
    for check in &report.checks {
        text += &line(check, server_width, name_width, colours);
    }
    let errors = counted(report.count(CheckOutcome::Error), "error");
    let warnings = counted(report.count(CheckOutcome::Warning), "warning");
    text + &format!("\n{} checks: {errors}, {warnings}\n", report.checks.len())
}

/// A number with its noun, in the plural unless it is one.
fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

fn line(check: &Check, server_width: usize, name_width: usize, colours: bool) -> String {
    let (word, colour) = match check.outcome {
        CheckOutcome::Ok => ("ok", "32"),
        CheckOutcome::Warning => ("warning", "33"),
        _ => ("ERROR", "31"),
    };
    let word = format!("{word:7}");
    let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
    // A server's message may have several lines.
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = format!(
        "{word}  {:server_width$}  {:name_width$}  {}\n",
        check.server,
        check.name,
        one_line(&check.found)
    );
    if let Some(remedy) = check.remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
        line +=
            &format!("{:9}{:server_width$}  {:name_width$}  → {}\n", "", "", "", one_line(remedy));
    }
    line
}
