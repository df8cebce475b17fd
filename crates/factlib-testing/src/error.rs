//! Errors: what failed, the remedy, and the cause.

use std::{error::Error as StdError, fmt, sync::Arc};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a throwaway server or of a function that asks one.
///
/// [`Display`](fmt::Display) gives one line: what happened, its causes and, where there is one,
/// the remedy.
#[derive(Clone, Debug)]
pub struct Error(Box<ErrorParts>);

/// All that an [`Error`] holds, for its conversion into another error type.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ErrorParts {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The failure and its subject, without remedy and cause.
    pub what: String,
    /// A command or setting that helps.
    pub remedy: Option<String>,
    /// The cause.
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A program, port, folder or setting that a server needs is missing or wrong.
    Setup,
    /// PostgreSQL did not start, or does not answer.
    PostgresUnavailable,
    /// PostgreSQL refused a statement.
    PostgresRefused,
    /// Kafka did not start, does not answer, or lacks the topic or records that were waited for.
    KafkaUnavailable,
    /// The schema registry did not start, or does not answer.
    RegistryUnavailable,
    /// A thread of this crate panicked.
    Panicked,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error(Box::new(ErrorParts { kind, what: what.into(), remedy: None, source: None }))
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The remedy, where there is one.
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// Takes the error apart.
    pub fn into_parts(self) -> ErrorParts {
        *self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        // A parent may have quoted its cause already.
        let mut last = self.0.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        match &self.0.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_why_and_the_remedy() {
        let error = Error::new(ErrorKind::Setup, "cannot start initdb")
            .caused_by(std::io::Error::other("permission denied"))
            .remedy("is the folder executable?");
        assert_eq!(
            error.to_string(),
            "cannot start initdb: permission denied (is the folder executable?)"
        );
    }
}
