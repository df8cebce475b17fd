//! What `factlib doctor` finds: every condition of a start, asked for and not made.
//!
//! One check is one line: its name, whether it is well, what was found, and the remedy as it
//! would be typed. The checks are those of the start itself (`startup`, `postgres::slot`,
//! `kafka::admin`); what is added here is what a start finds out only by failing.
//!
//! It changes nothing on either server: what is missing is only asked about.

mod kafka;
mod postgres;

use std::sync::Arc;

use serde::Serialize;
use slog::Logger;

#[cfg(feature = "schema-registry")]
use crate::schema_registry::Registry;
use crate::{Error, Result, config::Config};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckOutcome {
    /// As it should be.
    Ok,
    /// The relay starts; something about it is worth a look.
    Warning,
    /// The relay does not start, or stops before long.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Whose it is: `postgresql`, `kafka` or `schema registry`.
    pub server: &'static str,
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: CheckOutcome,
    /// What was found.
    pub found: String,
    /// What to run or to set; none where nothing is to be done.
    pub remedy: Option<String>,
}

/// All that was looked at, in the order of a start.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One a line.
    pub checks: Vec<Check>,
}

impl Report {
    /// How many checks came out so.
    pub fn count(&self, outcome: CheckOutcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

/// Looks at PostgreSQL, Kafka and the schema registry as this configuration has them; changes
/// nothing.
///
/// # Errors
/// Only a configuration that makes no sense; what the servers refuse is in the report.
pub async fn examine(config: &Config, log: &Logger) -> Result<Report> {
    config.validate()?;
    let config = Arc::new(config.clone());
    let (postgres, kafka, registry) = tokio::join!(
        postgres::examine(&config, log),
        kafka::examine(&config, log),
        registry(&config),
    );
    Ok(Report { checks: [postgres?, kafka?, registry].concat() })
}

/// Whether the registry answers, where there is one.
#[cfg_attr(
    not(feature = "schema-registry"),
    allow(unused_mut, unused_variables, reason = "without the feature nothing is asked")
)]
async fn registry(config: &Config) -> Vec<Check> {
    let mut checks = Checks::of("schema registry");
    #[cfg(feature = "schema-registry")]
    if !config.schema_registry.url.is_empty() {
        let urls = config.schema_registry.url.join(", ");
        let subjects = async { Registry::new(config)?.subjects().await };
        let found = subjects.await.map(|subjects| format!("{subjects} at {urls}"));
        checks.result("subjects", found, "start it, or correct schema_registry.url");
    }
    checks.checks
}

/// The checks of one server.
struct Checks {
    server: &'static str,
    checks: Vec<Check>,
}

impl Checks {
    fn of(server: &'static str) -> Self {
        Checks { server, checks: Vec::new() }
    }

    fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(name, CheckOutcome::Ok, found.into(), None);
    }

    fn warning(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, CheckOutcome::Warning, found.into(), Some(remedy.into()));
    }

    fn error(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, CheckOutcome::Error, found.into(), Some(remedy.into()));
    }

    /// An error of the start, with its own remedy or else this one.
    fn failed(&mut self, name: &'static str, error: &Error, remedy: &str) {
        self.error(name, error.without_remedy(), error.advice().unwrap_or(remedy));
    }

    /// `Ok` says what is well.
    fn result(&mut self, name: &'static str, result: Result<String>, remedy: &str) {
        match result {
            Ok(found) => self.ok(name, found),
            Err(error) => self.failed(name, &error, remedy),
        }
    }

    fn add(
        &mut self,
        name: &'static str,
        outcome: CheckOutcome,
        found: String,
        remedy: Option<String>,
    ) {
        self.checks.push(Check { server: self.server, name, outcome, found, remedy });
    }
}
