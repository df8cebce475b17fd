//! Shows the demo's progress: a table that is redrawn in place, or one line per second.

use std::{
    collections::VecDeque,
    fmt::Write,
    io::{IsTerminal, stdout},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use factlib::{PipelineState, PipelineStatus, Result};

use super::ledger::{Ledger, Tally};
use crate::output;

/// Time over which rates are averaged.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Cuts lines at the terminal's edge; wrapped lines would shift the table.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Writes to stdout, which is a terminal or a file.
pub struct View {
    in_place: bool,
    started: Instant,
    /// Lines of the previous table, to move up before the next one.
    height: usize,
    samples: VecDeque<Sample>,
}

/// State of what the user controls.
pub struct Controls {
    pub broker_is_up: bool,
    pub has_keys: bool,
    /// Time left; `None` without a time limit.
    pub ends_in: Option<Duration>,
}

/// Committed and delivered facts at one moment.
#[derive(Clone, Copy)]
struct Sample(Instant, u64, u64);

impl View {
    pub fn new() -> Self {
        let in_place = stdout().is_terminal();
        View { in_place, started: Instant::now(), height: 0, samples: VecDeque::new() }
    }

    /// Interval between two updates.
    pub fn refresh(&self) -> Duration {
        Duration::from_millis(if self.in_place { 250 } else { 1000 })
    }

    pub fn show(
        &mut self,
        status: &PipelineStatus,
        ledger: &Ledger,
        controls: &Controls,
    ) -> Result<()> {
        let (rate_in, rate_out) = self.rates(&ledger.tally);
        let seconds = self.started.elapsed().as_secs();
        let frame = Frame { seconds, rate_in, rate_out, status, ledger, controls };
        if !self.in_place {
            return output::print(&frame.line());
        }
        let table = frame.table();
        let mut text = String::from(NO_WRAP);
        if self.height > 0 {
            // Writing to a String never fails.
            let _ = write!(text, "\x1b[{}A", self.height);
        }
        for line in table.lines() {
            let _ = writeln!(text, "\r{line}\x1b[K");
        }
        self.height = table.lines().count();
        output::print(&(text + WRAP))
    }

    /// Prints the final counts.
    pub fn summary(&self, ledger: &Ledger) -> Result<()> {
        let tally = &ledger.tally;
        let seconds = self.started.elapsed().as_secs_f64();
        output::print(&format!(
            "\n\
             emitted          {:>9}   committed facts, in {seconds:.1} s\n\
             delivered        {:>9}\n\
             rolled back      {:>9}   of which {} were delivered\n\
             duplicates       {:>9}\n\
             lost             {:>9}\n\
             order violations {:>9}\n\
             altered          {:>9}\n\
             latency          {}   emit to consumer\n",
            tally.committed,
            tally.delivered,
            tally.rolled_back,
            tally.ghosts,
            tally.duplicates,
            ledger.outstanding(),
            tally.out_of_order,
            tally.altered,
            latency(tally),
        ))
    }

    /// Facts per second, emitted and delivered.
    fn rates(&mut self, tally: &Tally) -> (u64, u64) {
        let now = Sample(Instant::now(), tally.committed, tally.delivered);
        self.samples.push_back(now);
        while self.samples.get(1).is_some_and(|Sample(at, ..)| at.elapsed() >= RATE_WINDOW) {
            self.samples.pop_front();
        }
        let Sample(since, committed, delivered) = self.samples.front().copied().unwrap_or(now);
        let seconds = now.0.duration_since(since).as_secs_f64().max(0.001);
        let rate = |count: u64| (count as f64 / seconds).round() as u64;
        (rate(now.1 - committed), rate(now.2 - delivered))
    }
}

/// The data of one update.
struct Frame<'a> {
    seconds: u64,
    rate_in: u64,
    rate_out: u64,
    status: &'a PipelineStatus,
    ledger: &'a Ledger,
    controls: &'a Controls,
}

impl Frame<'_> {
    fn line(&self) -> String {
        let Frame { seconds, rate_in, rate_out, ledger, .. } = self;
        format!(
            "{seconds:>3} s {}  in {rate_in}/s  out {rate_out}/s  lag {} facts, {} WAL  \
             in flight {}  latency {} {}\n",
            self.state(),
            ledger.outstanding(),
            self.lag(),
            bytes(self.status.in_flight_bytes as u64),
            latency(&ledger.tally),
            self.topics(),
        )
    }

    fn table(&self) -> String {
        let Frame { seconds, rate_in, rate_out, status, ledger, controls } = self;
        let tally = &ledger.tally;
        format!(
            "{} for {seconds} s\n\
             emitted   {:>9}  {rate_in:>7}/s   and {} rolled back\n\
             delivered {:>9}  {rate_out:>7}/s\n\
             lag       {:>9} facts, {} WAL\n\
             in flight {:>9} of {}\n\
             latency   {}\n\
             topics   {}\n\
             broker    {}\n\
             wrong     {} out of order, {} delivered though rolled back, {} altered; {} duplicates\n{}",
            self.state(),
            tally.committed,
            tally.rolled_back,
            tally.delivered,
            ledger.outstanding(),
            self.lag(),
            bytes(status.in_flight_bytes as u64),
            bytes(status.window_bytes as u64),
            latency(tally),
            self.topics(),
            if controls.broker_is_up {
                "up"
            } else {
                "down: committed facts wait and arrive in order"
            },
            tally.out_of_order,
            tally.ghosts,
            tally.altered,
            tally.duplicates,
            controls.keys(),
        )
    }

    fn state(&self) -> String {
        match &self.status.state {
            PipelineState::StandingBy { error } => format!("standing by ({error})"),
            PipelineState::Retrying { error } => format!("retrying ({error})"),
            state => format!("{state:?}").to_lowercase(),
        }
    }

    fn lag(&self) -> String {
        let (received, saved) = (self.status.received_lsn, self.status.saved_lsn);
        bytes(received.as_u64().saturating_sub(saved.as_u64()))
    }

    fn topics(&self) -> String {
        let topics = self.status.topics.iter();
        topics.map(|(name, topic)| format!(" {name} {}", topic.events)).collect()
    }
}

impl Controls {
    /// The line that lists the keys.
    fn keys(&self) -> String {
        if !self.has_keys {
            return String::new();
        }
        let broker = if self.broker_is_up { "stop" } else { "start" };
        let end = match self.ends_in {
            Some(left) => format!("space: stay ({} s left)   ", left.as_secs()),
            None => String::new(),
        };
        format!("keys      b: {broker} the broker   {end}q: end\n")
    }
}

fn latency(tally: &Tally) -> String {
    let ms = |micros: u64| micros as f64 / 1000.0;
    let latency = &tally.latency;
    format!(
        "p50 {:.1} ms  p99 {:.1} ms  max {:.1} ms",
        ms(latency.value_at_quantile(0.5)),
        ms(latency.value_at_quantile(0.99)),
        ms(latency.max())
    )
}

fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}
