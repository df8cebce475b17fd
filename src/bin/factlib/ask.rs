//! Questions to whoever sits at the terminal.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

/// Says `what` would happen and asks whether to go on; not where nobody can answer.
pub fn goes_on(what: &str) -> bool {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return false;
    }
    let mut answer = String::new();
    let asked = write!(stderr(), "{what}\ngo on? [y/N] ").and_then(|()| stderr().flush());
    let answered = asked.and_then(|()| stdin().lock().read_line(&mut answer));
    answered.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
