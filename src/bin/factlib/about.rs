//! Prints the version with build details, shell completions and manual pages.

use std::{
    io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use clap::{Args as ClapArgs, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use factlib::{Error, ErrorKind, Result};

use crate::{
    args::{self, Args},
    output,
};

pub const COMPLETIONS_HELP: &str = "\
Examples:
  factlib completions bash > /etc/bash_completion.d/factlib
  factlib completions zsh > \"${fpath[1]}/_factlib\"
  factlib completions fish > ~/.config/fish/completions/factlib.fish

Exit codes:
  0 printed     2 unknown shell";

pub const MAN_HELP: &str = "\
Examples:
  factlib man | man -l -
  factlib man slot > factlib-slot.1
  factlib man --folder /usr/local/share/man/man1       every page

Exit codes:
  0 written     2 unknown command, or a folder that can't be written to";

#[derive(Debug, ClapArgs)]
pub struct CompletionsArgs {
    /// Shell to print completions for
    pub shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub struct ManArgs {
    /// Subcommand whose page to print; factlib's own page when not given
    pub command: Option<String>,
    /// Write the pages of all commands into this existing folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub folder: Option<PathBuf>,
}

/// The version, and the commit and target it was built from.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{}\ncommit: {}\ntarget: {}",
            env!("CARGO_PKG_VERSION"),
            option_env!("BUILT_OF_COMMIT").unwrap_or("unknown"),
            env!("BUILT_FOR_TARGET"),
        )
    });
    &VERSION
}

pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "factlib", &mut script);
    output::print_bytes(&script).map(|_| ())
}

pub fn man(args: &ManArgs) -> Result<()> {
    let command = args::with_short_help(without_help_command(Args::command()));
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Config, "cannot write the manual page").caused_by(error)
    };
    if let Some(folder) = &args.folder {
        return write_pages(&command, folder).map_err(failed);
    }
    let command = match &args.command {
        None => &command,
        Some(name) => command.find_subcommand(name).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("there is no command {name}"))
                .remedy("`factlib --help` lists them")
        })?,
    };
    let mut text = Vec::new();
    page(command).render(&mut text).map_err(failed)?;
    output::print_bytes(&text).map(|_| ())
}

/// Leaves out the subcommand `help`, which needs no page.
fn without_help_command(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help_command)
}

/// Writes the pages of a command and of all its subcommands.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands() {
        write_pages(subcommand, folder)?;
    }
    page(command).generate_to(folder).map(|_| ())
}

/// The manual page of a command, with the program's version: a subcommand has none of its own.
fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("factlib ", env!("CARGO_PKG_VERSION")))
}
