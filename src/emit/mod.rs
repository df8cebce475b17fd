//! The client that services use, from the crate [`factlib_emit`]: facts, written inside the
//! transaction that makes them true.
//!
//! A service needs only `factlib-emit`, which is light. Here it is re-exported, with a
//! [`Publisher`] that connects by URL as the relay does.

mod publisher;

#[doc(inline)]
pub use factlib_emit::{
    DEFAULT_MAX_BYTES, DEFAULT_PREFIX, Emitter, Error, ErrorKind, Fact, Receipt, Result,
    Transaction, delivered, emit, reserved, schema,
};

pub use self::publisher::Publisher;

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        let (kind, what, remedy, source) = error.into_parts();
        let kind = match kind {
            ErrorKind::Config => crate::ErrorKind::Config,
            ErrorKind::InvalidFact => crate::ErrorKind::InvalidFact,
            ErrorKind::PostgresUnavailable => crate::ErrorKind::PostgresUnavailable,
            ErrorKind::PostgresRefused => crate::ErrorKind::PostgresRefused,
            // A kind that this version of the relay does not know is no reason to end.
            _ => crate::ErrorKind::Protocol,
        };
        crate::Error::from_parts((kind, what, remedy, source))
    }
}

/// The same error for the client, whose kinds are a few of the relay's.
fn client_error(error: crate::Error) -> Error {
    let (kind, what, remedy, source) = error.into_parts();
    let kind = match kind {
        crate::ErrorKind::Config => ErrorKind::Config,
        crate::ErrorKind::InvalidFact => ErrorKind::InvalidFact,
        crate::ErrorKind::PostgresRefused => ErrorKind::PostgresRefused,
        crate::ErrorKind::Protocol => ErrorKind::Protocol,
        kind if kind.is_transient() => ErrorKind::PostgresUnavailable,
        _ => ErrorKind::PostgresRefused,
    };
    Error::from_parts((kind, what, remedy, source))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_keeps_kind_text_remedy_and_cause_both_ways() {
        let io = || std::io::Error::other("connection refused");
        for kind in [
            ErrorKind::Config,
            ErrorKind::InvalidFact,
            ErrorKind::PostgresUnavailable,
            ErrorKind::PostgresRefused,
            ErrorKind::Protocol,
        ] {
            let error = Error::new(kind, "cannot emit").caused_by(io()).remedy("wait");
            let ours = crate::Error::from(error);
            assert_eq!(format!("{:?}", ours.kind()), format!("{kind:?}"));
            assert_eq!(ours.is_transient(), kind.is_transient());
            assert_eq!(ours.to_string(), "cannot emit: connection refused (wait)");
            assert_eq!(ours.advice(), Some("wait"));
            assert!(ours.source().is_some_and(|source| source.is::<std::io::Error>()));
            let again = client_error(ours);
            assert_eq!(again.kind(), kind);
            assert_eq!(again.to_string(), "cannot emit: connection refused (wait)");
        }
    }
}
