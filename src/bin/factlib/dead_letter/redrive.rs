//! `factlib dead-letter redrive`: sends dead letters to their source topics again.

use std::{
    collections::HashSet,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use factlib::{
    Error, ErrorKind, Result,
    config::Config,
    dead_letter::{
        DeadLetterTopic, HeldLine, HeldLines, Ledger, Letter, LetterFilter, LetterPosition,
        Redriver, Resent,
    },
};
use slog::Logger;

use super::args::RedriveArgs;
use crate::{
    output,
    text::{plain, time},
};

pub async fn run(
    args: RedriveArgs,
    topic: Option<DeadLetterTopic>,
    lines: HeldLines,
    config: &Config,
    log: &Logger,
) -> Result<()> {
    let mut redrive = Redrive {
        ledger: Ledger::open(config, log).await?,
        redriver: Redriver::builder(config, log).to_topic(args.to_topic.clone()).build()?,
        lines,
        to_topic: args.to_topic,
        again: args.again,
        dry_run: args.dry_run,
        named: !args.all,
        count: Count::new(),
    };
    if args.all {
        let lines = redrive.lines.lines().await?;
        if topic.is_none() && lines.is_empty() {
            return super::say_none(false);
        }
        redrive.all(topic, &lines, args.topic).await?;
    } else {
        let mut positions = args.positions;
        positions.sort_unstable();
        positions.dedup();
        let (held, letters): (Vec<_>, Vec<_>) =
            positions.into_iter().partition(LetterPosition::is_held);
        if !letters.is_empty() {
            let Some(mut topic) = topic else { return Err(no_topic(&config.dead_letter_topic())) };
            for position in letters {
                let letter = redrive.with_progress(topic.letter(position).await)?;
                redrive.letter(&letter).await?;
            }
        }
        redrive.held(held).await?;
    }
    redrive.finish()
}

/// The error for letters named while the dead-letter topic does not exist.
fn no_topic(topic: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("there are no dead letters: topic {topic} does not exist"),
    )
}

fn would_send(letter: &Letter, resent: &[Resent]) -> Result<()> {
    for record in resent {
        let bytes = record.value.as_ref().map_or(0, |value| value.len());
        let (position, topic) = (letter.position, plain(&record.topic));
        output::print(&format!("{position} would go to {topic}, {bytes} bytes\n"))?;
    }
    Ok(())
}

/// Number of events of a line that are sent together: as many may be repeated after a crash.
const LINE_EVENTS: u32 = 500;

struct Redrive {
    ledger: Ledger,
    redriver: Redriver,
    lines: HeldLines,
    /// Topic for all letters, and for the first event of each line.
    to_topic: Option<String>,
    again: bool,
    dry_run: bool,
    /// True if letters were named, in which case each one that is skipped is reported.
    named: bool,
    count: Count,
}

impl Redrive {
    /// Redrives all letters and lines that are meant for this topic, if one is given.
    async fn all(
        &mut self,
        topic: Option<DeadLetterTopic>,
        lines: &[HeldLine],
        source: Option<String>,
    ) -> Result<()> {
        let takes = |line: &HeldLine| source.as_ref().is_none_or(|source| *source == line.topic);
        if let Some(mut topic) = topic {
            let mut filter = LetterFilter::default();
            filter.source_topic.clone_from(&source);
            let mut letters = topic.letters(filter);
            while let Some(letter) = self.with_progress(letters.next().await)? {
                self.letter(&letter).await?;
            }
        }
        for line in lines.iter().filter(|line| takes(line)) {
            self.line((&line.aggregate_type, &line.aggregate_id)).await?;
        }
        Ok(())
    }

    /// Redrives the lines that these events are in. A topic that was given is for the first event of
    /// each.
    async fn held(&mut self, positions: Vec<LetterPosition>) -> Result<()> {
        let mut done = HashSet::new();
        for position in positions {
            match self.with_progress(self.lines.aggregate_of(position).await)? {
                Some(line) if done.contains(&line) => {}
                Some(line) => {
                    self.line((&line.0, &line.1)).await?;
                    done.insert(line);
                }
                // It may have gone with the line of another one.
                None if done.is_empty() => return Err(super::not_held(position)),
                None => {}
            }
        }
        Ok(())
    }

    /// Sends the events of a line in order, until one is refused.
    async fn line(&mut self, line: (&str, &str)) -> Result<()> {
        let mut left = self.with_progress(self.lines.at_most(line).await)?;
        self.redriver.to_topic(self.to_topic.clone());
        let (mut behind, mut most) = (0, 1);
        loop {
            let next = match self.dry_run {
                true => self.lines.next(line, behind, most).await,
                false => self.lines.next_confirmed(line, most).await,
            };
            let (done, ended) = match next {
                Ok(next) if next.is_empty() => return Ok(()),
                Ok(_) if left == 0 => {
                    let (kind, id) = (plain(line.0), plain(line.1));
                    self.report(&format!(
                        "more events of {kind}/{id} are held by now: redrive again"
                    ));
                    return Ok(());
                }
                Ok(next) if self.dry_run => self.would_send_held(&next).await,
                Ok(next) => self.redriver.send_held(&next, &self.ledger, &self.lines).await,
                Err(error) => (0, Err(error)),
            };
            match self.dry_run {
                true => behind += done as u64,
                false => self.count.redriven += done as u64,
            }
            left = left.saturating_sub(done as u64);
            // A topic that was given is for the first event alone.
            self.redriver.to_topic(None);
            most = u32::try_from(left).unwrap_or(LINE_EVENTS).clamp(1, LINE_EVENTS);
            match ended {
                Ok(()) => self.count.show(),
                Err(error)
                    if Redriver::is_final_for_letter(&error)
                        || error.kind() == ErrorKind::RecordBlocked =>
                {
                    self.report(&error.to_string());
                    self.count.failed(error.kind());
                    return Ok(());
                }
                Err(error) => return self.with_progress(Err(error)),
            }
        }
    }

    async fn would_send_held(&self, next: &[Letter]) -> (usize, Result<()>) {
        for (done, letter) in next.iter().enumerate() {
            let resent = self.redriver.resent(letter, &self.ledger).await;
            if let Err(error) = resent.and_then(|resent| would_send(letter, &resent)) {
                return (done, Err(error));
            }
        }
        (next.len(), Ok(()))
    }

    async fn letter(&mut self, letter: &Letter) -> Result<()> {
        if !self.again
            && let Some(at) = self.ledger.redriven_at(letter)
        {
            self.count.skipped += 1;
            if self.named {
                let (position, at) = (letter.position, time(at));
                self.report(&format!("{position} was redriven at {at}; --again sends it again"));
            }
            return Ok(());
        }
        match self.send(letter).await {
            Ok(()) => self.count.redriven += 1,
            Err(error) if Redriver::is_final_for_letter(&error) => {
                self.report(&error.to_string());
                self.count.failed(error.kind());
            }
            Err(error) => return self.with_progress(Err(error)),
        }
        self.count.show();
        Ok(())
    }

    async fn send(&mut self, letter: &Letter) -> Result<()> {
        let resent = self.redriver.resent(letter, &self.ledger).await?;
        if self.dry_run {
            return would_send(letter, &resent);
        }
        self.redriver.send(letter, &resent, &mut self.ledger).await
    }

    /// Adds the number of letters redriven so far to an error that ends the command.
    fn with_progress<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            self.count.clear();
            match self.count.redriven {
                0 => error,
                redriven => {
                    let progress = format!("stopped after {redriven} letters were redriven");
                    Error::new(error.kind(), progress)
                        .caused_by(error)
                        .remedy("run it again: those are not sent twice")
                }
            }
        })
    }

    fn finish(self) -> Result<()> {
        self.count.clear();
        let Count { redriven, skipped, failed, worst, .. } = self.count;
        let would = if self.dry_run { "would be " } else { "" };
        eprintln!("{would}redriven {redriven}, redriven before {skipped}, not redriven {failed}");
        match worst {
            None => Ok(()),
            Some(kind) => Err(Error::new(kind, format!("{failed} dead letters were not redriven"))),
        }
    }

    fn report(&self, text: &str) {
        self.count.clear();
        output::print_error(text);
    }
}

/// Counts of the letters handled so far.
struct Count {
    redriven: u64,
    /// Redriven before, and not sent again.
    skipped: u64,
    failed: u64,
    /// Decides the exit code.
    worst: Option<ErrorKind>,
    started: Instant,
    shown: Instant,
}

impl Count {
    fn new() -> Self {
        let now = Instant::now();
        Count { redriven: 0, skipped: 0, failed: 0, worst: None, started: now, shown: now }
    }

    /// Counts a failed letter. A refusal by Kafka outweighs a letter without a source topic.
    fn failed(&mut self, kind: ErrorKind) {
        self.failed += 1;
        if self.worst.is_none_or(|worst| worst == ErrorKind::Config) {
            self.worst = Some(kind);
        }
    }

    fn show(&mut self) {
        if self.shown.elapsed() >= Duration::from_secs(1) && stderr().is_terminal() {
            self.shown = Instant::now();
            let rate = self.redriven as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            eprint!("\r{} redriven, {rate:.0}/s ", self.redriven);
        }
    }

    fn clear(&self) {
        if self.shown > self.started {
            // Carriage return, erase to the end of the line.
            eprint!("\r\x1b[K");
        }
    }
}
