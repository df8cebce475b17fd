//! The program `factlib`: parses the command line, calls the library and sets the exit code.
//!
//! Every error is one line on stderr that starts with `factlib: `; the exit code gives its kind
//! (`factlib --help` lists them).

mod about;
mod args;
mod ask;
mod audit;
mod config;
mod dead_letter;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod emit;
mod fleet;
mod init;
mod line;
mod log;
mod memory;
mod output;
mod replay;
mod route;
mod run;
mod server_move;
mod setup;
mod signals;
mod slot;
mod status;
mod tail;
mod takeover;
mod text;
mod trace;
#[cfg(feature = "otlp")]
mod traces;

use std::process::ExitCode;

use factlib::Result;
use slog::warn;

use self::args::{Args, Command};

/// musl's own allocator takes a lock at each call.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::keep_freed();
    output::print_panics_on_one_line();
    match run_command(args::parse()) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error.to_string());
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run_command(args: Args) -> Result<ExitCode> {
    // These commands need no configuration, so a mistake in it must not stop them.
    if let Command::Config(config) = &args.command
        && let Some(text) = config::reference(config)
    {
        return success(output::print(&text));
    }
    match &args.command {
        #[cfg(feature = "demo")]
        Command::Demo(demo) => return success(demo::run(demo, &args.settings)),
        Command::Init(init) => return init::run(init, &args.settings),
        Command::Takeover(takeover) => return takeover::run(takeover, &args.settings),
        Command::Completions(shell) => return success(about::completions(shell)),
        Command::Man(page) => return success(about::man(page)),
        _ => {}
    }
    let loader = args.settings.loader()?;
    let mut loaded = loader.load()?;
    if let Some(name) = &args.settings.pipeline {
        loaded = fleet::load(&loader, &loaded.config, name)?;
    }
    let config = loaded.config.clone();
    let runs_fleet = config.fleet.is_set() && args.settings.pipeline.is_none();
    // Dropped last: the guard writes the lines that are still queued.
    if matches!(args.command, Command::Run)
        && config.fleet.group.is_some()
        && !config.fleet.is_set()
    {
        return Err(fleet::nothing_to_share());
    }
    let (log, _flush) = log::logger(&config.log);
    for path in &loaded.exposed {
        warn!(log, "a file with secrets is readable by every user of this machine";
            "path" => %path.display(), "remedy" => "chmod 0600, or 0640 for a group of its own");
    }
    let connects =
        !matches!(args.command, Command::Config(_) | Command::Route(_) | Command::Status(_));
    if connects && loaded.is_default() {
        warn!(log, "nothing is configured: the servers of this machine are tried";
            "remedy" => "write factlib.toml with `factlib init`, or name a file with --config");
    }
    success(match args.command {
        Command::Run if runs_fleet => fleet::run(loader, config, log),
        Command::Run => run::run(config, log),
        // Handled above.
        #[cfg(feature = "demo")]
        Command::Demo(_) => Ok(()),
        Command::Init(_) | Command::Takeover(_) | Command::Completions(_) | Command::Man(_) => {
            Ok(())
        }
        Command::Doctor(args) => return doctor::run(&args, &config),
        Command::Audit(args) => return audit::run(args, &config, &log),
        Command::Trace(args) => return trace::run(args, &config, &log),
        Command::Status(args) => status::run(&args, &config),
        Command::Fleet(args) => return fleet::command(&args, &loader, &config, &log),
        Command::Slot(args) => slot::run(&args, &config, &log),
        Command::Move(args) => server_move::run(&args, &config, &log),
        Command::Tail(args) => tail::run(&args, &config, &log),
        Command::Setup(args) => setup::run(&args, &config, &log),
        Command::Emit(args) => emit::run(args, &config, &log),
        Command::DeadLetter(args) => dead_letter::run(args.command, &config, &log),
        Command::Replay(args) => replay::run(args, &config, &log),
        Command::Route(args) => route::run(args, &loaded),
        Command::Config(args) => output::print(&config::effective(&args, &loaded)?),
    })
}

fn success(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
