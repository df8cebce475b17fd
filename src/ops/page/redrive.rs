//! Redrives all dead letters in the background, one run at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::Data;
use serde::Serialize;
use slog::{Logger, info, o, warn};

use super::super::OpsState;
use crate::{
    Result,
    clock::now_ms,
    config::Config,
    dead_letter::{DeadLetterTopic, Ledger, Letter, LetterFilter, Redriver},
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

    /// Starts a run in the background of this thread.
    ///
    /// # Errors
    /// The reason why it can't start.
    pub fn begin(&self, state: Data<OpsState>) -> Result<(), &'static str> {
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
        actix_rt::spawn(async move { guard.redrive().run_all().await });
        Ok(())
    }

    async fn run_all(&self) {
        let ended = self.redrive_letters().await;
        if let Err(error) = ended {
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

    async fn redrive_letters(&self) -> Result<()> {
        let Some(mut topic) = DeadLetterTopic::open(&self.config, &self.log).await? else {
            return Ok(());
        };
        let mut ledger = Ledger::open(&self.config, &self.log).await?;
        let mut redriver = Redriver::builder(&self.config, &self.log).build()?;
        let mut letters = topic.letters(LetterFilter::default());
        while let Some(letter) = letters.next().await? {
            if ledger.redriven_at(&letter).is_some() {
                self.lock().before += 1;
                continue;
            }
            match send(&letter, &mut redriver, &mut ledger).await {
                Ok(()) => self.lock().redriven += 1,
                Err(error) if Redriver::is_final_for_letter(&error) => {
                    let mut run = self.lock();
                    run.failed += 1;
                    run.error = Some(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(letter: &Letter, redriver: &mut Redriver, ledger: &mut Ledger) -> Result<()> {
    let resent = redriver.resent(letter, ledger).await?;
    redriver.send(letter, &resent, ledger).await
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
