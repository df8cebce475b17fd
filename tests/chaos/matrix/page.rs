//! The table of all rows: printed as they end, and put into a page.

use std::{fs, path::Path};

use super::row::{Row, SCENARIOS};

/// Markers of the table in docs/postgresql.md.
const MARKERS: [&str; 2] = ["<!-- matrix:begin -->", "<!-- matrix:end -->"];

pub struct Page {
    lines: Vec<String>,
    all_kept: bool,
}

impl Page {
    pub fn new() -> Self {
        let scenarios = SCENARIOS.map(|scenario| scenario.name).join(" | ");
        let mut page = Page { lines: Vec::new(), all_kept: true };
        page.line(format!(
            "| PostgreSQL | reads | delivery | {scenarios} | events | repeated | s |"
        ));
        page.line(format!("|{}", " --- |".repeat(6 + SCENARIOS.len())));
        page
    }

    pub fn add(&mut self, row: Row) {
        let verdicts = SCENARIOS.map(|scenario| {
            let verdict = row.verdicts.iter().find(|(name, _)| name == scenario.name);
            verdict.map_or("did not end", |(_, verdict)| verdict).to_owned()
        });
        self.all_kept &= row.is_kept();
        self.line(format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.release,
            row.setting.source,
            row.setting.delivery,
            verdicts.join(" | "),
            row.events,
            row.repeated,
            row.seconds
        ));
    }

    pub fn all_kept(&self) -> bool {
        self.all_kept
    }

    /// Replaces the table that is between the page's markers.
    pub fn write(&self, page: &Path) {
        let text = fs::read_to_string(page).expect("the page");
        let [begin, end] = MARKERS;
        let (before, rest) = text.split_once(begin).expect("the page has the first marker");
        let (_, after) = rest.split_once(end).expect("the page has the last marker");
        let table = self.lines.join("\n");
        let text = format!("{before}{begin}\n{table}\n{end}{after}");
        fs::write(page, text).expect("the page is written");
    }

    fn line(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }
}
