//! The error type of the crate: kind, message, remedy and cause.
//!
//! The policy (is it retried, and which exit code does the binary end with?) depends on
//! [`ErrorKind`] alone, in the two tables at the end of this file.

use std::{error::Error as StdError, fmt, sync::Arc};

use factlib_postgres::{ServerError, invalidation};

/// Result with factlib's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Joins an error of a library and its causes in one text.
#[cfg(any(feature = "oauth", feature = "schema-registry"))]
pub(crate) fn error_chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An error that an operator can act on.
///
/// [`Display`](fmt::Display) gives one line: what happened, the causes and the remedy, if there is
/// one.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

// Cloned for everyone who waits for the same thing.
#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Source>,
}

/// A cause, shared by the clones of an error.
type Source = Arc<dyn StdError + Send + Sync>;

impl Error {
    /// Makes an error of `kind`; `message` says in the present tense what happened, and to what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), remedy: None, source: None }))
    }

    /// Adds the remedy for the operator: a command, a statement or a setting.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Changes the error's kind.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Kind of the failure, on which the policy depends.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the relay retries by itself.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// The message and its causes on one line, without the remedy.
    pub(crate) fn without_remedy(&self) -> String {
        let mut error = self.clone();
        error.0.remedy = None;
        error.to_string()
    }

    /// Takes the error apart into kind, message, remedy and cause.
    pub(crate) fn into_parts(self) -> (ErrorKind, String, Option<String>, Option<Source>) {
        let Inner { kind, message, remedy, source } = *self.0;
        (kind, message, remedy, source)
    }

    /// Reassembles an error with the same cause.
    pub(crate) fn from_parts(
        (kind, message, remedy, source): (ErrorKind, String, Option<String>, Option<Source>),
    ) -> Self {
        Error(Box::new(Inner { kind, message, remedy, source }))
    }

    /// The remedy, if there is one.
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        // A cause whose text is part of its parent's is not repeated.
        let mut parent = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !parent.contains(&text) {
                write!(f, ": {text}")?;
                parent = text;
            }
            cause = error.source();
        }
        match &self.0.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// Keeps message, remedy and cause of an error of a throwaway server.
#[cfg(feature = "test-util")]
impl From<factlib_testing::Error> for Error {
    fn from(error: factlib_testing::Error) -> Self {
        use factlib_testing::ErrorKind as Failure;
        let parts = error.into_parts();
        let kind = match parts.kind {
            Failure::PostgresUnavailable => ErrorKind::PostgresUnavailable,
            Failure::PostgresRefused => ErrorKind::PostgresRefused,
            Failure::KafkaUnavailable => ErrorKind::KafkaUnavailable,
            Failure::RegistryUnavailable => ErrorKind::RegistryUnavailable,
            Failure::Panicked => ErrorKind::ActorFailed,
            _ => ErrorKind::Config,
        };
        let (message, remedy, source) = (parts.what, parts.remedy, parts.source);
        Error(Box::new(Inner { kind, message, remedy, source }))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Keeps message and causes of an error of the PostgreSQL client; kind and remedy are the relay's.
impl From<factlib_postgres::Error> for Error {
    fn from(error: factlib_postgres::Error) -> Self {
        let (kind, remedy) = from_postgres(error.kind());
        let remedy = match error.kind() {
            factlib_postgres::ErrorKind::SlotInvalidated => Some(invalidated(&error)),
            _ => remedy.or(error.remedy()).map(str::to_owned),
        };
        Error(Box::new(Inner {
            kind,
            message: error.message().to_owned(),
            remedy,
            source: error.shared_source(),
        }))
    }
}

/// The relay's kind for a kind of the PostgreSQL client, and a remedy if it has a better one.
fn from_postgres(kind: factlib_postgres::ErrorKind) -> (ErrorKind, Option<&'static str>) {
    use factlib_postgres::ErrorKind::*;
    match kind {
        Config => (ErrorKind::Config, None),
        Protocol => (ErrorKind::Protocol, None),
        SlotInUse => (ErrorKind::SlotInUse, None),
        Unavailable | Standby | AlreadyExists => (ErrorKind::PostgresUnavailable, None),
        Authentication | Tls | Permission | ServerSettings | Refused => {
            (ErrorKind::PostgresRefused, None)
        }
        Pooler => (ErrorKind::PostgresRefused, Some(CONNECT_DIRECTLY)),
        PublicationMissing => (ErrorKind::PostgresRefused, Some(OLDER_PUBLICATION)),
        UntranslatableText => (ErrorKind::PostgresRefused, Some(ADVANCE_PAST_IT)),
        SlotMissing => (ErrorKind::PositionLost, Some(ACCEPT_NEW_SLOT)),
        SlotInvalidated => (ErrorKind::PositionLost, None),
        // Kinds of later versions of the client.
        _ => (ErrorKind::PostgresRefused, None),
    }
}

const CONNECT_DIRECTLY: &str = "a pooler is in between that does not pass replication on: name \
                                PostgreSQL itself in postgres.url, or use PgBouncer 1.23 or later";
const OLDER_PUBLICATION: &str = "before PostgreSQL 18, the publication has to be older than what \
                                 the slot reads next; if it is acceptable that this is not \
                                 delivered, drop the slot and run `factlib setup --accept-position`";
const ADVANCE_PAST_IT: &str = "a text has bytes that the database's encoding has no character for, and \
                          the server converts it: its log names the position, over which `factlib \
                          slot advance` goes";
const ACCEPT_NEW_SLOT: &str = "events since it was dropped are not in a new slot; if that is \
                               accepted, `factlib setup --accept-position` starts from now";
const ACCEPT_LOST_WAL: &str = "the server no longer has what the slot needs, so events may be \
                               missing; if that is accepted, `factlib setup --accept-position` \
                               starts from now";

/// The remedy for an invalidated slot; with what prevents it, if the server says why it did that.
fn invalidated(error: &factlib_postgres::Error) -> String {
    let server = error.source().and_then(|source| source.downcast_ref::<ServerError>());
    match server.and_then(invalidation::reason).and_then(invalidation::prevention) {
        Some(prevention) => format!("{ACCEPT_LOST_WAL}; before that, {prevention}"),
        None => ACCEPT_LOST_WAL.into(),
    }
}

/// Kind of a failure; each kind has one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing or wrong.
    Config,
    /// A fact is invalid, and its emitter must correct it.
    InvalidFact,
    /// PostgreSQL can't be reached, is starting or stopping, or broke the connection.
    PostgresUnavailable,
    /// The slot is in use by another process.
    SlotInUse,
    /// PostgreSQL refuses permanently: password, database, privilege, `wal_level`, no free slot.
    PostgresRefused,
    /// The slot is gone, invalidated, foreign or not at the checkpoint: events may be missing.
    PositionLost,
    /// A server sent bytes that the protocol does not allow.
    Protocol,
    /// Brokers can't be reached or can't serve requests now.
    KafkaUnavailable,
    /// A Kafka transaction can't be completed; it is aborted and repeated.
    TransactionAborted,
    /// Kafka refuses everything permanently: authentication, versions, the topic of positions. Or a
    /// topic got partitions, and that is to stop the relay.
    KafkaRefused,
    /// Kafka refuses a topic permanently: its name, its settings, a policy.
    TopicRefused,
    /// A topic can't be written to now: a right is missing, there are too few brokers for its
    /// replicas, or the topic does not exist.
    TopicUnavailable,
    /// The schema registry can't be reached or can't serve requests now.
    RegistryUnavailable,
    /// The schema registry refuses requests until something is corrected, or the address is not a
    /// schema registry.
    RegistryRefused,
    /// Kafka or the schema registry refuses this record permanently.
    RecordRefused,
    /// Kafka refuses this record permanently because of its size.
    RecordTooLarge,
    /// A record can never be delivered, and later ones wait for it, as configured.
    RecordBlocked,
    /// A handler gave up on an event, or failed too often with it.
    HandlerFailed,
    /// A handler actor can't handle a batch now, and wants it again later.
    HandlerUnavailable,
    /// The checkpoint store can't be reached now.
    CheckpointUnavailable,
    /// The checkpoint store's content is unreadable or belongs to another slot.
    CheckpointInvalid,
    /// An actor panicked or ended unexpectedly.
    ActorFailed,
    /// Stopping took longer than the limit.
    DrainTimeout,
}

impl ErrorKind {
    /// True for kinds that are retried for ever, with backoff. Every other kind stops the pipeline,
    /// except those of single topics and records, for which `dead_letter.policy` decides.
    ///
    /// An error stops the pipeline only if it concerns everything. One that concerns an event or a
    /// topic parks these events or makes them wait, while the others flow.
    pub fn is_transient(self) -> bool {
        use ErrorKind::*;
        match self {
            // The other side recovers without a change here.
            PostgresUnavailable
            | SlotInUse
            | KafkaUnavailable
            | TransactionAborted
            | RegistryUnavailable
            | HandlerUnavailable
            | CheckpointUnavailable => true,
            // One topic, or those with schemas, wait for a privilege, brokers or a login; the others
            // must not wait with them.
            TopicUnavailable | RegistryRefused => true,
            // The operator chose that later records must not overtake this one.
            RecordBlocked => true,
            // A panic may be a race; the backoff keeps a repeated one from burning a core.
            ActorFailed => true,
            // A broken stream is read again from the checkpoint.
            Protocol => true,
            // One event or one topic: its token returns it, and `dead_letter.policy` decides; with
            // `stop`, it stops everything.
            RecordRefused | RecordTooLarge | HandlerFailed | TopicRefused => false,
            // Everything: no event can be read.
            PostgresRefused | PositionLost => false,
            // Everything: no topic can be written to with this login, these versions or, with
            // exactly-once, without the topic of positions.
            KafkaRefused => false,
            // Everything: no position can be saved or trusted.
            CheckpointInvalid => false,
            // Everything: nothing starts with these settings.
            Config => false,
            // Only an emitter gets it, and has to correct its fact.
            InvalidFact => false,
            // The shutdown that was requested.
            DrainTimeout => false,
        }
    }

    /// Exit code of the binary; docs/errors.md lists them.
    pub fn exit_code(self) -> u8 {
        use ErrorKind::*;
        match self {
            ActorFailed | HandlerFailed | HandlerUnavailable | Protocol => 1,
            Config | InvalidFact => 2,
            PostgresUnavailable | SlotInUse | PostgresRefused => 3,
            KafkaUnavailable | TransactionAborted | KafkaRefused | TopicRefused
            | TopicUnavailable | RegistryUnavailable | RegistryRefused | RecordRefused
            | RecordTooLarge | RecordBlocked => 4,
            PositionLost => 5,
            CheckpointUnavailable | CheckpointInvalid => 6,
            DrainTimeout => 7,
        }
    }
}

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
    }
}
