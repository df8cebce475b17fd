//! The command `factlib`: arguments in, the library called, an exit code out.
//!
//! Whatever goes wrong is one line on stderr that starts with `factlib: `; the
//! exit code tells its kind (`factlib --help` lists them).

mod args;
mod config;
mod dead_letter;
mod demo;
mod emit;
mod line;
mod log;
mod output;
mod replay;
mod route;
mod run;
mod setup;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use factlib::Result;

use self::args::{Args, Command};

fn main() -> ExitCode {
    output::panics_in_one_line();
    match command(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn command(args: Args) -> Result<()> {
    // What needs no configuration must work while there is a mistake in it.
    if let Command::Config(config) = &args.command
        && let Some(text) = config::reference(config)
    {
        return output::print(&text);
    }
    if let Command::Demo(demo) = &args.command {
        return demo::run(demo, &args.settings);
    }
    let loaded = args.settings.loader()?.load()?;
    let config = loaded.config.clone();
    // Dropped last: it writes what is still queued.
    let (log, _flush) = log::logger(&config.log);
    match args.command {
        Command::Run => run::run(config, log),
        // Done above.
        Command::Demo(_) => Ok(()),
        Command::Setup(args) => setup::run(&args, &config, &log),
        Command::Emit(args) => emit::run(args, &config, &log),
        Command::DeadLetter(args) => dead_letter::run(args.command, &config, &log),
        Command::Replay(args) => replay::run(args, &config, &log),
        Command::Route(args) => route::run(args, &loaded),
        Command::Config(args) => output::print(&config::effective(&args, &loaded)?),
    }
}
