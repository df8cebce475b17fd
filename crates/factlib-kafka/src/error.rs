//! Errors of the client: the failed operation, and the broker's error code and message.

use std::{fmt, io, sync::Arc};

pub use kafka_protocol::error::ResponseError as Code;

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation of the client.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker cannot be reached, or the connection broke.
    #[error("connection to {address}: {source}")]
    Connection {
        /// `host:port`.
        address: Arc<str>,
        /// Error of the operating system or the TLS library.
        source: Arc<io::Error>,
    },
    /// The broker's name has no address, or cannot be looked up.
    #[error("cannot find the address of {address}: {source}")]
    Unresolved {
        /// `host:port`.
        address: Arc<str>,
        /// Error of the operating system.
        source: Arc<io::Error>,
    },
    /// The broker expects TLS on this port, and the client does not use it.
    #[error("{address} wants TLS")]
    WantsTls {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The broker closed the connection before its first response. It may expect TLS, or the
    /// server may not be Kafka.
    #[error("{address} closed the connection before its first answer")]
    HungUp {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The broker closed the connection at the first request after the exchange of versions, and
    /// the client has no login. It probably expects one.
    #[error("{address} closed the connection at the first request")]
    WantsLogin {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The broker supports no version of a request that the client can send.
    #[error("{address} {what}")]
    Unsupported {
        /// `host:port`.
        address: Arc<str>,
        /// The request, and the versions that the broker supports.
        what: String,
    },
    /// The login failed on the client's side: the password or token is unavailable, or the broker
    /// failed to prove its identity.
    #[error("login to {address} with {mechanism}: {source}")]
    Login {
        /// `host:port`.
        address: Arc<str>,
        /// The SASL mechanism.
        mechanism: &'static str,
        /// Error of the credential source or the mechanism.
        source: Arc<io::Error>,
    },
    /// The response did not come in time. The client closes the connection.
    #[error("{address} does not answer {request}")]
    TimedOut {
        /// `host:port`.
        address: Arc<str>,
        /// The request's name.
        request: &'static str,
    },
    /// The client has exceeded a quota, and the broker takes nothing from it for a while.
    #[error("{address} throttles this client because of a quota")]
    Throttled {
        /// `host:port`.
        address: Arc<str>,
    },
    /// The broker's response has an error code.
    #[error("{what}: {}{}", CodeName(*.code), MessageSuffix(.message))]
    Broker {
        /// The failed request and the topic or partition concerned.
        what: String,
        /// Kafka's error code.
        code: Code,
        /// The broker's message.
        message: Option<String>,
    },
    /// The broker sent bytes that violate the protocol.
    #[error("{address}: {what}")]
    Protocol {
        /// `host:port`.
        address: Arc<str>,
        /// Description of the problem.
        what: String,
    },
    /// The client has ended because its driver was dropped.
    #[error("the client has ended")]
    Ended,
}

impl Error {
    /// Returns the broker's error code, if this is a broker's error.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Displays an error code by its name in Kafka's documentation, such as
/// `TOPIC_AUTHORIZATION_FAILED`.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it only displays a code")]
pub struct CodeName(pub Code);

impl fmt::Display for CodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Code::Unknown(number) = self.0 {
            return write!(f, "error code {number}");
        }
        // Kafka's name in capitals, with an underscore before each word.
        for (at, letter) in format!("{:?}", self.0).chars().enumerate() {
            if letter.is_uppercase() && at > 0 {
                f.write_str("_")?;
            }
            write!(f, "{}", letter.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

struct MessageSuffix<'a>(&'a Option<String>);

impl fmt::Display for MessageSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// Turns an error code into an error; 0 is success.
pub(crate) fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<()> {
    match kafka_protocol::error::ParseResponseErrorCode::err(code) {
        None => Ok(()),
        Some(code) => {
            Err(Error::Broker { what: what(), code, message: message.map(str::to_owned) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names_of_the_documentation() {
        let name = |code| CodeName(code).to_string();
        assert_eq!(name(Code::TopicAuthorizationFailed), "TOPIC_AUTHORIZATION_FAILED");
        assert_eq!(name(Code::InvalidTopicException), "INVALID_TOPIC_EXCEPTION");
        assert_eq!(name(Code::Unknown(1_000)), "error code 1000");
    }
}
