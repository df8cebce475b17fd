//! The table in docs/monitoring.md: what each cell may say, and what it means.

use std::{collections::BTreeSet, fs, path::Path};

/// The head of the table, by which it is found.
const HEAD: &str =
    "| state of the world | `/healthz` | `/readyz` | state | waits | reason | lag | alerts |";

/// A state of the world, and what is answered in it.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// The code; none where nobody answers.
    pub healthz: Option<u16>,
    pub readyz: Option<u16>,
    /// The pipeline's state; empty where nobody answers.
    pub state: String,
    /// All that waits, and what for: an actor's name or `topic`, then `blocked_by`.
    pub waits: BTreeSet<(String, String)>,
    /// Parts of the reason.
    pub reason: Vec<String>,
    pub lag: Option<Lag>,
    /// Without their common beginning.
    pub alerts: BTreeSet<String>,
}

/// What is said of the lag in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// Nothing is on its way.
    Zero,
    /// Facts are on their way, for a moment each.
    Small,
    /// As time passes.
    Grows,
    /// In no row.
    Shrinks,
    /// Null: nothing is read.
    Unknown,
}

/// All rows.
pub fn table() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring.md");
    let text = fs::read_to_string(path).expect("docs/monitoring.md");
    let lines = text.lines().skip_while(|line| *line != HEAD).skip(2);
    let rows: Vec<Row> = lines.take_while(|line| line.starts_with('|')).map(row).collect();
    assert!(!rows.is_empty(), "docs/monitoring.md has no table with the head {HEAD}");
    rows
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, healthz, readyz, state, waits, reason, lag, alerts] = cells[..] else {
        panic!("not eight cells: {line}")
    };
    let code = |cell: &str| match cell {
        "–" => None,
        cell => Some(cell.parse().unwrap_or_else(|_| panic!("no code: {cell:?} in {line}"))),
    };
    let waits = list(waits).map(|wait| {
        let (who, what) = wait.split_once(": ").unwrap_or_else(|| panic!("{wait:?} in {line}"));
        (who.to_owned(), what.to_owned())
    });
    Row {
        name: name.into(),
        healthz: code(healthz),
        readyz: code(readyz),
        state: if state == "–" { String::new() } else { state.into() },
        waits: waits.collect(),
        reason: reason.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        lag: match lag {
            "–" => None,
            "0" => Some(Lag::Zero),
            "small" => Some(Lag::Small),
            "grows" => Some(Lag::Grows),
            "unknown" => Some(Lag::Unknown),
            _ => panic!("no lag: {lag:?} in {line}"),
        },
        alerts: list(alerts).map(str::to_owned).collect(),
    }
}

/// What is in a cell, by commas.
fn list(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(", ").filter(|entry| !matches!(*entry, "–" | ""))
}
