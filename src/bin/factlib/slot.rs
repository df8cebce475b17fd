//! `factlib slot`: shows, creates, drops or advances the replication slot.

use actix_rt::System;
use bytesize::ByteSize;
use clap::{Args as ClapArgs, Subcommand};
use factlib::{
    Error, ErrorKind, Lsn, Result,
    config::Config,
    slot::{self, SlotReport},
};
use slog::Logger;

use crate::{ask, output};

const HELP: &str = "\
Examples:
  factlib slot show
  factlib slot show --json
  factlib slot create                only the slot; `factlib setup` creates everything a start needs
  factlib slot advance               to the checkpoint, which loses nothing
  factlib slot drop                  says what would be lost and asks; --yes skips the question

Exit codes: those of factlib --help; 2 if the loss was not accepted, 3 if the slot is in use,
does not exist, or exists already.";

const SHOW_HELP: &str = "\
Examples:
  factlib slot show
  factlib slot show --slot orders --json

Exit codes: those of factlib slot --help.";

const CREATE_HELP: &str = "\
The slot keeps everything that commits after its creation, which waits for running write
transactions to end. If the checkpoint of an earlier slot is left, the line `no start` says what
has to be accepted first.

Examples:
  factlib slot create
  factlib slot create --slot orders --postgres-url postgresql://postgres@db/shop

Exit codes: those of factlib slot --help.";

const DROP_HELP: &str = "\
The server deletes the slot and releases the WAL it keeps for it. The checkpoint stays: a start
is refused until `factlib setup --accept-position` accepts that facts may be missing. On a
terminal the command asks first; elsewhere it does nothing without --yes.

Examples:
  factlib slot drop                  says what would be lost, and asks
  factlib slot drop --yes

Exit codes: those of factlib slot --help.";

const ADVANCE_HELP: &str = "\
Advancing up to the checkpoint loses nothing and needs no --yes. Beyond it, a start is refused
until `factlib setup --accept-position` accepts that facts may be missing.

Examples:
  factlib slot advance
  factlib slot advance --to 16/B374D848 --yes

Exit codes: those of factlib slot --help.";

#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub struct SlotArgs {
    #[command(subcommand)]
    pub command: SlotCommand,
}

#[derive(Debug, Subcommand)]
pub enum SlotCommand {
    /// Show the WAL that the slot keeps, its reader and its positions
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create only the slot
    #[command(after_help = CREATE_HELP)]
    Create,
    /// Drop the slot and release the WAL that it keeps
    #[command(after_help = DROP_HELP)]
    Drop {
        /// Accept the loss without asking
        #[arg(long)]
        yes: bool,
    },
    /// Advance the slot, so that the server releases the WAL before that position
    #[command(after_help = ADVANCE_HELP)]
    Advance {
        /// New position of the slot; the checkpoint when not given
        #[arg(long, value_name = "LSN")]
        to: Option<Lsn>,
        /// Accept the loss without asking
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(args: &SlotArgs, config: &Config, log: &Logger) -> Result<()> {
    let name = &config.postgres.slot;
    let text = System::new().block_on(async {
        match &args.command {
            SlotCommand::Show { json } => {
                let Some(report) = slot::show(config, log).await? else {
                    let what = format!("slot {name} does not exist");
                    let remedy = "run `factlib setup`, or correct postgres.slot";
                    return Err(Error::new(ErrorKind::PostgresRefused, what).remedy(remedy));
                };
                if *json { output::json(&report) } else { Ok(text(&report)) }
            }
            SlotCommand::Create => Ok(text(&slot::create(config, log).await?)),
            SlotCommand::Drop { yes } => {
                let dropped = slot::drop(config, |loss| *yes || ask::confirm(loss), log).await?;
                let released = ByteSize::b(dropped.retained_bytes);
                Ok(format!("slot {name}: dropped, {released} of WAL released\n"))
            }
            SlotCommand::Advance { to, yes } => {
                let accept = |loss: &str| *yes || ask::confirm(loss);
                let position = slot::advance(config, *to, accept, log).await?;
                Ok(format!("slot {name}: now at {position}\n"))
            }
        }
    })?;
    output::print(&text)
}

fn text(report: &SlotReport) -> String {
    let none = || "none".to_owned();
    let state = match (&report.lost, report.active_pid) {
        (Some(reason), _) => format!("lost ({reason})"),
        (None, Some(pid)) => format!("active, pid {pid}"),
        (None, None) => "inactive".into(),
    };
    let checkpoint = report.checkpoint_lsn.map_or_else(none, |saved| {
        let ahead = ByteSize::b(saved.distance_from(report.confirmed_lsn));
        format!("{saved}, {ahead} ahead of what is confirmed")
    });
    let wal_left = report
        .safe_wal_bytes
        .map(|bytes| ByteSize::b(u64::try_from(bytes).unwrap_or_default()).to_string());
    let idle = report
        .idle_timeout_seconds
        .map(|limit| format!("{limit} s without a reader (idle_replication_slot_timeout)"));
    let limits: Vec<_> = [wal_left, idle].into_iter().flatten().collect();
    let until_lost = if limits.is_empty() { "no limit".into() } else { limits.join(", or ") };
    let status = if report.wal_status.is_empty() { "unknown" } else { &report.wal_status };
    let reads = format!(
        "{} in database {}",
        report.plugin.clone().unwrap_or_else(none),
        report.database.clone().unwrap_or_else(none)
    );
    let mut lines = vec![
        ("slot", report.slot.clone()),
        ("state", state),
        ("reads", reads),
        ("WAL status", status.to_owned()),
        ("retained", ByteSize::b(report.retained_bytes).to_string()),
        ("until lost", until_lost),
        ("confirmed", report.confirmed_lsn.to_string()),
        ("checkpoint", checkpoint),
        ("WAL ends at", report.wal_end_lsn.to_string()),
    ];
    lines.extend(report.failover.map(|keeps| {
        let text = if keeps { "standbys keep a copy" } else { "no copy on standbys" };
        ("failover", text.to_owned())
    }));
    lines.extend(report.refusal.clone().map(|reason| ("no start", reason)));
    output::table(&lines)
}
