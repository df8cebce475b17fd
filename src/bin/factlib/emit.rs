//! `factlib emit`: writes facts from flags or standard input into the database.

use std::{
    io::{BufRead, IsTerminal, Read, stderr, stdin},
    path::Path,
    time::{Duration, Instant},
};

use actix_rt::System;
use bytes::Bytes;
use factlib::{
    Error, ErrorKind, Result,
    config::Config,
    emit::{Emitter, Fact},
    postgres,
};
use slog::Logger;
use tokio::sync::mpsc;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use crate::{
    args::{EmitArgs, FactArgs},
    line, output,
};

pub fn run(args: EmitArgs, config: &Config, log: &Logger) -> Result<()> {
    // No size limit here: the relay parks what is too large for Kafka, which a user may want to try.
    let emitter = Emitter::new(config.postgres.message_prefix.clone()).any_size();
    System::new().block_on(async {
        if args.stdin {
            let mut client = postgres::connect(&config.postgres, log).await?;
            return BulkEmit::new(args.batch as usize).emit(&mut client, &emitter).await;
        }
        let fact = fact(args.fact)?;
        let mut client = postgres::connect(&config.postgres, log).await?;
        let transaction = begin(&mut client).await?;
        let id: Uuid = emitter.emit(&transaction, &fact).await?;
        commit(transaction, "the fact may be committed or not").await?;
        output::print(&format!("{id}\n"))
    })
}

fn fact(args: FactArgs) -> Result<Fact> {
    let payload = match (args.payload, args.payload_file) {
        (Some(text), _) => text.into(),
        (None, Some(path)) => read_payload(&path)?,
        (None, None) => Bytes::new(),
    };
    let [aggregate_type, aggregate_id, event_type] =
        [args.aggregate_type, args.aggregate_id, args.event_type].map(Option::unwrap_or_default);
    let mut fact = Fact::new(aggregate_type, aggregate_id, event_type).payload(payload);
    for (key, value) in args.metadata {
        fact = fact.metadata(key, value);
    }
    Ok(match (args.trace_id, args.span_id) {
        (Some(trace), Some(span)) => fact.trace(trace, span),
        _ => fact,
    })
}

fn read_payload(path: &Path) -> Result<Bytes> {
    let read = if path == Path::new("-") {
        let mut payload = Vec::new();
        stdin().read_to_end(&mut payload).map(|_| payload)
    } else {
        std::fs::read(path)
    };
    read.map(Bytes::from).map_err(|error| {
        let failure = format!("cannot read the payload from {}", path.display());
        Error::new(ErrorKind::InvalidFact, failure).caused_by(error)
    })
}

/// Emits the facts of standard input, `batch` of them per transaction.
struct BulkEmit {
    batch: usize,
    started: Instant,
    shown: Instant,
    facts: u64,
    transactions: u64,
    /// Number of the last committed line.
    committed: usize,
}

impl BulkEmit {
    fn new(batch: usize) -> Self {
        let now = Instant::now();
        BulkEmit { batch, started: now, shown: now, facts: 0, transactions: 0, committed: 0 }
    }

    async fn emit(mut self, client: &mut Client, emitter: &Emitter) -> Result<()> {
        let mut lines = lines(self.batch);
        loop {
            let (numbers, facts) = self.next_batch(&mut lines).await?;
            let Some(last) = numbers.last() else { break };
            let transaction = begin(client).await.map_err(|error| self.at(&numbers, error))?;
            if let Err(error) = emitter.emit_all(&transaction, &facts).await {
                // The transaction is rolled back when it is dropped.
                drop(transaction);
                return Err(self.locate(client, emitter, &numbers, &facts, error.into()).await);
            }
            let uncertainty = "its facts may be committed or not";
            commit(transaction, uncertainty).await.map_err(|error| self.at(&numbers, error))?;
            self.committed = *last;
            self.facts += facts.len() as u64;
            self.transactions += 1;
            self.show_progress();
        }
        self.clear_progress();
        eprintln!(
            "emitted {} facts in {} transactions, {}/s",
            self.facts,
            self.transactions,
            self.rate()
        );
        Ok(())
    }

    /// Reads the next facts and the numbers of their lines; empty at the end of the input.
    async fn next_batch(&self, lines: &mut Lines) -> Result<(Vec<usize>, Vec<Fact>)> {
        let (mut numbers, mut facts) = (Vec::new(), Vec::new());
        while facts.len() < self.batch
            && let Some((number, line)) = lines.recv().await
        {
            let line = line.map_err(|error| {
                let failure = "cannot read standard input";
                self.at(&[number], Error::new(ErrorKind::InvalidFact, failure).caused_by(error))
            })?;
            if !line.trim().is_empty() {
                facts.push(line::fact(&line).map_err(|error| self.at(&[number], error))?);
                numbers.push(number);
            }
        }
        Ok((numbers, facts))
    }

    /// Narrows the error of a refused batch down to the line whose fact caused it, if one did.
    async fn locate(
        &self,
        client: &mut Client,
        emitter: &Emitter,
        numbers: &[usize],
        facts: &[Fact],
        error: Error,
    ) -> Error {
        if error.kind() == ErrorKind::InvalidFact
            && let Ok(transaction) = begin(client).await
        {
            for (number, fact) in numbers.iter().zip(facts) {
                if let Err(error) = emitter.emit(&transaction, fact).await {
                    return self.at(&[*number], error.into());
                }
            }
        }
        self.at(numbers, error)
    }

    /// Adds the line numbers to an error, and the last line that is committed.
    fn at(&self, numbers: &[usize], error: Error) -> Error {
        self.clear_progress();
        let lines = match numbers {
            [first, .., last] => format!("lines {first} to {last}"),
            [line] => format!("line {line}"),
            [] => "the end".into(),
        };
        let committed = match self.committed {
            0 => "committed: nothing".into(),
            last => format!("committed: all up to line {last}"),
        };
        Error::new(error.kind(), format!("cannot emit {lines} of standard input"))
            .caused_by(error)
            .remedy(committed)
    }

    fn rate(&self) -> u64 {
        (self.facts as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn show_progress(&mut self) {
        if self.shown.elapsed() >= Duration::from_secs(1) && stderr().is_terminal() {
            self.shown = Instant::now();
            eprint!("\r{} facts, {}/s ", self.facts, self.rate());
        }
    }

    fn clear_progress(&self) {
        if self.shown > self.started {
            // Carriage return, erase to the end of the line.
            eprint!("\r\x1b[K");
        }
    }
}

/// Lines of standard input with their numbers, from 1.
type Lines = mpsc::Receiver<(usize, std::io::Result<String>)>;

/// Reads standard input on its own thread, at most `ahead` lines ahead, so that the connection
/// stays served.
fn lines(ahead: usize) -> Lines {
    let (sender, lines) = mpsc::channel(ahead);
    std::thread::spawn(move || {
        for (index, line) in stdin().lock().lines().enumerate() {
            let failed = line.is_err();
            if sender.blocking_send((index + 1, line)).is_err() || failed {
                break;
            }
        }
    });
    lines
}

async fn begin(client: &mut Client) -> Result<Transaction<'_>> {
    client.transaction().await.map_err(|error| unavailable("cannot begin a transaction", error))
}

async fn commit(transaction: Transaction<'_>, uncertainty: &str) -> Result<()> {
    let failure = format!("cannot commit, {uncertainty}");
    transaction.commit().await.map_err(|error| unavailable(&failure, error))
}

fn unavailable(failure: &str, error: tokio_postgres::Error) -> Error {
    Error::new(ErrorKind::PostgresUnavailable, failure).caused_by(error)
}
