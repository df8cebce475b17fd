//! The open transaction: its partitions, the end that was asked for, and why it failed.

use std::collections::{HashSet, VecDeque};

use kafka_protocol::{messages::TransactionalId, protocol::StrBytes};
use tokio::sync::watch;

use super::{
    Answer, Arc, Connection, Duration, Error, Instant, TransactionError, Transactional, pause,
};
use crate::{error::Code, settings::Settings};

/// Pause while the transaction before is still being written (`CONCURRENT_TRANSACTIONS`).
pub(super) const CONCURRENT_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Transaction {
    pub settings: Transactional,
    /// Number of the open one.
    pub number: u64,
    pub coordinator: Option<Connection>,
    pub is_asking: bool,
    pub not_before: Option<Instant>,
    pub failures: u32,
    /// The brokers add partitions by themselves.
    pub is_implicit: bool,
    pub added: HashSet<(usize, usize)>,
    pub wanted: Vec<(usize, usize)>,
    /// Brokers may have something of it.
    pub is_touched: bool,
    pub goal: Option<Goal>,
    /// Commits that were asked for behind the goal.
    pub later: VecDeque<(u64, Answer)>,
    pub beginning: Vec<Answer>,
    pub failure: Option<TransactionError>,
    pub failed: watch::Sender<Option<TransactionError>>,
}

/// The end that was asked for.
pub(super) enum Goal {
    Commit { number: u64, answer: Answer },
    Abort { answer: Answer, is_ended: bool },
}

impl Transaction {
    pub fn new(settings: Transactional, failed: watch::Sender<Option<TransactionError>>) -> Self {
        Transaction {
            settings,
            number: 0,
            coordinator: None,
            is_asking: false,
            not_before: None,
            failures: 0,
            is_implicit: false,
            added: HashSet::new(),
            wanted: Vec::new(),
            is_touched: false,
            goal: None,
            later: VecDeque::new(),
            beginning: Vec::new(),
            failure: None,
            failed,
        }
    }

    pub fn id(&self) -> &str {
        &self.settings.id
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Time for the next question, where one has to wait.
    pub fn due(&self) -> Option<Instant> {
        self.not_before
    }

    pub fn may_send(&self) -> bool {
        self.failure.is_none()
    }

    pub fn adds_implicitly(&self) -> bool {
        self.is_implicit
    }

    /// True if the partition is part of the transaction; else it will be.
    pub fn has(&mut self, partition: (usize, usize)) -> bool {
        if self.is_implicit || self.added.contains(&partition) {
            return true;
        }
        if !self.wanted.contains(&partition) {
            self.wanted.push(partition);
        }
        false
    }

    /// Sequence numbers of a partition can't serve any more.
    pub fn sequence_lost(&mut self) {
        let error = Error::Broker {
            what: "a partition".into(),
            code: Code::OutOfOrderSequenceNumber,
            message: None,
        };
        self.fail(TransactionError::Abortable { error, topic: None });
    }

    /// A batch was refused: some reasons can't pass within the transaction.
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

    /// Tells all who wait for an end that it will not come.
    pub fn give_up_goals(&mut self) {
        let Some(failure) = self.failure.clone() else { return };
        let goal = self.goal.take().map(|goal| match goal {
            Goal::Commit { answer, .. } | Goal::Abort { answer, .. } => answer,
        });
        let later = self.later.drain(..).map(|(_, answer)| answer);
        for answer in goal.into_iter().chain(later).chain(self.beginning.drain(..)) {
            let _ = answer.send(Err(failure.clone()));
        }
    }

    /// The next one is open.
    pub fn begin_next(&mut self, number: u64) {
        self.number = number;
        self.added.clear();
        self.wanted.clear();
        self.is_touched = false;
    }

    pub fn retry(&mut self, settings: &Settings, is_concurrent: bool) {
        let pause = match is_concurrent {
            true => CONCURRENT_PAUSE,
            false => pause(settings, self.failures),
        };
        self.failures += u32::from(!is_concurrent);
        self.not_before = Some(Instant::now() + pause);
    }

    pub fn transactional_id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.settings.id.clone()))
    }

    /// The failure of a question that can't pass by asking again; none where it can.
    pub fn lasting(error: &Error) -> Option<TransactionError> {
        let error = error.clone();
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
