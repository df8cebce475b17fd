//! The configuration that a mapping writes, section by section.

use std::fmt::Write;

/// A configuration file of factlib in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub postgres: Vec<String>,
    pub kafka: Vec<String>,
    /// Each with its lines.
    pub routes: Vec<Vec<String>>,
    /// Tables, which all have the settings of `outbox`.
    pub tables: Vec<String>,
    pub outbox: Vec<String>,
    pub connect: Vec<String>,
}

/// Makes the line of a setting. Texts, numbers and lists are written alike in JSON and TOML.
pub(super) fn setting(name: &str, value: impl Into<serde_json::Value>) -> String {
    format!("{name} = {}", value.into())
}

impl Draft {
    /// The text of the file; `source` is the file that it was made of.
    pub fn text(&self, source: &str) -> String {
        let mut text = format!(
            "# Made by `factlib takeover debezium` of {source}. All settings: factlib config --example.\n"
        );
        let mut section = |heading: &str, lines: &[String]| {
            if !lines.is_empty() {
                // Writing to a String never fails.
                let _ = write!(text, "\n{heading}\n{}\n", lines.join("\n"));
            }
        };
        section("[postgres]", &self.postgres);
        section("[kafka]", &self.kafka);
        for route in &self.routes {
            section("[[route]]", route);
        }
        for table in &self.tables {
            let head = [setting("table", table.as_str()), setting("preset", "debezium")];
            section("[[outbox]]", &[&head, &self.outbox[..]].concat());
            section("[outbox.connect]", &self.connect);
        }
        text
    }
}
