//! `factlib takeover debezium --shadow`: compares factlib's records with those of Debezium.

use std::{fmt::Write, process::ExitCode};

use actix_rt::System;
use factlib::{
    Result,
    config::Config,
    takeover::debezium::{KnownDifference, Shadow, ShadowOptions, ShadowReport},
};

use super::args::DebeziumArgs;
use crate::{log, output, signals::Signals};

/// Differences of a kind that are printed.
const SHOWN: usize = 10;

pub fn run(args: &DebeziumArgs, config: &Config) -> Result<ExitCode> {
    let (log, _flush) = log::logger(&config.log);
    let mut options = ShadowOptions::default();
    (options.duration, options.rows) = (args.duration, args.rows);
    let report = System::new().block_on(async {
        let work = async { Shadow::open(config, &log).await?.run(&options).await };
        Signals::new()?.or_stop(work).await
    })?;
    output::print(&if args.json { output::json(&report)? } else { text(&report) })?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn text(report: &ShadowReport) -> String {
    let mut text = String::new();
    for ((kind, known), differences) in report.grouped() {
        let known = known.map(|known: KnownDifference| format!(", known: {}", known.name()));
        // Writing to a String never fails.
        let _ =
            writeln!(text, "{}{}: {}", kind.name(), known.unwrap_or_default(), differences.len());
        for of in differences.iter().take(SHOWN) {
            let _ = writeln!(text, "  {} {}: {}", of.event_id, of.topic, of.detail);
        }
        if differences.len() > SHOWN {
            let _ = writeln!(text, "  and {} more", differences.len() - SHOWN);
        }
    }
    let (rows, records, equal) = (report.rows, report.records, report.equal);
    let _ = writeln!(text, "{rows} rows, {records} records, {equal} equal in every byte");
    if rows == 0 {
        text += "no row was committed: nothing was compared\n";
    }
    text
}
