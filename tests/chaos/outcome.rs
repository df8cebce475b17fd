//! What a scenario came to.

use crate::support::Report;

/// What a scenario came to. What it expects of its own it asserts; the promises
/// are judged here.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// The most duplicates that the faults explain, and how.
    pub most: u64,
    pub why: &'static str,
    pub notes: Vec<String>,
}

impl Outcome {
    /// No fault of this scenario explains a duplicate.
    pub fn exact(report: Report) -> Self {
        Outcome { report, most: 0, why: "none", notes: Vec::new() }
    }

    /// The faults explain so many duplicates.
    pub fn duplicates(report: Report, most: u64, why: &'static str) -> Self {
        Outcome { report, most, why, notes: Vec::new() }
    }

    /// Something else that was measured.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Every promise was kept.
    pub fn holds(&self) -> bool {
        let most = if crate::exactly_once() { 0 } else { self.most };
        self.report.is_clean() && self.report.duplicates <= most && self.report.emitted > 0
    }
}
