//! What is wrong with what is published, and which rows were not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Status;
use crate::Lsn;

/// So many ranges are kept; the log has all of them.
const MOST_RANGES: usize = 100;

/// Something that keeps an outbox table from being relayed as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PublicationProblem {
    /// The table; none where it is about the publication.
    pub table: Option<String>,
    /// It makes the relay unhealthy; else it is worth a look.
    pub is_error: bool,
    /// What was found.
    pub problem: String,
    /// What to run or to set.
    pub remedy: String,
    /// Rows that were committed after this position are not sent; none where all are sent, or
    /// where it was so at the first look.
    pub since_lsn: Option<Lsn>,
    /// When that was, Unix seconds.
    pub since: Option<u64>,
}

/// Rows of a table that were committed while they were not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnpublishedRows {
    /// The table.
    pub table: String,
    /// Why they were not published.
    pub reason: String,
    /// Behind this position; none where it was so at the first look.
    pub from_lsn: Option<Lsn>,
    /// Before this position.
    pub to_lsn: Lsn,
    /// When that began, Unix seconds.
    pub since: Option<u64>,
    /// When it ended, Unix seconds.
    pub until: u64,
    /// The command that sends these rows again.
    pub replay: String,
}

/// What is kept of it.
#[derive(Default)]
pub(super) struct Publishing {
    pub problems: Vec<PublicationProblem>,
    pub unpublished: Vec<UnpublishedRows>,
    /// Errors that there are, by configured table.
    pub errors: BTreeMap<String, u64>,
    /// Ranges that there were, by configured table.
    pub ranges: BTreeMap<String, u64>,
}

impl Status {
    /// These tables are watched.
    pub fn watched(&self, tables: impl Iterator<Item = String>) {
        let mut slow = self.slow();
        for table in tables {
            slow.publishing.errors.insert(table.clone(), 0);
            slow.publishing.ranges.insert(table, 0);
        }
    }

    /// What is wrong now.
    pub fn publication_problems(&self, problems: Vec<PublicationProblem>) {
        let mut slow = self.slow();
        for (table, errors) in &mut slow.publishing.errors {
            let about = |problem: &&PublicationProblem| {
                problem.is_error && problem.table.as_ref().is_none_or(|about| about == table)
            };
            *errors = problems.iter().filter(about).count() as u64;
        }
        slow.publishing.problems = problems;
    }

    /// A range has ended.
    pub fn unpublished(&self, rows: UnpublishedRows) {
        let mut slow = self.slow();
        *slow.publishing.ranges.entry(rows.table.clone()).or_default() += 1;
        let kept = &mut slow.publishing.unpublished;
        if kept.len() >= MOST_RANGES {
            kept.remove(0);
        }
        kept.push(rows);
    }
}
