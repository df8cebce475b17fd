//! Checks every condition of a start for `factlib doctor`, and changes nothing on the servers.
//!
//! Each check has a name, an outcome, a finding, and a remedy to type. The checks are those of the
//! start itself (`startup`, `postgres::server`, `kafka::admin`), and some that a start would only
//! discover by failing.

mod kafka;
mod postgres;

use std::sync::Arc;

use serde::Serialize;
use slog::Logger;

#[cfg(feature = "schema-registry")]
use crate::schema_registry::Registry;
use crate::{Error, Result, config::Config};

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckOutcome {
    /// Nothing to do.
    Ok,
    /// The relay starts, but something may need attention.
    Warning,
    /// The relay does not start, or stops before long.
    Error,
}

/// One check and its finding.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Server that was checked: `postgresql`, `kafka` or `schema registry`.
    pub server: &'static str,
    /// Name of the check.
    pub name: &'static str,
    /// Outcome.
    pub outcome: CheckOutcome,
    /// Finding.
    pub found: String,
    /// Command to run or setting to change; none if there is nothing to do.
    pub remedy: Option<String>,
}

/// All checks, in the order of a start.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Counts the checks with this outcome.
    pub fn count(&self, outcome: CheckOutcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

/// Checks PostgreSQL, Kafka and the schema registry of this configuration, and changes nothing.
///
/// # Errors
/// Only an invalid configuration; errors of the servers are in the report.
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

/// Makes the checks of PostgreSQL alone.
pub(crate) async fn examine_postgres(config: &Config, log: &Logger) -> Result<Vec<Check>> {
    config.validate()?;
    postgres::examine(&Arc::new(config.clone()), log).await
}

/// Checks that the registry answers, if one is configured.
#[cfg_attr(
    not(feature = "schema-registry"),
    allow(unused_mut, unused_variables, reason = "without the feature nothing is asked")
)]
async fn registry(config: &Config) -> Vec<Check> {
    let mut checks = Checks::new("schema registry");
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
    fn new(server: &'static str) -> Self {
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

    /// Adds an error of the start, with its own remedy or else this one.
    fn failed(&mut self, name: &'static str, error: &Error, remedy: &str) {
        self.error(name, error.without_remedy(), error.advice().unwrap_or(remedy));
    }

    /// Adds a result; `Ok` holds the finding.
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
