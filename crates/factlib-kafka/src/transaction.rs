//! Transactions: readers of committed records see the records of a transaction, in all topics,
//! together or not at all.
//!
//! # Life
//! [`TransactionalProducer::begin`] fences every earlier producer with the transactional id and
//! makes the brokers abort its open transaction. From then on a transaction is always open; a
//! record belongs to the transaction that is open when the record is pushed.
//! [`seal`](TransactionalProducer::seal) closes the transaction to new records, and
//! [`commit`](TransactionalProducer::commit) waits for the results of all its records and then
//! commits the transaction. Records for the next transaction are accepted meanwhile, and sent
//! after the commit.
//!
//! # Failure
//! Temporary failures are retried. A [`TransactionError`] means that the transaction can no longer
//! be committed: [`abort`](TransactionalProducer::abort) aborts it, drops all records pushed
//! since, and begins a new transaction.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    driver::{Command, Driver},
    error::{Error, Result},
    producer::{Observer, open_topic},
    settings::Settings,
    topic::Topic,
};

/// Reason why a transaction cannot be committed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Another producer with the transactional id has started, or the brokers aborted the
    /// transaction after its time-out. The result of a pending commit is unknown.
    #[error("another producer has this transactional id, or the transaction timed out: {0}")]
    Fenced(Error),
    /// The transaction must be aborted; the next transaction may succeed.
    #[error("the transaction must be aborted: {error}")]
    Abortable {
        /// The broker's error.
        error: Error,
        /// The topic concerned, if the error concerns a topic, for example a missing right.
        topic: Option<Arc<str>>,
    },
    /// The user lacks the right to use transactions, or the brokers are too old.
    #[error("transactions are refused: {0}")]
    Refused(Error),
    /// The driver was dropped.
    #[error("the client has ended")]
    Ended,
}

/// A transaction that is closed to new records, except those pushed with [`Topic::begin_in`].
#[derive(Debug)]
#[must_use = "a sealed transaction has to be committed or aborted"]
pub struct Sealed(u64);

impl Sealed {
    pub(crate) fn sealing(open: &AtomicU64) -> Self {
        Sealed(open.fetch_add(1, Ordering::AcqRel))
    }

    pub(crate) fn number(&self) -> u64 {
        self.0
    }
}

/// Settings of transactions.
#[derive(Clone, Debug)]
pub struct Transactional {
    /// `transactional.id`: only one producer at a time can use the id.
    pub id: String,
    /// Time after which the brokers abort an open transaction (`transaction.timeout.ms`).
    pub timeout: Duration,
}

/// A producer that sends its records in transactions. Clones share one producer. When all clones
/// are dropped, the producer sends nothing more, aborts the open transaction and ends, after two
/// seconds at the latest. If it cannot abort the transaction, the brokers do so when the transaction
/// times out.
#[derive(Clone)]
pub struct TransactionalProducer {
    commands: mpsc::UnboundedSender<Command>,
    transaction: Arc<AtomicU64>,
    failed: watch::Receiver<Option<TransactionError>>,
}

impl TransactionalProducer {
    /// Returns a producer and the task that does its work. Spawn the task on a tokio runtime.
    pub fn new(
        settings: Settings,
        transactional: Transactional,
        observer: Arc<dyn Observer>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let (failing, failed) = watch::channel(None);
        let driver = Driver::new(Arc::new(settings), observer, commanded)
            .in_transactions(transactional, failing);
        let transaction = driver.transaction_number();
        (TransactionalProducer { commands, transaction, failed }, driver.run())
    }

    /// Fences every earlier producer with the transactional id, and waits until the brokers have
    /// ended its open transaction. Waits while brokers are unavailable. Must be called first.
    ///
    /// # Errors
    /// Returns [`TransactionError::Refused`].
    pub async fn begin(&self) -> Result<(), TransactionError> {
        self.execute(|answer| Command::Begin { answer }).await
    }

    /// Looks up an existing topic; see [`Producer::topic`](crate::Producer::topic).
    ///
    /// # Errors
    /// Returns the brokers' error for the topic.
    pub async fn topic(&self, name: impl Into<Arc<str>>) -> Result<Topic> {
        open_topic(&self.commands, name.into()).await
    }

    /// Closes the open transaction to new records. Records pushed from now on belong to the next
    /// transaction.
    pub fn seal(&self) -> Sealed {
        Sealed::sealing(&self.transaction)
    }

    /// Commits a transaction after all earlier ones, once all its records have a result. A
    /// transaction that sent nothing to the brokers needs no request.
    ///
    /// # Errors
    /// Returns a [`TransactionError`] if the transaction cannot be committed. Call
    /// [`abort`](Self::abort) then.
    pub async fn commit(&self, sealed: Sealed) -> Result<(), TransactionError> {
        self.execute(|answer| Command::Commit { number: sealed.0, answer }).await
    }

    /// Aborts everything uncommitted, including records pushed for the next transaction, and
    /// begins a new transaction. Receipts of these records are dropped.
    ///
    /// # Errors
    /// Returns [`TransactionError::Fenced`] or [`TransactionError::Refused`]. The producer is then
    /// unusable.
    pub async fn abort(&self) -> Result<(), TransactionError> {
        self.execute(|answer| Command::Abort { answer }).await
    }

    /// Waits until the open transaction can no longer be committed, and returns the reason.
    pub async fn failed(&self) -> TransactionError {
        let mut failed = self.failed.clone();
        let failed = failed.wait_for(Option::is_some).await;
        failed.ok().and_then(|error| error.clone()).unwrap_or(TransactionError::Ended)
    }

    async fn execute(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), TransactionError>>) -> Command,
    ) -> Result<(), TransactionError> {
        let (answer, answered) = oneshot::channel();
        let ended = |_| TransactionError::Ended;
        self.commands.send(command(answer)).map_err(|_| TransactionError::Ended)?;
        answered.await.map_err(ended)?
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalProducer").finish_non_exhaustive()
    }
}
