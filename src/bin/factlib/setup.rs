//! `factlib setup`: what `run` needs in the database, ahead of time.

use actix_rt::System;
use factlib::{Result, config::Config};
use slog::Logger;

use crate::{args::SetupArgs, output};

pub fn run(args: &SetupArgs, config: &Config, log: &Logger) -> Result<()> {
    if args.dry_run {
        return output::print(&ended(factlib::setup_sql(config)));
    }
    let report = System::new().block_on(factlib::setup(config, args.accept_position, log))?;
    output::print(&ended(report.to_string()))
}

/// The text with one line end behind it.
fn ended(text: String) -> String {
    text.trim_end().to_owned() + "\n"
}
