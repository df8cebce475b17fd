//! What the command says of itself: version with build facts, completions, the manual page.

use std::sync::LazyLock;

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;
use factlib::{Error, ErrorKind, Result};

use crate::{args::Args, output};

pub const COMPLETIONS_HELP: &str = "\
Examples:
  factlib completions bash > /etc/bash_completion.d/factlib
  factlib completions zsh > \"${fpath[1]}/_factlib\"
  factlib completions fish > ~/.config/fish/completions/factlib.fish";

pub const MAN_HELP: &str = "\
Examples:
  factlib man | man -l -
  factlib man slot > factlib-slot.1";

#[derive(Debug, ClapArgs)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

#[derive(Debug, ClapArgs)]
pub struct ManArgs {
    /// The page of a subcommand; of factlib itself when not given
    pub command: Option<String>,
}

/// Version, and what it was built of.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let (_, librdkafka) = factlib::librdkafka_version();
        format!(
            "{}\ncommit: {}\nlibrdkafka: {librdkafka}\ntarget: {}",
            env!("CARGO_PKG_VERSION"),
            option_env!("FACTLIB_COMMIT").unwrap_or("unknown"),
            env!("FACTLIB_TARGET"),
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
    let page = match &args.command {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("there is no command {name}"))
                .remedy("`factlib --help` lists them")
        })?,
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|error| {
        Error::new(ErrorKind::Config, "cannot write the manual page").caused_by(error)
    })?;
    output::print_bytes(&text).map(|_| ())
}
