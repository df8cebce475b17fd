//! The command line of `factlib move`.

use clap::{Args, Subcommand};

pub const HELP: &str = "\
Moves the relay to another PostgreSQL server (a major upgrade, blue/green, another provider)
without a gap and without a repeat. Each step says what to do next, and can be run again. The
settings are those of the relay: while postgres.url names the old server, name the new one with
--to; afterwards, name the old one with --from. Others on this machine see the URL: put the
password into ~/.pgpass, or leave it out if it is that of the configuration. To go back, prepare
a move from the new server to the old one.

Examples:
  # 1. creates a slot on the new server; services must not write there before
  factlib move prepare --to postgresql://relay@new/shop
  # 2. switch the services, then wait until the relay has delivered all of the old server
  factlib move finish --to postgresql://relay@new/shop
  # 3. set postgres.url to the new server, restart the relay, and drop the old slot
  factlib move close --from postgresql://relay@old/shop

Exit codes: those of factlib --help; 2 if there is no such move, or a loss was not accepted.";

pub const PREPARE_HELP: &str = "\
Checks both servers, then creates slot, publication and tables on the new one. It refuses a
new server on which logical replication fills an outbox table, because the relay would send
those events again.

Examples:
  factlib move prepare --to postgresql://relay@new/shop --dry-run
  factlib move prepare --to postgresql://relay@new/shop

Exit codes: those of factlib move --help.";

pub const FINISH_HELP: &str = "\
Waits until no event is committed on the old server for --quiet seconds and no transaction is
open there, marks the end of its WAL, and waits until the relay has delivered everything up to
the mark. An event that is committed later is reported with the sessions that may have written
it, and is waited for. The relay has to run on the old server meanwhile. Ctrl-C ends the
command and changes nothing.

Examples:
  factlib move finish --to postgresql://relay@new/shop
  factlib move finish --to postgresql://relay@new/shop --quiet 60 --timeout 600

Exit codes: those of factlib move --help; 3 after --timeout.";

pub const STATUS_HELP: &str = "\
Examples:
  factlib move status --to postgresql://relay@new/shop
  factlib move status --from postgresql://relay@old/shop --json

Exit codes: those of factlib move --help.";

pub const ABORT_HELP: &str = "\
Drops the slot on the new server, if `prepare` created it. The relay goes on reading the old
server. After `finish`, move back instead.

Examples:
  factlib move abort --to postgresql://relay@new/shop

Exit codes: those of factlib move --help.";

pub const CLOSE_HELP: &str = "\
Drops the slot on the old server. If events were committed there after the move, it drops
nothing and says how many: a relay on the old server delivers them. A later start of a relay on
the old server is refused.

Examples:
  factlib move close --from postgresql://relay@old/shop

Exit codes: those of factlib move --help.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct MoveArgs {
    #[command(subcommand)]
    pub command: MoveCommand,
}

#[derive(Debug, Subcommand)]
pub enum MoveCommand {
    /// Check both servers and create the slot on the new one
    #[command(after_help = PREPARE_HELP)]
    Prepare {
        #[command(flatten)]
        other: OtherServer,
        /// Only check
        #[arg(long)]
        dry_run: bool,
    },
    /// Wait for the writers and the relay, then hand over to the new server
    #[command(after_help = FINISH_HELP)]
    Finish {
        #[command(flatten)]
        other: OtherServer,
        /// Seconds without an event after which the old server counts as no longer written
        #[arg(long, value_name = "SECONDS", default_value = "10")]
        quiet: u64,
        /// Give up after so many seconds
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Show how far the move is and what to do next
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        other: OtherServer,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give up a move that is not finished
    #[command(after_help = ABORT_HELP)]
    Abort {
        #[command(flatten)]
        other: OtherServer,
        /// Accept the loss without asking
        #[arg(long)]
        yes: bool,
    },
    /// Drop the slot on the old server after the move
    #[command(after_help = CLOSE_HELP)]
    Close {
        #[command(flatten)]
        other: OtherServer,
        /// Accept the loss without asking
        #[arg(long)]
        yes: bool,
    },
}

/// The server that postgres.url does not name.
#[derive(Debug, Args)]
pub struct OtherServer {
    /// The new server; postgres.url names the old one
    #[arg(long, value_name = "URL", required_unless_present = "from", conflicts_with = "from")]
    pub to: Option<String>,
    /// The old server; postgres.url names the new one
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Slot on that server; postgres.slot when not given
    #[arg(long, value_name = "NAME")]
    pub other_slot: Option<String>,
}
