//! All dead letters sent again, in the background: one run at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::Data;
use serde::Serialize;
use slog::{Logger, info, o, warn};

use super::super::Watched;
use crate::{
    Result,
    clock::now_ms,
    config::Config,
    dead_letter::{DeadLetterTopic, Ledger, Letter, LetterFilter, Redriver},
};

/// Begins a run, and knows how the last one went.
pub(in crate::ops) struct Redrive {
    config: Arc<Config>,
    log: Logger,
    run: Mutex<Run>,
}

/// How it goes, or went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::ops) struct Run {
    /// Without Kafka there is no topic of dead letters.
    possible: bool,
    running: bool,
    /// When it ended, Unix milliseconds; none where none has.
    ended_ms: Option<u64>,
    redriven: u64,
    /// Redriven by an earlier run.
    before: u64,
    failed: u64,
    /// What ended it, or the last letter that was refused.
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

    /// Begins, in the background of this thread.
    ///
    /// # Errors
    /// Why not.
    pub fn begin(&self, watched: Data<Watched>) -> Result<(), &'static str> {
        let mut run = self.lock();
        if !run.possible {
            return Err("there is no Kafka, and so no topic of dead letters");
        }
        if run.running {
            return Err("it is under way already");
        }
        *run = Run { possible: true, running: true, ..Run::default() };
        // Its end is told by a guard, as the server's may be its own.
        let ending = Ending(watched);
        actix_rt::spawn(async move { ending.redrive().everything().await });
        Ok(())
    }

    async fn everything(&self) {
        let ended = self.letters().await;
        if let Err(error) = ended {
            self.lock().error = Some(error.to_string());
        }
        let run = self.run();
        match &run.error {
            None => info!(self.log, "redriven"; "letters" => run.redriven, "before" => run.before),
            Some(error) => warn!(self.log, "not all letters were redriven";
                "letters" => run.redriven, "failed" => run.failed, "error" => error),
        }
    }

    async fn letters(&self) -> Result<()> {
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

/// Says at its drop that the run is over.
struct Ending(Data<Watched>);

impl Ending {
    fn redrive(&self) -> &Redrive {
        self.0.controls.redrive()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut run = self.redrive().lock();
        run.running = false;
        run.ended_ms = Some(now_ms());
    }
}
