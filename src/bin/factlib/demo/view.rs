//! Shows the demo's progress: a table that is redrawn in place, or one line per second.

use std::{
    collections::VecDeque,
    fmt::Write,
    io::{IsTerminal, stdout},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use factlib::{PipelineState, PipelineStatus, Result};
use terminal_size::{Height, Width, terminal_size_of};

use super::ledger::{LastRecord, Ledger, Tally};
use crate::{
    output,
    text::{cut, plain},
};

/// Printed after a demo that went well.
pub const NEXT_STEPS: &str = "
Next
  install       cargo install --path .
  your servers  factlib init
  your service  docs/emitting.md
  everything    docs/README.md
";

/// Time over which rates are averaged.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Switches line wrapping off and on; a wrapped line would shift the table.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
/// Erases the screen, from its first line on.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Erases the rest of the line, and of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Writes to stdout, which is a terminal or a file.
pub struct View {
    in_place: bool,
    started: Instant,
    /// Lines above the table.
    header: String,
    /// Columns and lines of the terminal at the previous table.
    size: Option<(usize, usize)>,
    /// Lines of the previous table, to move up before the next one.
    height: usize,
    samples: VecDeque<Sample>,
}

/// State of what the user controls.
pub struct Controls {
    /// `None` if the broker is not the demo's own.
    pub broker_is_up: Option<bool>,
    pub has_keys: bool,
    /// Time left; `None` without a time limit.
    pub ends_in: Option<Duration>,
}

/// Committed and delivered facts at one moment.
#[derive(Clone, Copy)]
struct Sample(Instant, u64, u64);

impl View {
    /// Prints the header, which stays above the table.
    pub fn new(header: String) -> Result<Self> {
        output::print(&header)?;
        Ok(View {
            in_place: stdout().is_terminal(),
            started: Instant::now(),
            header,
            size: terminal_size(),
            height: 0,
            samples: VecDeque::new(),
        })
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
        output::print(&self.redraw(&frame.table(), terminal_size()))
    }

    /// Draws the table over the previous one. After a change of the terminal's size, which has
    /// wrapped and moved the previous one, everything is drawn again.
    fn redraw(&mut self, table: &str, size: Option<(usize, usize)>) -> String {
        let (columns, lines) = size.unwrap_or((80, 24));
        let mut text = String::new();
        if self.height > 0 {
            // Writing to a String never fails.
            let _ = match self.size == size && self.height < lines {
                true => write!(text, "\x1b[{}A", self.height),
                false => write!(text, "{CLEAR}{}", self.header),
            };
        }
        text += NO_WRAP;
        for line in table.lines() {
            let _ = writeln!(text, "\r{}{CLEAR_LINE}", cut(line, columns));
        }
        (self.size, self.height) = (size, table.lines().count());
        text + CLEAR_BELOW + WRAP
    }

    /// Prints the final counts.
    pub fn summary(&self, ledger: &Ledger) -> Result<()> {
        let tally = &ledger.tally;
        let seconds = self.started.elapsed().as_secs_f64();
        let event = ledger.last_record.as_ref().map_or("none".into(), event);
        output::print(&format!(
            "\n\
             emitted          {:>9}   committed, in {seconds:.1} s\n\
             delivered        {:>9}\n\
             rolled back      {:>9}   {} delivered\n\
             duplicates       {:>9}\n\
             lost             {:>9}\n\
             order violations {:>9}\n\
             altered          {:>9}\n\
             latency   {}\n\
             last event  {event}\n",
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

/// Columns and lines of the terminal, if stdout is one.
fn terminal_size() -> Option<(usize, usize)> {
    let (Width(columns), Height(lines)) = terminal_size_of(stdout())?;
    Some((columns.into(), lines.into()))
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
             in flight {}  latency {}  {}\n",
            self.state(),
            ledger.outstanding(),
            self.lag(),
            bytes(self.status.in_flight_bytes as u64),
            latency(&ledger.tally),
            self.topics(),
        )
    }

    /// The table; its usual lines fit 50 columns.
    fn table(&self) -> String {
        let Frame { seconds, rate_in, rate_out, status, ledger, controls } = self;
        let tally = &ledger.tally;
        let left = controls.ends_in.map(|left| format!(", {} s left", left.as_secs()));
        let mut table = format!(
            "{:9} {seconds} s{}\n\
             emitted   {:>9} {rate_in:>6}/s, {} rolled back\n\
             delivered {:>9} {rate_out:>6}/s, {} duplicates\n\
             lag       {:>9} facts, {} of WAL\n\
             in flight {:>9} of {}\n\
             latency   {}\n\
             topics    {}\n\
             event     {}\n\
             wrong     {}\n",
            self.state(),
            left.unwrap_or_default(),
            tally.committed,
            tally.rolled_back,
            tally.delivered,
            tally.duplicates,
            ledger.outstanding(),
            self.lag(),
            bytes(status.in_flight_bytes as u64),
            bytes(status.window_bytes as u64),
            latency(tally),
            self.topics(),
            ledger.last_record.as_ref().map_or("none yet".into(), event),
            wrong(tally),
        );
        match controls.broker_is_up {
            Some(true) => table += "broker    up\n",
            Some(false) => table += "broker    down: committed facts wait\n",
            None => {}
        }
        table + &controls.keys()
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

    /// Events by topic, without the topics' prefix.
    fn topics(&self) -> String {
        let topics = self.status.topics.iter();
        let counted = topics.map(|(name, topic)| {
            let name = name.rsplit('.').next().unwrap_or(name);
            format!("{name} {}", topic.events)
        });
        counted.collect::<Vec<_>>().join("  ")
    }
}

impl Controls {
    /// The line that lists the keys.
    fn keys(&self) -> String {
        if !self.has_keys {
            return String::new();
        }
        let mut keys = Vec::new();
        match self.broker_is_up {
            Some(true) => keys.push("b: stop the broker"),
            Some(false) => keys.push("b: start the broker"),
            None => {}
        }
        if self.ends_in.is_some() {
            keys.push("space: stay");
        }
        keys.push("q: end");
        format!("keys      {}\n", keys.join("  "))
    }
}

/// A record on one line; the payload comes last, where a narrow terminal cuts.
fn event(LastRecord { topic, key, event_type, payload }: &LastRecord) -> String {
    plain(&format!("{topic}  key {key}  {event_type}  {payload}"))
}

fn wrong(tally: &Tally) -> String {
    let counts = [
        (tally.out_of_order, "out of order"),
        (tally.ghosts, "delivered though rolled back"),
        (tally.altered, "altered"),
    ];
    let wrong = counts.iter().filter(|(count, _)| *count > 0);
    let wrong: Vec<_> = wrong.map(|(count, defect)| format!("{count} {defect}")).collect();
    if wrong.is_empty() { "nothing".into() } else { wrong.join(", ") }
}

fn latency(tally: &Tally) -> String {
    let ms = |micros: u64| micros as f64 / 1000.0;
    let latency = &tally.latency;
    format!(
        "p50 {:.1}  p99 {:.1}  max {:.1} ms",
        ms(latency.value_at_quantile(0.5)),
        ms(latency.value_at_quantile(0.99)),
        ms(latency.max())
    )
}

fn bytes(count: u64) -> String {
    ByteSize(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            in_place: true,
            started: Instant::now(),
            header: "header\n".into(),
            size: Some((80, 24)),
            height: 0,
            samples: VecDeque::new(),
        }
    }

    #[test]
    fn a_table_is_drawn_over_the_previous_one() {
        let mut view = view();
        assert!(!view.redraw("a\nb\n", Some((80, 24))).contains("\x1b[2A"));
        assert!(view.redraw("a\nb\n", Some((80, 24))).starts_with("\x1b[2A"));
    }

    #[test]
    fn nothing_of_the_old_table_stays_in_a_terminal_of_another_size() {
        let mut view = view();
        view.redraw("a\nb\n", Some((80, 24)));
        let drawn = view.redraw(&"x".repeat(80), Some((50, 24)));
        assert!(drawn.starts_with(&format!("{CLEAR}header\n")), "{drawn:?}");
        let line = drawn.lines().find(|line| line.contains("xx")).unwrap_or_default();
        assert!(line.contains(&format!("{}…", "x".repeat(49))), "{line}");
    }

    #[test]
    fn the_next_steps_fit_narrow_terminals() {
        for line in NEXT_STEPS.lines() {
            assert!(line.chars().count() <= 50, "{line}");
        }
    }
}
