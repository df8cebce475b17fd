//! The command line of `factlib init`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub const HELP: &str = "\
On a terminal, asks for what no flag gives. A password in the connection string is not written:
it belongs into FACTLIB_POSTGRES__PASSWORD, or a file that postgres.password_file names.

Examples:
  factlib init --postgres postgresql://relay@db/shop --kafka kafka:9092

Exit codes: 0 written, and doctor found no error; 1 written, but doctor found an error;
2 not written.";

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Source of events: logical messages, or rows of an outbox table
    #[arg(long, value_enum)]
    pub source: Option<SourceKind>,
    /// Outbox table; implies --source table [default: public.outbox_events]
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Delivery guarantee
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// File to write
    #[arg(long, value_name = "PATH", default_value = "factlib.toml")]
    pub output: PathBuf,
    /// Ask nothing: take the defaults, and run setup if doctor finds no error
    #[arg(long)]
    pub yes: bool,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    Messages,
    Table,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    AtLeastOnce,
    ExactlyOnce,
}

impl Mode {
    /// Value of `delivery.mode`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::AtLeastOnce => "at-least-once",
            Mode::ExactlyOnce => "exactly-once",
        }
    }
}
