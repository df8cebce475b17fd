//! Errors of the client: what failed, and what a broker said.

use std::{fmt, io, sync::Arc};

pub use kafka_protocol::error::ResponseError as Code;

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error between the client and a broker.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker can't be reached, or the connection broke.
    #[error("connection to {address}: {source}")]
    Connection {
        /// `host:port`.
        address: Arc<str>,
        /// The system's or the TLS library's words.
        source: Arc<io::Error>,
    },
    /// The broker speaks TLS there, and the client does not.
    #[error("{address} wants TLS")]
    WantsTls {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The broker closed the connection before its first answer: it may expect TLS, or be no
    /// Kafka.
    #[error("{address} closed the connection before its first answer")]
    HungUp {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The login failed on this side: no password or token can be had, or the broker does not
    /// prove who it is.
    #[error("login to {address} with {mechanism}: {source}")]
    Login {
        /// `host:port`.
        address: Arc<str>,
        /// The SASL mechanism.
        mechanism: &'static str,
        /// The words of the source or of the mechanism.
        source: Arc<io::Error>,
    },
    /// A request was not answered in time; its connection is given up.
    #[error("{address} does not answer {request}")]
    TimedOut {
        /// `host:port`.
        address: Arc<str>,
        /// The request's name.
        request: &'static str,
    },
    /// The broker answered with an error.
    #[error("{what}: {code:?}{}", Words(.message))]
    Broker {
        /// The request, and its subject.
        what: String,
        /// Kafka's error code.
        code: Code,
        /// The broker's own words.
        message: Option<String>,
    },
    /// Bytes that the protocol does not allow, or a broker that is too old.
    #[error("{address}: {what}")]
    Protocol {
        /// `host:port`.
        address: Arc<str>,
        /// Description of the problem.
        what: String,
    },
    /// The client has ended: its driver was dropped.
    #[error("the client has ended")]
    Ended,
}

impl Error {
    /// The broker's code, if a broker answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

struct Words<'a>(&'a Option<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// The error of a code; none for success.
pub(crate) fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<()> {
    match kafka_protocol::error::ParseResponseErrorCode::err(code) {
        None => Ok(()),
        Some(code) => {
            Err(Error::Broker { what: what(), code, message: message.map(str::to_owned) })
        }
    }
}
