//! `factlib dead-letter`: lists, shows, redrives and drops events that could not be delivered.

mod args;
mod drop_held;
mod held_lines;
mod list;
mod redrive;
mod show;

use std::io::{IsTerminal, stdout};

use actix_rt::System;
use factlib::{
    Error, ErrorKind, Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, LetterPosition},
};
use slog::Logger;

pub use self::args::DeadLetterArgs;
use self::args::DeadLetterCommand;
use crate::output;

pub fn run(command: DeadLetterCommand, config: &Config, log: &Logger) -> Result<()> {
    System::new().block_on(async {
        let lines = HeldLines::new(config, log)?;
        let topic = match &command {
            DeadLetterCommand::Drop(_) => None,
            _ => DeadLetterTopic::open(config, log).await?,
        };
        match command {
            DeadLetterCommand::List(args) => list::run(args, topic, &lines, config, log).await,
            DeadLetterCommand::Show(args) => show::run(args, topic, &lines, config, log).await,
            DeadLetterCommand::Redrive(args) => redrive::run(args, topic, lines, config, log).await,
            DeadLetterCommand::Drop(args) => drop_held::run(args, &lines).await,
        }
    })
}

/// The error for an event that is not held.
fn not_held(position: LetterPosition) -> Error {
    let what = format!("there is no held event {position}");
    Error::new(ErrorKind::Config, what)
        .remedy("it was redriven or dropped: factlib dead-letter list shows what is held")
}

/// Says that there is nothing to list: on a terminal as the result, in a pipe apart from it, and
/// not at all beside JSON.
fn say_none(json: bool) -> Result<()> {
    match (json, stdout().is_terminal()) {
        (true, _) => Ok(()),
        (false, true) => output::print("no dead letters\n"),
        (false, false) => {
            eprintln!("no dead letters");
            Ok(())
        }
    }
}
