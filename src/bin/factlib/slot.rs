//! `factlib slot`: what the server keeps for us, and the ways to make it forget.

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
  factlib slot create                alone; `factlib setup` makes all that a start needs
  factlib slot advance               to the checkpoint, which loses nothing
  factlib slot drop                  says what would be lost and asks; --yes does it

Exit codes: those of factlib --help; 2 where what would be lost was not accepted, 3 where the
slot is in use, does not exist, or is there already.";

const SHOW_HELP: &str = "\
Examples:
  factlib slot show
  factlib slot show --slot orders --json

Exit codes: those of factlib slot --help.";

const CREATE_HELP: &str = "\
What commits from then on is kept for it. It waits for transactions that write now. Where a
checkpoint of an earlier slot is left, `no start` says what has to be accepted.

Examples:
  factlib slot create
  factlib slot create --slot orders --postgres-url postgresql://postgres@db/shop

Exit codes: those of factlib slot --help.";

const DROP_HELP: &str = "\
The server forgets the slot and what it keeps for it. The checkpoint stays: a start is
refused until `factlib setup --accept-position` accepts that facts may be missing. On a
terminal it asks; elsewhere it does nothing without --yes.

Examples:
  factlib slot drop                  says what would be lost, and asks
  factlib slot drop --yes

Exit codes: those of factlib slot --help.";

const ADVANCE_HELP: &str = "\
Up to the checkpoint nothing can be lost, and --yes is not needed. Beyond it, a start is
refused until `factlib setup --accept-position` accepts that facts may be missing.

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
    /// What the slot keeps, who reads it, and where it stands
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create the slot alone
    #[command(after_help = CREATE_HELP)]
    Create,
    /// Drop the slot, and with it all that it keeps
    #[command(after_help = DROP_HELP)]
    Drop {
        /// What would be lost is accepted
        #[arg(long)]
        yes: bool,
    },
    /// Have the server forget what is before a position
    #[command(after_help = ADVANCE_HELP)]
    Advance {
        /// The position; that of the checkpoint when not given
        #[arg(long, value_name = "LSN")]
        to: Option<Lsn>,
        /// What would be lost is accepted
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
                let was = slot::drop(config, |lost| *yes || ask::goes_on(lost), log).await?;
                let kept = ByteSize::b(was.retained_bytes);
                Ok(format!("slot {name}: dropped, and the {kept} of WAL that it kept\n"))
            }
            SlotCommand::Advance { to, yes } => {
                let accept = |lost: &str| *yes || ask::goes_on(lost);
                let at = slot::advance(config, *to, accept, log).await?;
                Ok(format!("slot {name}: stands at {at}\n"))
            }
        }
    })?;
    output::print(&text)
}

fn text(report: &SlotReport) -> String {
    let none = || "none".to_owned();
    let state = match (&report.lost, report.active_pid) {
        (Some(why), _) => format!("lost ({why})"),
        (None, Some(pid)) => format!("active, pid {pid}"),
        (None, None) => "inactive".into(),
    };
    let checkpoint = report.checkpoint_lsn.map_or_else(none, |saved| {
        let ahead = ByteSize::b(saved.distance_from(report.confirmed_lsn));
        format!("{saved}, {ahead} ahead of what is confirmed")
    });
    let left = report.safe_wal_bytes.map_or("no limit".into(), |bytes| {
        ByteSize::b(u64::try_from(bytes).unwrap_or_default()).to_string()
    });
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
        ("until lost", left),
        ("confirmed", report.confirmed_lsn.to_string()),
        ("checkpoint", checkpoint),
        ("WAL ends at", report.wal_end_lsn.to_string()),
    ];
    lines.extend(report.refusal.clone().map(|why| ("no start", why)));
    output::table(&lines)
}
