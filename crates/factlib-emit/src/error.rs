//! Errors: a kind, what failed, the cause and the remedy.

use std::{error::Error as StdError, fmt, sync::Arc};

/// The result of emitting.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a fact was not emitted.
///
/// [`Display`](fmt::Display) gives one line: what failed, its causes and, where there is one, the
/// remedy.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

/// A cause, shared by the clones of an error.
type Source = Arc<dyn StdError + Send + Sync>;

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    remedy: Option<String>,
    source: Option<Source>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name of a table or a connection string is malformed.
    Config,
    /// The fact is invalid: correct it. Nothing was sent.
    InvalidFact,
    /// PostgreSQL can't be reached, is starting or stopping, broke the connection, or rolled the
    /// transaction back for a conflict: run the whole transaction again.
    PostgresUnavailable,
    /// PostgreSQL refuses the statement or the login until somebody corrects something.
    PostgresRefused,
    /// PostgreSQL or the driver sent what its protocol does not allow.
    Protocol,
    /// The relay has not delivered the event, or never will.
    NotDelivered,
}

impl ErrorKind {
    /// True if the same transaction, run again, may succeed without a change.
    pub fn is_transient(self) -> bool {
        matches!(self, ErrorKind::PostgresUnavailable | ErrorKind::Protocol)
    }
}

impl Error {
    /// An error of `kind`; `what` says in the present tense what fails.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, what: what.into(), remedy: None, source: None }))
    }

    /// Adds the remedy: a command, a statement or a setting.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The kind, for a service that decides by it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the same transaction, run again, may succeed without a change.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// The remedy, where there is one.
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The SQLSTATE, if the server sent one and the driver gives it.
    pub fn sqlstate(&self) -> Option<&str> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(server) = error.downcast_ref::<ServerError>() {
                return Some(&server.code);
            }
            cause = error.source();
        }
        None
    }

    /// Takes the error apart: kind, what failed, remedy, cause. For the relay's own error type.
    #[doc(hidden)]
    pub fn into_parts(self) -> (ErrorKind, String, Option<String>, Option<Source>) {
        let Inner { kind, what, remedy, source } = *self.0;
        (kind, what, remedy, source)
    }

    /// Puts an error together again, with the same cause.
    #[doc(hidden)]
    pub fn from_parts(
        (kind, what, remedy, source): (ErrorKind, String, Option<String>, Option<Source>),
    ) -> Self {
        Error(Box::new(Inner { kind, what, remedy, source }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        // A cause whose text its parent already has is not repeated.
        let mut written = self.0.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !written.contains(&text) {
                write!(f, ": {text}")?;
                written = text;
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

/// An ErrorResponse, with the fields that every driver gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[cfg_attr(
    not(any(feature = "tokio-postgres", feature = "sqlx", feature = "diesel-async")),
    allow(dead_code)
)]
impl ServerError {
    /// The error for a caller; `what` says what fails.
    pub fn into_error(self, what: impl Into<String>) -> Error {
        let (kind, remedy) = self.policy();
        let error = Error::new(kind, what);
        match remedy.map(str::to_owned).or_else(|| self.hint.clone()) {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
        .caused_by(self)
    }

    /// Kind and remedy by SQLSTATE: messages may be translated.
    fn policy(&self) -> (ErrorKind, Option<&'static str>) {
        use ErrorKind::*;
        let says = |text| self.message.contains(text);
        match self.code.as_str() {
            "08P01" if says("startup parameter") => (
                PostgresRefused,
                Some(
                    "a pooler is in between: leave the parameter out of the connection string, or name it in PgBouncer's ignore_startup_parameters",
                ),
            ),
            "28P01" | "28000" => (
                PostgresRefused,
                Some(
                    "check user and password of the connection string and the server's pg_hba.conf",
                ),
            ),
            "3D000" => (
                PostgresRefused,
                Some("correct the database in the connection string, or create it"),
            ),
            "42501" if says("row-level security") => {
                (PostgresRefused, Some("run ALTER ROLE … BYPASSRLS for the user"))
            }
            "42501" => (PostgresRefused, Some("grant the user the privilege")),
            "55000" if says("recovery") => (
                PostgresUnavailable,
                Some(
                    "the server is a standby: name the primary, or all hosts with target_session_attrs=primary",
                ),
            ),
            "25006" => (
                PostgresUnavailable,
                Some(
                    "the server is a standby or read-only: name the primary, or use target_session_attrs=read-write",
                ),
            ),
            // A limit that is configured, a database that no longer takes sessions, a file that is missing.
            "53400" | "57P04" | "58P01" => (PostgresRefused, None),
            // A lock that could not be had at once.
            "55P03" => (PostgresUnavailable, None),
            // Connection, resources, operator intervention, system, roll-back.
            code if ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class)) => {
                (PostgresUnavailable, None)
            }
            _ => (PostgresRefused, None),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl StdError for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_why_and_the_remedy() {
        let error = Error::new(ErrorKind::PostgresUnavailable, "cannot connect to db:5432")
            .caused_by(std::io::Error::other("connection refused"))
            .remedy("is the server running?");
        assert_eq!(
            error.to_string(),
            "cannot connect to db:5432: connection refused (is the server running?)"
        );
        let clone = Error::from_parts(error.clone().into_parts());
        assert_eq!(clone.to_string(), error.to_string());
        assert!(clone.source().is_some_and(|source| source.is::<std::io::Error>()));
    }

    #[test]
    fn the_sqlstate_decides_about_kind_and_remedy() {
        use ErrorKind::*;
        for (code, message, kind, remedy) in [
            ("28P01", "password authentication failed", PostgresRefused, Some("pg_hba.conf")),
            ("40001", "could not serialize access", PostgresUnavailable, None),
            ("57P01", "terminating connection", PostgresUnavailable, None),
            ("57P04", "the database was dropped", PostgresRefused, None),
            ("53300", "sorry, too many clients already", PostgresUnavailable, None),
            ("55000", "recovery is in progress", PostgresUnavailable, Some("name the primary")),
            ("25006", "in a read-only transaction", PostgresUnavailable, Some("read-write")),
            ("42501", "permission denied for table t", PostgresRefused, Some("grant the user")),
            ("42P01", "relation \"t\" does not exist", PostgresRefused, None),
            ("58P01", "could not access file", PostgresRefused, None),
        ] {
            let message = message.to_owned();
            let server = ServerError { code: code.into(), message, ..Default::default() };
            let error = server.into_error("cannot emit");
            assert_eq!((error.kind(), error.sqlstate()), (kind, Some(code)), "{error}");
            match remedy {
                Some(text) => assert!(error.advice().is_some_and(|a| a.contains(text)), "{error}"),
                None => assert_eq!(error.advice(), None),
            }
        }
    }
}
