//! Formats a mapping for people.

use std::fmt::Write;

use factlib::takeover::debezium::{ConfigMapping, Equivalence};

/// Headings in the order of their importance.
const HEADINGS: [(Equivalence, &str); 5] = [
    (Equivalence::Unknown, "unknown: factlib does not know these"),
    (Equivalence::Missing, "missing: factlib has no equivalent"),
    (Equivalence::Differs, "differs: factlib does something else"),
    (Equivalence::Maps, "maps: factlib does the same"),
    (Equivalence::Harmless, "harmless: no equivalent is needed"),
];

/// Lists the settings by the way they are treated, then the configuration file.
pub fn mapping(mapping: &ConfigMapping) -> String {
    let mut text = String::new();
    for (equivalence, heading) in HEADINGS {
        let mut settings = mapping.treated(equivalence).peekable();
        if settings.peek().is_none() {
            continue;
        }
        // Writing to a String never fails.
        let _ = writeln!(text, "{heading}");
        for of in settings {
            let line = of.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let _ = writeln!(text, "  {line}{} = {}\n      {}", of.key, of.value, of.note);
        }
        text.push('\n');
    }
    text + &mapping.toml
}
