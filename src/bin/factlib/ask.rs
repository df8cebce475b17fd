//! Asks the user at the terminal for confirmation.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

/// Prints `consequence` and asks for confirmation; without a terminal the answer is no.
pub fn confirm(consequence: &str) -> bool {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return false;
    }
    let mut answer = String::new();
    let asked = write!(stderr(), "{consequence}\ngo on? [y/N] ").and_then(|()| stderr().flush());
    let answered = asked.and_then(|()| stdin().lock().read_line(&mut answer));
    answered.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
