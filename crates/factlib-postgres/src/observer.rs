//! The observer trait, and the notices about connections that it receives.

use std::{fmt, path::Path};

use crate::Error;

/// Receives notices, for example to log them.
///
/// Set it with [`ConnectInfo::with_observer`](crate::ConnectInfo::with_observer). Without one,
/// notices are dropped. It is called in the middle of a connection attempt, so it must not block.
pub trait Observer: Send + Sync {
    /// Receives one notice.
    fn notice(&self, notice: &Notice<'_>);
}

/// An event that does not change a result, but that an operator may want to know of.
/// [`Display`](fmt::Display) gives a line for a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The password file was ignored, as libpq does, because others can read it.
    PasswordFileIgnored {
        /// Path of the file.
        path: &'a Path,
    },
    /// The connection is encrypted, but the server's certificate was not verified. Reported once
    /// for a connection string.
    Unverified {
        /// Host and port of the server.
        host: &'a str,
    },
    /// The connection over the network is not encrypted. Reported once for a connection string.
    Unencrypted {
        /// Host and port of the server.
        host: &'a str,
    },
    /// An ordinary client's connection broke; the client's next statement fails as well.
    ConnectionEnded {
        /// The reason.
        error: &'a tokio_postgres::Error,
    },
    /// The lock or transaction that a statement waits for is not known.
    WaitUnknown {
        /// The reason.
        error: &'a Error,
    },
    /// A statement that took too long could not be cancelled.
    NotCancelled {
        /// The reason.
        error: &'a Error,
    },
    /// The server has to convert texts, because the characters of its encoding could not be read; a
    /// text that it can't convert will end the stream.
    ConvertedByServer {
        /// Encoding of the database.
        encoding: &'a str,
        /// The reason.
        error: &'a Error,
    },
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::PasswordFileIgnored { path } => {
                write!(f, "password file {} is ignored: others can read it", path.display())
            }
            Notice::Unverified { host } => {
                write!(f, "the certificate of PostgreSQL at {host} is not verified")
            }
            Notice::Unencrypted { host } => {
                write!(f, "the connection to PostgreSQL at {host} is not encrypted")
            }
            Notice::ConnectionEnded { error } => write!(f, "PostgreSQL connection ended: {error}"),
            Notice::WaitUnknown { error } => {
                write!(f, "cannot find out what a statement waits for: {error}")
            }
            Notice::NotCancelled { error } => write!(f, "cannot cancel a statement: {error}"),
            Notice::ConvertedByServer { encoding, error } => {
                write!(f, "PostgreSQL has to convert texts from {encoding}: {error}")
            }
        }
    }
}

/// An observer that drops notices.
pub(crate) struct NoObserver;

impl Observer for NoObserver {
    fn notice(&self, _: &Notice<'_>) {}
}
