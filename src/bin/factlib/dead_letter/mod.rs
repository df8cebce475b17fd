//! `factlib dead-letter`: lists, shows and redrives events that could not be delivered.

mod args;
mod list;
mod redrive;
mod show;

use std::io::{IsTerminal, stdout};

use actix_rt::System;
use factlib::{Result, config::Config, dead_letter::DeadLetterTopic};
use slog::Logger;

pub use self::args::DeadLetterArgs;
use self::args::DeadLetterCommand;
use crate::output;

pub fn run(command: DeadLetterCommand, config: &Config, log: &Logger) -> Result<()> {
    System::new().block_on(async {
        let Some(topic) = DeadLetterTopic::open(config, log).await? else {
            let topic = config.dead_letter_topic();
            return match &command {
                DeadLetterCommand::Show(args) => Err(show::no_topic(&topic, args)),
                DeadLetterCommand::Redrive(args) if !args.positions.is_empty() => {
                    Err(redrive::no_topic(&topic))
                }
                DeadLetterCommand::List(args) => say_none(args.json),
                DeadLetterCommand::Redrive(_) => say_none(false),
            };
        };
        match command {
            DeadLetterCommand::List(args) => list::run(args, topic, config, log).await,
            DeadLetterCommand::Show(args) => show::run(args, topic, config, log).await,
            DeadLetterCommand::Redrive(args) => redrive::run(args, topic, config, log).await,
        }
    })
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
