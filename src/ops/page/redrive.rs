//! Redrives dead letters in the background, all or chosen ones, one run at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::Data;
use serde::Serialize;
use slog::{Logger, info, o, warn};

use super::super::OpsState;
use crate::{
    Result,
    clock::now_ms,
    config::Config,
    dead_letter::{DeadLetterTopic, Ledger, Letter, LetterFilter, LetterPosition, Redriver},
};

/// Starts a run, and keeps the result of the last one.
pub(in crate::ops) struct Redrive {
    config: Arc<Config>,
    log: Logger,
    run: Mutex<Run>,
}

/// State or result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::ops) struct Run {
    /// False without Kafka, where there is no dead-letter topic.
    possible: bool,
    running: bool,
    /// Time at which the last run ended, Unix milliseconds; none if none has ended.
    ended_ms: Option<u64>,
    redriven: u64,
    /// Letters that an earlier run had redriven.
    before: u64,
    failed: u64,
    /// The error that ended the run, or that of the last letter that was refused.
    error: Option<String>,
}

impl Redrive {
    pub fn new(config: Arc<Config>, kafka: bool, log: &Logger) -> Self {
        let run = Mutex::new(Run { possible: kafka, ..Run::default() });
        Redrive { config, log: log.new(o!("actor" => "redrive")), run }
    }

    pub fn run(&self) -> Run {
        self.lock().clone()
    }

    /// Starts a run in the background of this thread, for these letters or, if none are chosen, all.
    ///
    /// # Errors
    /// The reason why it can't start.
    pub fn begin(
        &self,
        state: Data<OpsState>,
        chosen: Option<Vec<LetterPosition>>,
    ) -> Result<(), &'static str> {
        let mut run = self.lock();
        if !run.possible {
            return Err("without Kafka there is no dead-letter topic");
        }
        if run.running {
            return Err("a redrive is already running");
        }
        *run = Run { possible: true, running: true, ..Run::default() };
        // A guard notes the end, also if the server's end cuts the run off.
        let guard = RunGuard(state);
        actix_rt::spawn(async move { guard.redrive().run_to_end(chosen).await });
        Ok(())
    }

    async fn run_to_end(&self, chosen: Option<Vec<LetterPosition>>) {
        if let Err(error) = self.redrive_letters(chosen).await {
            self.lock().error = Some(error.to_string());
        }
        let run = self.run();
        match &run.error {
            None => {
                info!(self.log, "dead letters redriven"; "letters" => run.redriven, "before" => run.before)
            }
            Some(error) => warn!(self.log, "not all dead letters were redriven";
                "letters" => run.redriven, "failed" => run.failed, "error" => error),
        }
    }

    async fn redrive_letters(&self, chosen: Option<Vec<LetterPosition>>) -> Result<()> {
        let Some(mut topic) = DeadLetterTopic::open(&self.config, &self.log).await? else {
            return Ok(());
        };
        let mut ledger = Ledger::open(&self.config, &self.log).await?;
        let mut redriver = Redriver::builder(&self.config, &self.log).build()?;
        if let Some(positions) = chosen {
            for position in positions {
                let sent = match topic.letter(position).await {
                    Ok(letter) => self.send(&letter, &mut redriver, &mut ledger).await,
                    Err(error) => Err(error),
                };
                self.note_refusal(sent)?;
            }
            return Ok(());
        }
        let mut letters = topic.letters(LetterFilter::default());
        while let Some(letter) = letters.next().await? {
            let sent = self.send(&letter, &mut redriver, &mut ledger).await;
            self.note_refusal(sent)?;
        }
        Ok(())
    }

    /// Sends a letter unless that was done before.
    async fn send(
        &self,
        letter: &Letter,
        redriver: &mut Redriver,
        ledger: &mut Ledger,
    ) -> Result<()> {
        if ledger.redriven_at(letter).is_some() {
            self.lock().before += 1;
            return Ok(());
        }
        let resent = redriver.resent(letter, ledger).await?;
        redriver.send(letter, &resent, ledger).await?;
        self.lock().redriven += 1;
        Ok(())
    }

    /// Counts a failure that concerns one letter only; passes on any other.
    fn note_refusal(&self, sent: Result<()>) -> Result<()> {
        match sent {
            Err(error) if Redriver::is_final_for_letter(&error) => {
                let mut run = self.lock();
                run.failed += 1;
                run.error = Some(error.to_string());
                Ok(())
            }
            sent => sent,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the run as ended when dropped.
struct RunGuard(Data<OpsState>);

impl RunGuard {
    fn redrive(&self) -> &Redrive {
        self.0.controls.redrive()
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        let mut run = self.redrive().lock();
        run.running = false;
        run.ended_ms = Some(now_ms());
    }
}
