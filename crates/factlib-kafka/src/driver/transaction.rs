//! State of the open transaction: its partitions, the requested commit or abort, and its failure.

use std::collections::{HashSet, VecDeque};

use kafka_protocol::{messages::TransactionalId, protocol::StrBytes};
use tokio::sync::watch;

use super::{Answer, Arc, Duration, Error, Instant, TransactionError, Transactional, pause};
use crate::{error::Code, settings::Settings};

/// First pause while the brokers still end the previous transaction (`CONCURRENT_TRANSACTIONS`).
const CONCURRENT_PAUSE: Duration = Duration::from_millis(5);

/// Time within which the brokers end a transaction, unless something is wrong.
const ENDING_LIMIT: Duration = Duration::from_secs(1);

/// Limit for aborting the open transaction after all handles were dropped. After it, the brokers
/// abort the transaction when it times out.
pub(super) const LAST_ABORT_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct Transaction {
    pub settings: Transactional,
    /// Number of the open transaction.
    pub number: u64,
    pub coordinator: Option<Coordinator>,
    pub is_requesting: bool,
    pub not_before: Option<Instant>,
    pub failures: u32,
    pub ending: Ending,
    /// True if the brokers add partitions themselves.
    pub brokers_add_partitions: bool,
    pub added: HashSet<(usize, usize)>,
    pub wanted: Vec<(usize, usize)>,
    /// True if the brokers may have partitions or records of this transaction.
    pub is_started: bool,
    pub goal: Option<Goal>,
    /// Commits requested after the present goal.
    pub later_commits: VecDeque<(u64, Answer)>,
    pub beginning: Vec<Answer>,
    pub failure: Option<TransactionError>,
    /// Time at which the driver ends, although the transaction could not be aborted; set once all
    /// handles are dropped.
    pub ends_at: Option<Instant>,
    pub failed: watch::Sender<Option<TransactionError>>,
}

/// The broker that coordinates the transactions.
pub(super) struct Coordinator {
    pub host: String,
    pub port: u16,
    /// Finalized level of the feature `transaction.version`.
    pub transaction_version: i16,
}

/// The requested end of a transaction.
pub(super) enum Goal {
    Commit { number: u64, answer: Answer },
    Abort { answer: Answer, is_ended: bool },
}

/// The wait for the brokers to end the previous transaction, which they do after they have answered
/// its commit or abort.
#[derive(Default)]
pub(super) struct Ending {
    /// Time of the first `CONCURRENT_TRANSACTIONS` in a row.
    since: Option<Instant>,
}

impl Ending {
    /// Notes another `CONCURRENT_TRANSACTIONS`. Returns the pause before the next attempt, and true
    /// if it has lasted so long that it is to be reported.
    pub fn awaited(&mut self, settings: &Settings) -> (Duration, bool) {
        let lasted = self.since.get_or_insert_with(Instant::now).elapsed();
        let longest = settings.backoff_max.max(CONCURRENT_PAUSE);
        ((lasted / 10).clamp(CONCURRENT_PAUSE, longest), lasted >= ENDING_LIMIT)
    }
}

impl Transaction {
    pub fn new(settings: Transactional, failed: watch::Sender<Option<TransactionError>>) -> Self {
        Transaction {
            settings,
            number: 0,
            coordinator: None,
            is_requesting: false,
            not_before: None,
            failures: 0,
            ending: Ending::default(),
            brokers_add_partitions: false,
            added: HashSet::new(),
            wanted: Vec::new(),
            is_started: false,
            goal: None,
            later_commits: VecDeque::new(),
            beginning: Vec::new(),
            failure: None,
            ends_at: None,
            failed,
        }
    }

    pub fn id(&self) -> &str {
        &self.settings.id
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the time of the next attempt, if there is a pause.
    pub fn due(&self) -> Option<Instant> {
        self.not_before
    }

    /// Returns true while the transaction has to be aborted before the driver ends.
    pub fn is_aborted_at_the_end(&self) -> bool {
        let is_open = matches!(self.goal, Some(Goal::Abort { is_ended: false, .. }));
        is_open && self.is_started && self.ends_at.is_some_and(|at| Instant::now() < at)
    }

    /// Returns true while a commit waits for the transaction's records.
    pub fn is_committing(&self) -> bool {
        matches!(self.goal, Some(Goal::Commit { .. }))
    }

    pub fn may_send(&self) -> bool {
        self.failure.is_none()
    }

    /// Returns true if the partition is part of the transaction; otherwise schedules adding it.
    pub fn has(&mut self, partition: (usize, usize)) -> bool {
        if self.brokers_add_partitions || self.added.contains(&partition) {
            return true;
        }
        if !self.wanted.contains(&partition) {
            self.wanted.push(partition);
        }
        false
    }

    /// Fails the transaction because the sequence numbers of a partition have become invalid.
    pub fn sequence_lost(&mut self) {
        let error = Error::Broker {
            what: "a partition".into(),
            code: Code::OutOfOrderSequenceNumber,
            message: None,
        };
        self.fail(TransactionError::Abortable { error, topic: None });
    }

    /// Fails the transaction if a batch was refused for a reason that lasts as long as the
    /// transaction.
    pub fn refused(&mut self, topic: &Arc<str>, error: &Error, code: Code) {
        let (error, topic) = (error.clone(), Some(Arc::clone(topic)));
        match code {
            Code::ProducerFenced => self.fail(TransactionError::Fenced(error)),
            Code::TransactionalIdAuthorizationFailed => {
                self.fail(TransactionError::Refused(error));
            }
            Code::TopicAuthorizationFailed => {
                self.fail(TransactionError::Abortable { error, topic });
            }
            Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::InvalidTxnState
            | Code::TransactionAbortable => {
                self.fail(TransactionError::Abortable { error, topic: None });
            }
            _ => {}
        }
    }

    pub fn fail(&mut self, error: TransactionError) {
        if self.failure.is_none() {
            self.failed.send_replace(Some(error.clone()));
            self.failure = Some(error);
        }
    }

    /// Reports the failure to all callers that wait for a begin, commit or abort.
    pub fn fail_waiting_callers(&mut self) {
        let Some(failure) = self.failure.clone() else { return };
        let goal = self.goal.take().map(|goal| match goal {
            Goal::Commit { answer, .. } | Goal::Abort { answer, .. } => answer,
        });
        let later = self.later_commits.drain(..).map(|(_, answer)| answer);
        for answer in goal.into_iter().chain(later).chain(self.beginning.drain(..)) {
            let _ = answer.send(Err(failure.clone()));
        }
    }

    /// Opens the next transaction.
    pub fn begin_next(&mut self, number: u64) {
        self.number = number;
        self.added.clear();
        self.wanted.clear();
        self.is_started = false;
    }

    /// Schedules the next attempt; returns true if the failure is to be reported.
    pub fn retry(&mut self, settings: &Settings, error: &Error) -> bool {
        let (pause, is_reported) = match error.code() {
            Some(Code::ConcurrentTransactions) => self.ending.awaited(settings),
            _ => {
                self.ending = Ending::default();
                self.failures += 1;
                (pause(settings, self.failures - 1), true)
            }
        };
        self.not_before = Some(Instant::now() + pause);
        is_reported
    }

    /// Names the coordinator in an error that says that the previous transaction has not ended.
    pub fn with_coordinator(&self, error: Error) -> Error {
        match (error, &self.coordinator) {
            (
                Error::Broker { what, code: code @ Code::ConcurrentTransactions, message: None },
                Some(Coordinator { host, port, .. }),
            ) => {
                let message = format!("{host}:{port} has not ended the previous transaction");
                Error::Broker { what, code, message: Some(message) }
            }
            (error, _) => error,
        }
    }

    pub fn transactional_id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.settings.id.clone()))
    }

    /// Returns the failure that an error of the coordinator causes; none if the request can be
    /// retried.
    pub fn permanent_failure(error: &Error) -> Option<TransactionError> {
        let error = error.clone();
        if let Error::Unsupported { .. } = error {
            return Some(TransactionError::Refused(error));
        }
        Some(match error.code()? {
            Code::ProducerFenced | Code::InvalidProducerEpoch => TransactionError::Fenced(error),
            Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
            | Code::InvalidRequest => TransactionError::Refused(error),
            Code::InvalidTxnState
            | Code::InvalidProducerIdMapping
            | Code::TransactionAbortable
            | Code::TopicAuthorizationFailed => TransactionError::Abortable { error, topic: None },
            _ => return None,
        })
    }
}
