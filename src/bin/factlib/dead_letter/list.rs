//! `factlib dead-letter list`: prints lines of held events and dead letters, one per line.

use std::{
    io::{IsTerminal, stdout},
    time::{SystemTime, UNIX_EPOCH},
};

use factlib::{
    Result,
    config::Config,
    dead_letter::{DeadLetterTopic, HeldLines, Ledger, Letter, LetterFilter},
};
use serde_json::json;
use slog::Logger;

use super::{args::ListArgs, held_lines};
use crate::{
    output,
    text::{cut, parked, plain, shown, text_or_base64, time},
};

/// Minimum widths of the columns on a terminal; the error takes the rest of the line.
const WIDTHS: [usize; 8] = [8, 24, 16, 36, 12, 16, 8, 20];
const HEADINGS: [&str; 9] =
    ["POSITION", "PARKED", "TOPIC", "EVENT ID", "KEY", "TYPE", "BYTES", "REDRIVEN", "ERROR"];
/// Placeholder of an empty column.
const NONE: &str = "-";
/// Minimum number of characters shown of an error.
const ERROR_MIN: usize = 40;

pub async fn run(
    args: ListArgs,
    topic: Option<DeadLetterTopic>,
    lines: &HeldLines,
    config: &Config,
    log: &Logger,
) -> Result<()> {
    let limit = args.limit.unwrap_or(u64::MAX);
    let format = Format::new(args.json);
    let mut listed = 0;
    let held = lines.lines().await?;
    for line in held.iter().filter(|line| held_lines::takes(&args, line)) {
        if listed == limit {
            return Ok(());
        }
        if listed == 0 && format.terminal_width.is_some() {
            let headings = held_lines::HEADINGS.map(str::to_owned);
            output::print(&format.row(headings, held_lines::WIDTHS))?;
        }
        let text = match args.json {
            true => held_lines::json(line),
            false => format.row(held_lines::columns(line), held_lines::WIDTHS),
        };
        if !output::print_bytes(text.as_bytes())? {
            return Ok(());
        }
        listed += 1;
    }
    if let Some(mut topic) = topic {
        let ledger = Ledger::open(config, log).await?;
        let mut filter = LetterFilter::default();
        (filter.source_topic, filter.since_ms) = (args.topic, args.since.map(ago_ms));
        let mut letters = topic.letters(filter);
        let mut is_first = true;
        while listed < limit
            && let Some(letter) = letters.next().await?
        {
            if std::mem::take(&mut is_first) && format.terminal_width.is_some() {
                output::print(&format.row(HEADINGS.map(str::to_owned), WIDTHS))?;
            }
            let line = Line::new(&letter, &ledger).await?;
            let text = match args.json {
                true => line.json(&letter),
                false => format.row(line.columns(&letter), WIDTHS),
            };
            if !output::print_bytes(text.as_bytes())? {
                return Ok(());
            }
            listed += 1;
        }
    }
    if listed == 0 { super::say_none(args.json) } else { Ok(()) }
}

fn ago_ms(ago: std::time::Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_millis().try_into().unwrap_or(i64::MAX)
}

/// Columns of a letter that its record does not have.
struct Line {
    /// Size of the event; `None` if neither the letter nor the table has it.
    bytes: Option<usize>,
    redriven_at: Option<String>,
}

impl Line {
    async fn new(letter: &Letter, ledger: &Ledger) -> Result<Self> {
        let bytes = match letter.is_kept_in_table() {
            true => ledger.kept(letter).await?.map(|kept| kept.bytes),
            false => Some(letter.value.as_ref().map_or(0, |value| value.len())),
        };
        Ok(Line { bytes, redriven_at: ledger.redriven_at(letter).map(time) })
    }

    fn columns(&self, letter: &Letter) -> [String; 9] {
        [
            letter.position.to_string(),
            parked(letter),
            plain(letter.source_topic().unwrap_or_default()),
            plain(letter.event_id()),
            shown(letter.key.as_deref().unwrap_or_default()),
            plain(letter.event_type()),
            self.bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
            self.redriven_at.clone().unwrap_or_default(),
            plain(letter.error().unwrap_or_default()),
        ]
    }

    fn json(&self, letter: &Letter) -> String {
        let key = letter.key.as_deref().map(text_or_base64);
        let (key, is_text) = key.map_or((None, true), |(key, is_text)| (Some(key), is_text));
        let line = json!({
            "position": letter.position.to_string(),
            "parked_at": parked(letter),
            "source_topic": letter.source_topic(),
            "event_id": letter.event_id(),
            (if is_text { "key" } else { "key_base64" }): key,
            "event_type": letter.event_type(),
            "lsn": letter.lsn(),
            "bytes": self.bytes,
            "in_table": letter.is_kept_in_table(),
            "redriven_at": self.redriven_at,
            "error": letter.error(),
        });
        format!("{line}\n")
    }
}

/// The layout of a line.
struct Format {
    terminal_width: Option<usize>,
}

impl Format {
    fn new(json: bool) -> Self {
        let terminal = !json && stdout().is_terminal();
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        Format { terminal_width: terminal.then_some(width) }
    }

    /// One line; the last column takes what the others leave.
    fn row<const N: usize, const M: usize>(
        &self,
        columns: [String; N],
        widths: [usize; M],
    ) -> String {
        let columns = columns.map(|column| if column.is_empty() { NONE.into() } else { column });
        let Some(width) = self.terminal_width else { return columns.join("\t") + "\n" };
        let Some((error, head)) = columns.split_last() else { return String::new() };
        let mut row = String::new();
        for (column, least) in head.iter().zip(widths) {
            row += &format!("{column:least$}  ");
        }
        let left = width.saturating_sub(row.chars().count()).max(ERROR_MIN);
        row + &cut(error, left) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_fits_of_the_error_and_a_file_all_of_it() {
        let columns = |error: &str| {
            let mut columns = HEADINGS.map(|_| String::new());
            columns[8] = error.to_owned();
            columns
        };
        let error = "x".repeat(300);
        let terminal = Format { terminal_width: Some(220) }.row(columns(&error), WIDTHS);
        assert_eq!(terminal.trim_end().chars().count(), 220);
        assert!(terminal.ends_with("…\n"));
        let file = Format { terminal_width: None }.row(columns(&error), WIDTHS);
        assert_eq!(file, format!("{}{error}\n", "-\t".repeat(8)));
    }
}
