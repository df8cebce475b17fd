//! Classifies errors of the server: a table from SQLSTATE to kind and remedy.
//!
//! Messages may be translated (`lc_messages`). A decision therefore depends on the SQLSTATE first,
//! then on the name of the server's C function or of a setting, which are never translated, and on
//! English text last.

use std::{error::Error as StdError, fmt, io};

use tokio_postgres::error::DbError;

use crate::{Error, ErrorKind};

/// An ErrorResponse, as the server sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// The SQLSTATE.
    pub code: String,
    /// Primary message; the server may have translated it.
    pub message: String,
    /// Secondary message with details.
    pub detail: Option<String>,
    /// The server's advice.
    pub hint: Option<String>,
    /// The C function in the server that reports the error.
    pub routine: String,
}

impl ServerError {
    /// Converts it into an [`Error`] with kind and remedy; `message` says what failed.
    pub fn into_error(self, message: impl Into<String>) -> Error {
        let (kind, remedy) = self.policy();
        let remedy = remedy.map(str::to_owned).or_else(|| self.hint.clone());
        let error = Error::new(kind, message);
        match remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
        .caused_by(self)
    }

    fn policy(&self) -> (ErrorKind, Option<&'static str>) {
        use ErrorKind::*;
        let message_has = |text| self.message.contains(text);
        let routine_has = |routine| self.routine.contains(routine);
        let slot = message_has("slot") || routine_has("ReplicationSlot");
        match self.code.as_str() {
            // Codes that differ from the rest of their class come first.
            "53300" if message_has("max_wal_senders") && message_has("currently 0") => (
                ServerSettings,
                Some("run ALTER SYSTEM SET max_wal_senders = 10 and restart the server"),
            ),
            "53300" if message_has("max_wal_senders") => (
                Unavailable,
                Some("raise max_wal_senders if other replication connections are there to stay"),
            ),
            "53400" => (
                ServerSettings,
                Some(
                    "drop an unused replication slot, or raise max_replication_slots and restart the server",
                ),
            ),
            // PgBouncer; other poolers say it in other words.
            "08P01" if message_has("startup parameter: replication") => (
                Pooler,
                Some(
                    "a pooler is in between that does not pass replication on: connect to PostgreSQL itself, or use PgBouncer 1.23 or later",
                ),
            ),
            "08P01" if message_has("startup parameter") => (
                Refused,
                Some(
                    "a pooler is in between: leave the parameter out of the connection string, or name it in PgBouncer's ignore_startup_parameters",
                ),
            ),
            // A publication, a slot or a row of the catalog: the next attempt finds it.
            "42710" => (AlreadyExists, Some(MADE_AT_ONCE)),
            "23505" if message_has("\"pg_") => (AlreadyExists, Some(MADE_AT_ONCE)),
            "57P04" => (Refused, None),
            "28000" if message_has("client certificate") => {
                (Tls, Some("name a certificate and its key with sslcert and sslkey"))
            }
            "28000" if message_has("role \"") => (
                Authentication,
                Some(
                    "run CREATE ROLE … LOGIN REPLICATION, or correct the user in the connection string",
                ),
            ),
            "28P01" | "28000" => (
                Authentication,
                Some(
                    "check user and password of the connection string and the server's pg_hba.conf",
                ),
            ),
            "3D000" => {
                (Refused, Some("correct the database in the connection string, or create it"))
            }
            "55006" if slot => (SlotInUse, None),
            "42704" if slot && !routine_has("Publication") => (
                SlotMissing,
                Some("create it: a new slot does not have the changes since it was dropped"),
            ),
            "42704" if message_has("publication") || routine_has("ublication") => (
                PublicationMissing,
                Some(
                    "create it; before PostgreSQL 18, it has to be older than what the slot reads next",
                ),
            ),
            "22021" | "22P05" if message_has("encoding \"UTF8\"") => (
                UntranslatableText,
                Some(
                    "a text has bytes that the database's encoding has no character for: read the stream with the encoding of the database",
                ),
            ),
            "42501" if message_has("row-level security") => {
                (Permission, Some("run ALTER ROLE … BYPASSRLS for the user"))
            }
            "42501" if message_has("walsender") || message_has("replication") => {
                (Permission, Some("run ALTER ROLE … REPLICATION for the user"))
            }
            "42501" => (Permission, Some("grant the user the privilege")),
            "55000" | "0A000" if message_has("wal_level") => (
                ServerSettings,
                Some("run ALTER SYSTEM SET wal_level = logical and restart the server"),
            ),
            "55000" | "0A000"
                if routine_has("CheckLogicalDecodingRequirements") || message_has("recovery") =>
            {
                (
                    Standby,
                    Some(
                        "the server is a standby: name the primary, or all hosts with target_session_attrs=primary",
                    ),
                )
            }
            "55000"
                if routine_has("CreateDecodingContext")
                    || message_has("can no longer")
                    || message_has("invalidated") =>
            {
                INVALIDATED
            }
            "58P01"
                if message_has("WAL segment")
                    || routine_has("XLog")
                    || routine_has("WALRead")
                    || routine_has("walsender")
                    || routine_has("logical_read") =>
            {
                INVALIDATED
            }
            "25006" => (
                Standby,
                Some(
                    "the server is a standby or read-only: name the primary, or use target_session_attrs=read-write",
                ),
            ),
            // Cancelled queries and lock timeouts: another attempt may succeed.
            "57014" | "55P03" => (Unavailable, None),
            // Connection, resources, operator intervention, system error, rollback.
            code if ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class))
                && code != "58P01" =>
            {
                (Unavailable, None)
            }
            _ => (Refused, None),
        }
    }
}

const MADE_AT_ONCE: &str = "another instance made it at the same moment: try again";

const INVALIDATED: (ErrorKind, Option<&str>) =
    (ErrorKind::SlotInvalidated, Some("changes are lost: drop the slot and create a new one"));

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

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        ServerError {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            routine: error.routine().unwrap_or_default().to_owned(),
        }
    }
}

/// The body of an ErrorResponse or NoticeResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a>(pub(crate) &'a [u8]);

impl ErrorFields<'_> {
    /// Converts it into an [`Error`] with kind and remedy; `message` says what failed.
    pub fn into_error(self, message: impl Into<String>) -> Error {
        self.parse().into_error(message)
    }

    /// Parses the fields; malformed and unknown ones are left out.
    pub fn parse(self) -> ServerError {
        let mut error = ServerError::default();
        for field in self.0.split(|byte| *byte == 0) {
            let Some((name, value)) = field.split_first() else { continue };
            let value = String::from_utf8_lossy(value).into_owned();
            match name {
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'R' => error.routine = value,
                _ => {}
            }
        }
        error
    }
}

/// Returns the server's error among the causes of `error`, if the server sent one.
fn server_error(error: &Error) -> Option<&ServerError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ServerError>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// Returns the SQLSTATE among the causes of `error`, if the server sent one.
pub(crate) fn sqlstate(error: &Error) -> Option<&str> {
    server_error(error).map(|error| &*error.code)
}

/// True if the server refused the password. If it asked another service, such as PAM or LDAP (so do
/// the IAM logins of managed services), the SQLSTATE is that of a missing line in `pg_hba.conf`.
pub(crate) fn is_refused_password(error: &Error) -> bool {
    server_error(error).is_some_and(|error| match error.code.as_str() {
        "28P01" => true,
        "28000" => error.routine == "auth_failed",
        _ => false,
    })
}

/// Classifies an error of a tokio-postgres client; `message` says what failed.
pub(crate) fn postgres_error(message: impl Into<String>, error: tokio_postgres::Error) -> Error {
    if let Some(server) = error.as_db_error() {
        return ServerError::from(server).into_error(message);
    }
    // tokio-postgres does not export its error kinds, so the text has to do: the error's own text
    // is its kind, and its source's text is the reason.
    let text = error.to_string();
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    let refused =
        text.starts_with("authentication error") || text.starts_with("invalid configuration");
    let kind = if refused || has_io_cause(&error, |kind| kind == io::ErrorKind::PermissionDenied) {
        ErrorKind::Authentication
    } else if error.is_closed() || text.starts_with("timeout") || has_io_cause(&error, |_| true) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Protocol
    };
    let classified = Error::new(kind, message);
    let classified = if reason.contains("password missing") {
        classified.with_remedy(NO_PASSWORD)
    } else {
        classified
    };
    classified.caused_by(error)
}

/// Remedy if the server asks for a password and none is known.
pub(crate) const NO_PASSWORD: &str = "set it in the connection string, PGPASSWORD or ~/.pgpass";

fn has_io_cause(error: &tokio_postgres::Error, is: impl Fn(io::ErrorKind) -> bool) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| is(cause.kind()))
}
