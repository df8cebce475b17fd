//! Transactions: records of many topics that readers of committed records see together, or not
//! at all.
//!
//! # Life
//! [`TransactionalProducer::begin`] shuts out every earlier producer of the transactional id and
//! has the brokers undo what it left open. From then on a transaction is always open; records are
//! part of the one that is open when they are pushed. [`seal`](TransactionalProducer::seal) ends
//! it for new records, and [`commit`](TransactionalProducer::commit) waits until all of its
//! records have ended and has the brokers commit it. Records of the next one are taken meanwhile,
//! and go out when the commit has ended.
//!
//! # Failure
//! What passes is tried again. A [`TransactionError`] means that the transaction can't be
//! committed any more: [`abort`](TransactionalProducer::abort) undoes it, with all that was
//! pushed since, and begins anew.

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

/// The reason why a transaction can't be committed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Another producer of the transactional id has begun, or the brokers gave the transaction up
    /// after its time-out. Of a commit, nobody knows whether it was done.
    #[error("another producer has this transactional id, or the transaction timed out: {0}")]
    Fenced(Error),
    /// The transaction has to be undone; after that, the next one may do.
    #[error("the transaction has to be undone: {error}")]
    Abortable {
        /// The broker's error.
        error: Error,
        /// The topic that it is about, if it is about one: lacking rights, such as.
        topic: Option<Arc<str>>,
    },
    /// The brokers do not let this user have transactions, or are too old for them.
    #[error("transactions are refused: {0}")]
    Refused(Error),
    /// The driver is gone.
    #[error("the client has ended")]
    Ended,
}

/// A transaction that takes no new records but those that are pushed
/// [for it](Topic::begin_in).
#[derive(Debug)]
#[must_use = "it is not committed"]
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
    /// `transactional.id`: one producer at a time has it.
    pub id: String,
    /// The brokers give up a transaction that is open for longer (`transaction.timeout.ms`).
    pub timeout: Duration,
}

/// A producer whose records are in transactions; clones are the same one. When all of them and
/// all [`Topic`]s are gone it ends at once: what was not committed is undone by the brokers.
#[derive(Clone)]
pub struct TransactionalProducer {
    commands: mpsc::UnboundedSender<Command>,
    transaction: Arc<AtomicU64>,
    failed: watch::Receiver<Option<TransactionError>>,
}

impl TransactionalProducer {
    /// A producer, and the task that does its work, which somebody has to spawn on a runtime of
    /// tokio.
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

    /// Shuts out every earlier producer of the transactional id, and waits until the brokers have
    /// ended what it left open. Waits for brokers that are away. Has to be called first.
    ///
    /// # Errors
    /// [`TransactionError::Refused`].
    pub async fn begin(&self) -> Result<(), TransactionError> {
        self.ask(|answer| Command::Begin { answer }).await
    }

    /// Looks a topic up, which has to be there; see [`Producer::topic`](crate::Producer::topic).
    ///
    /// # Errors
    /// The brokers' error for the topic.
    pub async fn topic(&self, name: impl Into<Arc<str>>) -> Result<Topic> {
        open_topic(&self.commands, name.into()).await
    }

    /// Ends the open transaction for new records: those that are pushed from now on are part of
    /// the next one.
    pub fn seal(&self) -> Sealed {
        Sealed::sealing(&self.transaction)
    }

    /// Commits a transaction once all its records have ended, after all before it. One without a
    /// record that was acknowledged costs nothing.
    ///
    /// # Errors
    /// It can't be committed; see [`TransactionError`]. Call [`abort`](Self::abort) then.
    pub async fn commit(&self, sealed: Sealed) -> Result<(), TransactionError> {
        self.ask(|answer| Command::Commit { number: sealed.0, answer }).await
    }

    /// Undoes all that is not committed, also what was pushed for the next transaction, and
    /// begins anew. Receipts of these records are dropped.
    ///
    /// # Errors
    /// [`TransactionError::Fenced`] and [`TransactionError::Refused`]: the producer can do
    /// nothing more.
    pub async fn abort(&self) -> Result<(), TransactionError> {
        self.ask(|answer| Command::Abort { answer }).await
    }

    /// Waits until the open transaction can't be committed any more.
    pub async fn failed(&self) -> TransactionError {
        let mut failed = self.failed.clone();
        let failed = failed.wait_for(Option::is_some).await;
        failed.ok().and_then(|error| error.clone()).unwrap_or(TransactionError::Ended)
    }

    async fn ask(
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
