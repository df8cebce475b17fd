//! The transactions of a pipeline. There is one transactional producer at a time per slot, in all
//! processes.
//!
//! Its `transactional.id` is derived from cluster and slot. Beginning a session aborts the open
//! transaction of an earlier producer with that id and fences that producer, in this process or
//! another: brokers accept nothing more from it. From then on a transaction is always open; while
//! one is committed, records for the next one are prepared.
//!
//! # Errors
//! Any failure ends the session. Beginning the next one makes the broker abort the open
//! transaction, and the relay reads its events again from the last position. A refused record is
//! no failure: the transaction is committed without it.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use factlib_kafka::{Sealed, TransactionError};
use slog::{Logger, info};
use tokio::time::timeout;

use super::{failure, positions::Positions, unavailable::UnavailableTopics};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::Position,
    config::{Config, ReceiptStore},
    faults::{FaultSite, Faults},
    kafka::{
        KafkaObserver,
        errors::as_relay_error,
        pipelined::{
            ClientThread, PipelinedTopic, SentRecord, SessionFailure, SingleTopic,
            TransactionalClient,
        },
    },
};

/// The transactional sessions of a pipeline, and the state that outlives each session.
pub(crate) struct Transactions {
    config: Arc<Config>,
    pub positions: Arc<Positions>,
    current: Mutex<Option<Arc<Session>>>,
    unavailable: UnavailableTopics,
    thread: ClientThread,
    observer: Arc<dyn KafkaObserver>,
    faults: Faults,
    log: Logger,
}

/// One producer with the slot's `transactional.id`.
pub(crate) struct Session {
    pub client: TransactionalClient,
    /// The topic of receipts; none if none are kept there.
    pub receipts: Option<Arc<PipelinedTopic>>,
    position_topic: SingleTopic,
}

/// A transaction that takes no more records, and its position on the way to Kafka.
pub(crate) struct ClosedTransaction {
    session: Arc<Session>,
    sealed: Sealed,
    position: SentRecord,
    since: Instant,
}

/// A topic that failed a transaction is tried again after this many `pipeline.restart_backoff_max`:
/// each try may cost a transaction.
const DENIED_PAUSES: u32 = 6;

impl Transactions {
    pub fn new(
        config: &Arc<Config>,
        positions: Arc<Positions>,
        thread: ClientThread,
        observer: Arc<dyn KafkaObserver>,
        faults: Faults,
        log: Logger,
    ) -> Self {
        let patience = config.delivery.transaction_timeout / 2;
        let denied_for = config.pipeline.restart_backoff_max * DENIED_PAUSES;
        Transactions {
            unavailable: UnavailableTopics::new(patience, denied_for),
            config: Arc::clone(config),
            positions,
            current: Mutex::default(),
            thread,
            observer,
            faults,
            log,
        }
    }

    /// Fences every earlier producer of this slot, aborts its open transaction, and opens the first
    /// transaction. From then on, only this session can write a newer position.
    pub async fn begin_session(&self, cluster: u64) -> Result<()> {
        drop(self.current().take());
        let id = format!("factlib-{cluster}-{}", self.config.postgres.slot);
        let client = TransactionalClient::start(
            &self.config.kafka.settings(),
            (&id, self.config.delivery.transaction_timeout),
            &self.thread,
            Arc::clone(&self.observer),
            self.faults.clone(),
            self.log.clone(),
        )?;
        let limit = self.config.postgres.connect_timeout;
        let what = || format!("cannot begin transactions as {id}");
        match timeout(limit, client.begin()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(failure::of_session(ErrorKind::KafkaUnavailable, what(), error));
            }
            Err(_) => return Err(failure::too_late(what(), client.last_trouble())),
        }
        let topic = Arc::from(self.positions.topic());
        let position_topic = match timeout(limit, client.open_single(&topic)).await {
            Ok(opened) => opened.map_err(as_relay_error)?,
            Err(_) => {
                return Err(failure::too_late(
                    format!("cannot open topic {topic}"),
                    client.last_trouble(),
                ));
            }
        };
        let receipts = match self.config.receipts.store {
            ReceiptStore::Topic => Some(Arc::new(self.open_receipts(&client).await?)),
            ReceiptStore::Off | ReceiptStore::Table => None,
        };
        info!(self.log, "Kafka transactions begin"; "transactional_id" => &id);
        *self.current() = Some(Arc::new(Session { client, receipts, position_topic }));
        Ok(())
    }

    async fn open_receipts(&self, client: &TransactionalClient) -> Result<PipelinedTopic> {
        let topic = Arc::from(self.config.receipt_topic());
        match timeout(self.config.postgres.connect_timeout, client.open(&topic, None)).await {
            Ok(opened) => opened.map_err(as_relay_error),
            Err(_) => {
                let what = format!("cannot open topic {topic}");
                Err(failure::too_late(what, client.last_trouble()))
            }
        }
    }

    /// The current session.
    pub fn session(&self) -> Result<Arc<Session>> {
        let what = "the session of Kafka transactions has ended";
        let ended = || Error::new(ErrorKind::TransactionAborted, what);
        self.current().clone().ok_or_else(ended)
    }

    /// The reason why a topic may not be in a transaction now; none if it may.
    pub fn denial(&self, topic: &str) -> Option<Error> {
        self.unavailable.denial(topic)
    }

    /// Notes that a topic can't be opened; true if it has been waited for long enough.
    pub fn topic_timed_out(&self, topic: &Arc<str>) -> bool {
        self.unavailable.failed(topic)
    }

    /// Notes that a topic could be opened.
    pub fn opened(&self, topic: &str) {
        self.unavailable.opened(topic);
    }

    /// Waits until the current session has to end, and gives the reason.
    pub fn session_failed(self: &Arc<Self>) -> impl Future<Output = Error> + 'static {
        let (session, this) = (self.session(), Arc::clone(self));
        async move {
            match session {
                Ok(session) => match session.client.failed().await {
                    SessionFailure::Topic(error) => error,
                    SessionFailure::Transaction(error) => this.explain(error),
                },
                Err(error) => error,
            }
        }
    }

    /// Closes the open transaction with its position. Records that are sent from now on belong to
    /// the next one.
    ///
    /// Call it only when all records of the transaction have been acknowledged or refused, and the
    /// dead letters of the refused ones acknowledged.
    pub fn close(&self, position: &Position) -> Result<ClosedTransaction> {
        let (session, since) = (self.session()?, Instant::now());
        let record = self.positions.record(position)?;
        self.faults.reach(FaultSite::BeforePosition);
        let position = session.position_topic.send(record, self.positions.describe_record())?;
        let sealed = session.client.seal();
        Ok(ClosedTransaction { session, sealed, position, since })
    }

    /// Commits a transaction together with its position.
    pub async fn commit(&self, transaction: ClosedTransaction) -> Result<()> {
        let ClosedTransaction { session, sealed, position, since } = transaction;
        // Wait for unavailable brokers until they have aborted the transaction themselves.
        let limit = self.config.delivery.transaction_timeout * 2;
        let committing = async {
            tokio::select! {
                acknowledged = position.acknowledged() => {
                    acknowledged.map_err(as_relay_error)?;
                }
                // The session says why.
                SessionFailure::Transaction(error) = session.client.failed() => {
                    return Err(self.explain(error));
                }
            }
            self.faults.reach(FaultSite::BeforeCommit);
            session.client.commit(sealed).await.map_err(|error| self.explain(error))
        };
        let late = |_| {
            let what = "the Kafka transaction could not be committed in time".to_owned();
            failure::too_late(what, session.client.last_trouble())
        };
        timeout(limit, committing).await.unwrap_or_else(|error| Err(late(error)))?;
        self.faults.reach(FaultSite::AfterCommit);
        self.observer.transaction_committed(since.elapsed());
        Ok(())
    }

    /// Says for the operator why a transaction can't be committed. If a topic is the cause, the
    /// next transaction leaves that topic out.
    fn explain(&self, error: TransactionError) -> Error {
        let Some((topic, denial)) = failure::denial(&error) else {
            let what = "the Kafka transaction was aborted and is repeated".to_owned();
            return failure::of_session(ErrorKind::TransactionAborted, what, error);
        };
        if *topic == *self.positions.topic() {
            return as_relay_error(denial);
        }
        self.unavailable.deny(&topic, denial.clone());
        let what = "the Kafka transaction was aborted and is repeated without a topic";
        Error::new(ErrorKind::TransactionAborted, what).caused_by(denial)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
