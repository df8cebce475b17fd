//! What the command says of itself: version with build facts, completions, the manual page.

use std::{io, path::PathBuf, sync::LazyLock};

use clap::{Args as ClapArgs, Command, CommandFactory};
use clap_complete::Shell;
use factlib::{Error, ErrorKind, Result};

use crate::{args::Args, output};

pub const COMPLETIONS_HELP: &str = "\
Examples:
  factlib completions bash > /etc/bash_completion.d/factlib
  factlib completions zsh > \"${fpath[1]}/_factlib\"
  factlib completions fish > ~/.config/fish/completions/factlib.fish

Exit codes:
  0 printed     2 no such shell";

pub const MAN_HELP: &str = "\
Examples:
  factlib man | man -l -
  factlib man slot > factlib-slot.1
  factlib man --folder /usr/local/share/man/man1       all of them

Exit codes:
  0 written     2 no such command, or a folder that can't be written to";

#[derive(Debug, ClapArgs)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub struct ManArgs {
    /// The page of a subcommand; of factlib itself when not given
    pub command: Option<String>,
    /// Write the pages of all commands into this folder, which has to be there
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub folder: Option<PathBuf>,
}

/// Version, and what it was built of.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let librdkafka = factlib::binary::librdkafka_version();
        format!(
            "{}\ncommit: {}\nlibrdkafka: {librdkafka}\ntarget: {}",
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
    let mut command = Args::command();
    command.build();
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Config, "cannot write the manual page").caused_by(error)
    };
    if let Some(folder) = &args.folder {
        let pages = without_help(Args::command());
        return clap_mangen::generate_to(pages, folder).map_err(failed);
    }
    let page = match &args.command {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("there is no command {name}"))
                .remedy("`factlib --help` lists them")
        })?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(failed)?;
    output::print_bytes(&text).map(|_| ())
}

/// `factlib help` and the like need no page.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}
