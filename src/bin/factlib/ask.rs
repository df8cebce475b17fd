//! Asks the user at the terminal: for confirmation, or for a value.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

/// True if somebody can answer: both stdin and stderr are a terminal.
pub fn is_attended() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Prints `consequence` and asks for confirmation; without a terminal the answer is no.
pub fn confirm(consequence: &str) -> bool {
    let answer = is_attended().then(|| answer(&format!("{consequence}\ngo on? [y/N] "))).flatten();
    answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a value; an empty answer is the default. `None` at the end of input.
pub fn value(question: &str, default: &str) -> Option<String> {
    let answer = answer(&format!("{question} [{default}]: "))?;
    Some(if answer.is_empty() { default.to_owned() } else { answer })
}

fn answer(question: &str) -> Option<String> {
    let mut answer = String::new();
    write!(stderr(), "{question}").and_then(|()| stderr().flush()).ok()?;
    let bytes = stdin().lock().read_line(&mut answer).ok()?;
    (bytes > 0).then(|| answer.trim().to_owned())
}
