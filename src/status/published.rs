//! Keeps the problems of the publication, and the ranges of rows that were not published.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Status;
use crate::Lsn;

/// Maximum number of ranges that are kept; the log has all of them.
const MAX_RANGES: usize = 100;

/// Something that keeps an outbox table from being relayed as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PublicationProblem {
    /// The table; none if the problem is about the publication.
    pub table: Option<String>,
    /// True if it makes the relay unhealthy; else it is a warning.
    pub is_error: bool,
    /// The problem, in a sentence.
    pub problem: String,
    /// The statement to run, or the setting to change.
    pub remedy: String,
    /// Rows that were committed after this position are not sent; none if all are sent, or if the
    /// problem was there at the first look.
    pub since_lsn: Option<Lsn>,
    /// Time of `since_lsn`, Unix seconds.
    pub since: Option<u64>,
}

/// Rows of a table that were committed while they were not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnpublishedRows {
    /// The table.
    pub table: String,
    /// The reason why they were not published.
    pub reason: String,
    /// The range begins after this position; none if it began before the first look.
    pub from_lsn: Option<Lsn>,
    /// The range ends before this position.
    pub to_lsn: Lsn,
    /// Begin of the range, Unix seconds.
    pub since: Option<u64>,
    /// End of the range, Unix seconds.
    pub until: u64,
    /// The command that sends these rows again.
    pub replay: String,
}

/// The part of the status that is about the publication.
#[derive(Default)]
pub(super) struct PublicationState {
    pub problems: Vec<PublicationProblem>,
    pub unpublished: Vec<UnpublishedRows>,
    /// Number of present errors, by configured table.
    pub errors: BTreeMap<String, u64>,
    /// Number of ranges so far, by configured table.
    pub ranges: BTreeMap<String, u64>,
}

impl Status {
    /// Sets the tables that are watched. One that is gone is counted no more.
    pub fn watch_tables(&self, tables: impl Iterator<Item = String>) {
        let mut locked = self.locked();
        let PublicationState { errors, ranges, .. } = &mut locked.publishing;
        let (old_errors, old_ranges) = (std::mem::take(errors), std::mem::take(ranges));
        for table in tables {
            let of = |old: &BTreeMap<String, u64>| old.get(&table).copied().unwrap_or_default();
            errors.insert(table.clone(), of(&old_errors));
            ranges.insert(table.clone(), of(&old_ranges));
        }
    }

    /// Replaces the present problems.
    pub fn publication_problems(&self, problems: Vec<PublicationProblem>) {
        let mut locked = self.locked();
        for (table, errors) in &mut locked.publishing.errors {
            let about = |problem: &&PublicationProblem| {
                problem.is_error && problem.table.as_ref().is_none_or(|about| about == table)
            };
            *errors = problems.iter().filter(about).count() as u64;
        }
        locked.publishing.problems = problems;
    }

    /// Adds a range that has ended.
    pub fn unpublished(&self, rows: UnpublishedRows) {
        let mut locked = self.locked();
        *locked.publishing.ranges.entry(rows.table.clone()).or_default() += 1;
        let kept = &mut locked.publishing.unpublished;
        if kept.len() >= MAX_RANGES {
            kept.remove(0);
        }
        kept.push(rows);
    }
}
