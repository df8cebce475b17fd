//! `factlib replay`: sends the facts of a table again.

mod args;
mod summary;

use actix_rt::System;
use factlib::{
    Error, ErrorKind, Result,
    config::Config,
    replay::{Archive, ArchivedRow, Replayer},
};
use slog::Logger;
use tokio::time::timeout;
use uuid::Uuid;

pub use self::args::{HELP, ReplayArgs, RowArgs};
use self::summary::Summary;
use crate::{
    output,
    signals::{Signals, stopped_by},
};

pub fn run(args: ReplayArgs, config: &Config, log: &Logger) -> Result<()> {
    System::new().block_on(async {
        let mut signals = Signals::new()?;
        let selection = args.selection();
        let archive = tokio::select! {
            signal = signals.next() => return Err(stopped_by(signal)),
            archive = Archive::open(config, &args.rows.table, &selection, log) => archive?,
        };
        // Identifies the run; a UUID of version 7 sorts by time.
        let run = Uuid::now_v7().to_string();
        let mut replay = Replay {
            summary: Summary::new(archive.count()),
            replayer: Replayer::new(config, run, args.to_topic, log)?,
            dry_run: args.dry_run,
        };
        let outcome = tokio::select! {
            outcome = replay.run(archive) => outcome,
            signal = signals.next() => {
                let limit = config.pipeline.drain_timeout;
                tokio::select! {
                    finished = timeout(limit, replay.replayer.finish()) => {
                        finished.unwrap_or(Ok(())).and(Err(stopped_by(signal)))
                    }
                    _ = signals.next() => Err(stopped_by(signal)),
                }
            }
        };
        replay.ended(outcome, args.json)
    })
}

struct Replay {
    replayer: Replayer,
    summary: Summary,
    dry_run: bool,
}

impl Replay {
    async fn run(&mut self, mut archive: Archive) -> Result<()> {
        while let Some(row) = archive.next().await? {
            self.row(&row).await?;
            let done = if self.dry_run { self.summary.rows() } else { self.replayer.replayed() };
            self.summary.show(done);
        }
        self.replayer.finish().await
    }

    async fn row(&mut self, row: &ArchivedRow) -> Result<()> {
        let event = row.event.as_ref().map_err(Clone::clone);
        match event.and_then(|event| self.replayer.records(event)) {
            Ok(records) => {
                for (topic, _) in &records {
                    self.summary.count(topic, &row.created_at);
                }
                if !self.dry_run {
                    self.replayer.send(row, &records).await?;
                }
            }
            Err(error) => {
                self.summary.clear();
                output::print_error(&format!("row {} is not a valid event: {error}", row.id));
                self.summary.count_invalid();
            }
        }
        Ok(())
    }

    fn ended(self, outcome: Result<()>, json: bool) -> Result<()> {
        let Replay { replayer, summary, dry_run } = self;
        summary.clear();
        let sent = (!dry_run).then(|| replayer.replayed());
        if json {
            let error = outcome.as_ref().err().map(ToString::to_string);
            output::print(&summary.json(replayer.run(), sent, replayer.confirmed(), error))?;
        } else {
            output::print(&summary.lines(dry_run))?;
            let invalid = summary.invalid();
            match sent {
                Some(sent) => eprintln!(
                    "replayed {sent} of {}, invalid {invalid}, factlib_replay {}",
                    summary.selected(),
                    replayer.run()
                ),
                None => eprintln!("would replay {}, invalid {invalid}", summary.rows()),
            }
        }
        match (outcome, summary.invalid()) {
            (Ok(()), 0) => Ok(()),
            (Ok(()), rows) => Err(Error::new(
                ErrorKind::RecordRefused,
                format!("{rows} rows are not valid events"),
            )),
            (Err(error), _) => {
                let progress = format!("stopped after {} rows were replayed", replayer.replayed());
                Err(match replayer.confirmed() {
                    None => error,
                    Some(id) => Error::new(error.kind(), progress)
                        .caused_by(error)
                        .remedy(format!("continue with --after {id} and the same other options")),
                })
            }
        }
    }
}
