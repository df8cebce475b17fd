//! What can go wrong: a kind, what happened to what, the remedy, the cause.
//!
//! The policy (is it retried? with which exit code does the binary end?) hangs
//! on [`ErrorKind`] alone, in the two tables at the bottom of this file.

use std::{error::Error as StdError, fmt, sync::Arc};

/// factlib's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that an operator can act on.
///
/// [`Display`](fmt::Display) gives one line: what happened, its causes and,
/// where there is one, the remedy.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

// A clone goes to each of those who wait for the same thing.
#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    remedy: Option<String>,
    source: Option<Source>,
}

/// A cause, shared by the clones of an error.
type Source = Arc<dyn StdError + Send + Sync>;

impl Error {
    /// An error of `kind`; `what` says in the present tense what happened, to what.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, what: what.into(), remedy: None, source: None }))
    }

    /// Adds what the operator should do: a command, a statement or a setting.
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

    /// What kind of failure it is; the policy hangs on it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True where the relay tries again by itself.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// What happened and its causes, on one line without the remedy.
    pub(crate) fn without_remedy(&self) -> String {
        let mut error = self.clone();
        error.0.remedy = None;
        error.to_string()
    }

    /// Takes the error apart: kind, what happened, remedy, cause.
    pub(crate) fn into_parts(self) -> (ErrorKind, String, Option<String>, Option<Source>) {
        let Inner { kind, what, remedy, source } = *self.0;
        (kind, what, remedy, source)
    }

    /// Puts an error together again, with the same cause.
    pub(crate) fn from_parts(
        (kind, what, remedy, source): (ErrorKind, String, Option<String>, Option<Source>),
    ) -> Self {
        Error(Box::new(Inner { kind, what, remedy, source }))
    }

    /// The remedy, where there is one.
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        // A cause whose text its parent already gave is not said twice.
        let mut said = self.0.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            cause = error.source();
        }
        match &self.0.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// What failed in a throwaway server, with its remedy and cause.
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
        let (what, remedy, source) = (parts.what, parts.remedy, parts.source);
        Error(Box::new(Inner { kind, what, remedy, source }))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Keeps text and causes of an error of the PostgreSQL client; kind and remedy are the relay's.
impl From<factlib_postgres::Error> for Error {
    fn from(error: factlib_postgres::Error) -> Self {
        let (kind, remedy) = of_postgres(error.kind());
        Error(Box::new(Inner {
            kind,
            what: error.message().to_owned(),
            remedy: remedy.or(error.remedy()).map(str::to_owned),
            source: error.shared_source(),
        }))
    }
}

/// The relay's kind for one of the PostgreSQL client, and its remedy where it has a better one.
fn of_postgres(kind: factlib_postgres::ErrorKind) -> (ErrorKind, Option<&'static str>) {
    use factlib_postgres::ErrorKind::*;
    match kind {
        Config => (ErrorKind::Config, None),
        Protocol => (ErrorKind::Protocol, None),
        SlotInUse => (ErrorKind::SlotInUse, None),
        Unavailable | Standby | AlreadyExists => (ErrorKind::PostgresUnavailable, None),
        Authentication | Tls | Permission | ServerSettings | Refused => {
            (ErrorKind::PostgresRefused, None)
        }
        Pooler => (ErrorKind::PostgresRefused, Some(PASS_THE_POOLER)),
        PublicationMissing => (ErrorKind::PostgresRefused, Some(OLDER_PUBLICATION)),
        UntranslatableText => (ErrorKind::PostgresRefused, Some(GO_OVER_IT)),
        SlotMissing => (ErrorKind::PositionLost, Some(ACCEPT_NEW_SLOT)),
        SlotInvalidated => (ErrorKind::PositionLost, Some(ACCEPT_LOST_WAL)),
        // What no version of the client has yet.
        _ => (ErrorKind::PostgresRefused, None),
    }
}

const PASS_THE_POOLER: &str = "a pooler is in between that does not pass replication on: name \
                               PostgreSQL itself in postgres.url, or use PgBouncer 1.23 or later";
const OLDER_PUBLICATION: &str = "before PostgreSQL 18, the publication has to be older than what \
                                 the slot reads next; if it is acceptable that this is not \
                                 delivered, drop the slot and run `factlib setup --accept-position`";
const GO_OVER_IT: &str = "a text has bytes that the database's encoding has no character for, and \
                          the server converts it: its log names the position, over which `factlib \
                          slot advance` goes";
const ACCEPT_NEW_SLOT: &str = "events since it was dropped are not in a new slot; if that is \
                               accepted, `factlib setup --accept-position` starts from now";
const ACCEPT_LOST_WAL: &str = "the server no longer has the WAL that the slot needs, so events may \
                               be missing; if that is accepted, `factlib setup --accept-position` \
                               starts from now; raise max_slot_wal_keep_size";

/// Kinds of failure, each with one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing or wrong.
    Config,
    /// A fact that its emitter must correct.
    InvalidFact,
    /// PostgreSQL can't be reached, is starting or stopping, or broke the connection.
    PostgresUnavailable,
    /// The slot is active for another process.
    SlotInUse,
    /// PostgreSQL refuses for good: password, database, privilege, `wal_level`, no free slot.
    PostgresRefused,
    /// The slot is gone, invalidated, foreign, or not where the checkpoint says: events may be missing.
    PositionLost,
    /// Bytes that the protocol does not allow.
    Protocol,
    /// Brokers can't be reached or can't serve us now.
    KafkaUnavailable,
    /// A Kafka transaction can't be completed: nothing of it counts, and it is done again.
    TransactionAborted,
    /// Kafka refuses everything for good: authentication, versions, the topic of positions.
    KafkaRefused,
    /// Kafka refuses a topic for good: its name, its settings, a policy.
    TopicRefused,
    /// A topic can't be written to now: a right is missing, there are too few brokers for its
    /// replicas, or the topic does not exist.
    TopicUnavailable,
    /// The schema registry can't be reached or can't serve us now.
    RegistryUnavailable,
    /// The schema registry refuses requests until somebody corrects something, or the address is
    /// not one of a schema registry.
    RegistryRefused,
    /// Kafka or the schema registry refuses this record, and will refuse it again.
    RecordRefused,
    /// Kafka refuses this record for its size, and will refuse it again.
    RecordTooLarge,
    /// A record that can never be delivered is waited for, as configured.
    RecordBlocked,
    /// A handler gives an event up, or has failed too often with it.
    HandlerFailed,
    /// A handler actor can't handle a batch now, and wants it again.
    HandlerUnavailable,
    /// The checkpoint store can't be reached now.
    CheckpointUnavailable,
    /// The checkpoint store holds what can't be read or belongs to another slot.
    CheckpointInvalid,
    /// An actor panicked or ended out of turn.
    ActorFailed,
    /// Stopping took longer than the limit.
    DrainTimeout,
}

impl ErrorKind {
    /// True for kinds that are retried for ever, with backoff. Every other kind stops the pipeline,
    /// except those of single topics and records, for which `dead_letter.policy` decides.
    ///
    /// An error stops the pipeline only if it concerns all of it. One that concerns an event or a
    /// topic parks these events, or makes them wait; the others flow.
    pub fn is_transient(self) -> bool {
        use ErrorKind::*;
        match self {
            // The other side comes back, without a change here.
            PostgresUnavailable
            | SlotInUse
            | KafkaUnavailable
            | TransactionAborted
            | RegistryUnavailable
            | HandlerUnavailable
            | CheckpointUnavailable => true,
            // One topic, or those with schemas: they wait for a right, brokers or a login, and the
            // others must not wait with them.
            TopicUnavailable | RegistryRefused => true,
            // The operator asked for it: what is behind the record must not overtake it.
            RecordBlocked => true,
            // A panic may be a race; the backoff keeps a certain one from burning a core.
            ActorFailed => true,
            // A broken stream is read again from the checkpoint.
            Protocol => true,
            // One event or one topic. Its token hands it back, and `dead_letter.policy` decides;
            // with `stop`, the operator wants it to be about the whole.
            RecordRefused | RecordTooLarge | HandlerFailed | TopicRefused => false,
            // The whole: no event can be read.
            PostgresRefused | PositionLost => false,
            // The whole: no topic can be written to with this login, these versions or, with
            // exactly-once, without the topic of positions.
            KafkaRefused => false,
            // The whole: no position can be saved or trusted.
            CheckpointInvalid => false,
            // The whole: nothing is started with these settings.
            Config => false,
            // Of an emitter, which has to correct it; no relay has it.
            InvalidFact => false,
            // The end that was asked for.
            DrainTimeout => false,
        }
    }

    /// The exit code of the binary; docs/errors.md documents them.
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
