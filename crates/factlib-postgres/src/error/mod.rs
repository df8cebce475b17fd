//! The error type: a kind, a message, a remedy and a cause.

mod server;

use std::{error::Error as StdError, fmt, sync::Arc};

pub use self::server::{ErrorFields, ServerError};
pub(crate) use self::server::{NO_PASSWORD, is_refused_password, postgres_error, sqlstate};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that says what failed, why, and what to do about it.
///
/// [`Display`](fmt::Display) gives one line: the message, its causes and, in parentheses, the
/// remedy. No error contains a password.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

// The source is shared, because several waiters may get a clone of one error.
#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), remedy: None, source: None }))
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Classifies an error of a tokio-postgres client; `message` says what failed.
    pub fn from_client(message: impl Into<String>, error: tokio_postgres::Error) -> Self {
        postgres_error(message, error)
    }

    /// The kind of failure, on which a retry policy can depend.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if another attempt may succeed without a change by an operator.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// The message: what failed, without causes and remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Advice for an operator, such as a statement to run or a setting to change.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The SQLSTATE, if the server sent the error.
    pub fn sqlstate(&self) -> Option<&str> {
        sqlstate(self)
    }

    /// The cause, shared, so that an error of another type can keep it.
    pub fn shared_source(&self) -> Option<Arc<dyn StdError + Send + Sync>> {
        self.0.source.clone()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        // Skip a cause whose text is part of its parent's.
        let mut last = self.0.message.clone();
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

/// Kind of a failure. Retry the [transient](Self::is_transient) kinds; for the others, an operator
/// has to act first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection string is wrong, or something that it names.
    Config,
    /// The server can't be reached, is starting, stopping or overloaded, or closed the connection.
    Unavailable,
    /// The server is a standby or read-only, and a primary is needed.
    Standby,
    /// Another client created the same object at the same moment.
    AlreadyExists,
    /// The login was refused by the server or by this client: password, method, `pg_hba.conf`.
    Authentication,
    /// The server has no TLS, or one side does not trust the other's certificate.
    Tls,
    /// The user lacks a privilege or the attribute REPLICATION.
    Permission,
    /// A setting of the server prevents replication: `wal_level`, `max_wal_senders`,
    /// `max_replication_slots`.
    ServerSettings,
    /// A connection pooler between client and server does not support replication.
    Pooler,
    /// The slot is active for another process.
    SlotInUse,
    /// The slot does not exist.
    SlotMissing,
    /// The server no longer has the WAL that the slot needs: changes are lost.
    SlotInvalidated,
    /// The publication does not exist, or, before PostgreSQL 18, did not exist at the time of the
    /// change.
    PublicationMissing,
    /// The server can't convert a text to UTF-8. An [`Encoding`](crate::Encoding) avoids this.
    UntranslatableText,
    /// The server refused for another reason.
    Refused,
    /// The server sent bytes that the protocol does not allow.
    Protocol,
}

impl ErrorKind {
    /// True if another attempt may succeed without a change by an operator.
    pub fn is_transient(self) -> bool {
        use ErrorKind::*;
        match self {
            // The server may come back, or another host of the list take over.
            Unavailable | Standby => true,
            // The next attempt finds the object.
            AlreadyExists => true,
            // The other reader may end.
            SlotInUse => true,
            // A new connection starts from a known state.
            Protocol => true,
            Config | Authentication | Tls | Permission | ServerSettings | Pooler | SlotMissing
            | SlotInvalidated | PublicationMissing | UntranslatableText | Refused => false,
        }
    }
}

#[cfg(test)]
mod tests;
