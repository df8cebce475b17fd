//! The transactional producer of a pipeline. There is one at a time per slot, in all processes.
//!
//! Its `transactional.id` is derived from cluster and slot. Beginning a session aborts the open
//! transaction of an earlier producer with that id and fences that producer, in this process or
//! another: brokers accept nothing more from it. From then on a transaction is always open, except
//! during a commit, when nobody sends.
//!
//! # Errors
//! Any failure ends the session. Beginning the next one makes the broker abort the open
//! transaction, and the relay reads its events again from the last position.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{BaseProducer, Producer},
};
use slog::{Logger, info};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{positions::Positions, unavailable::UnavailableTopics};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::Position,
    config::Config,
    faults::{FaultSite, Faults},
    kafka::{
        KafkaObserver,
        errors::{as_relay_error, code_error, is_consequence, kafka_error},
        limits::BatchLimits,
        producer::KafkaProducer,
        refusals::{Refusals, Suspect},
        reports::Reports,
        transaction_log::Failure,
    },
};

/// Time limit for one call into librdkafka. A call can't be cancelled, and stopping waits for it.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// Pause between checks for the delivery report that says why others failed.
const CAUSE_PAUSE: Duration = Duration::from_millis(5);

/// Pause while the last delivery report is being processed; longer than that takes.
const REPORT_PAUSE: Duration = Duration::from_micros(50);

type Client = BaseProducer<Reports>;

/// The transactional sessions of a pipeline, and the state that outlives each session.
pub(crate) struct Transactions {
    config: Arc<Config>,
    window_bytes: usize,
    pub positions: Arc<Positions>,
    current: Mutex<Option<KafkaProducer>>,
    /// Maximum size of a batch that all topics so far accept.
    batch_size: Mutex<Option<usize>>,
    limits: BatchLimits,
    refusals: Refusals,
    unavailable: UnavailableTopics,
    observer: Arc<dyn KafkaObserver>,
    faults: Faults,
    log: Logger,
}

/// A topic that failed a transaction is tried again after this many `pipeline.restart_backoff_max`:
/// each try may cost a transaction.
const DENIED_PAUSES: u32 = 6;

impl Transactions {
    pub fn new(
        config: &Arc<Config>,
        window_bytes: usize,
        positions: Arc<Positions>,
        observer: Arc<dyn KafkaObserver>,
        faults: Faults,
        log: Logger,
    ) -> Self {
        let patience = config.delivery.transaction_timeout / 2;
        let denied_for = config.pipeline.restart_backoff_max * DENIED_PAUSES;
        Transactions {
            unavailable: UnavailableTopics::new(patience, denied_for),
            config: Arc::clone(config),
            window_bytes,
            positions,
            current: Mutex::default(),
            batch_size: Mutex::default(),
            limits: BatchLimits::default(),
            refusals: Refusals::default(),
            observer,
            faults,
            log,
        }
    }

    /// Fences every earlier producer of this slot, aborts its open transaction, and opens the first
    /// transaction. From then on, only this session can write a newer position.
    pub async fn begin_session(&self, cluster: u64) -> Result<()> {
        let old = self.current().take();
        self.refusals.undone();
        // Dropping it waits for its thread.
        spawn_blocking(move || drop(old));
        let id = format!("factlib-{cluster}-{}", self.config.postgres.slot);
        let producer = self.begin(&id).await?;
        let producer = self.try_suspects(&id, producer).await?;
        let what = || format!("cannot begin transactions as {id}");
        call(&producer, self.config.postgres.connect_timeout, |client| client.begin_transaction())
            .await
            .map_err(|error| failed(ErrorKind::KafkaUnavailable, what(), error))?;
        info!(self.log, "Kafka transactions begin"; "transactional_id" => &id);
        *self.current() = Some(producer);
        Ok(())
    }

    /// Creates a producer with that id and fences all others.
    async fn begin(&self, id: &str) -> Result<KafkaProducer> {
        let batch_size = *self.batch_size.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = KafkaProducer::transactional(
            &self.config.kafka.settings(),
            (id, self.config.delivery.transaction_timeout),
            self.window_bytes,
            batch_size,
            (self.limits.clone(), self.refusals.clone()),
            Arc::clone(&self.observer),
            self.log.clone(),
        )?;
        let what = || format!("cannot begin transactions as {id}");
        let limit = self.config.postgres.connect_timeout;
        call(&producer, limit, |client| client.init_transactions(CALL_LIMIT))
            .await
            .map_err(|error| failed(ErrorKind::KafkaUnavailable, what(), error))?;
        Ok(producer)
    }

    /// True if a batch was refused whose cause the next session will look for.
    pub fn has_suspects(&self) -> bool {
        self.refusals.has_suspects()
    }

    /// Finds the records of refused batches that brokers do not accept, so that the next
    /// transaction leaves them out. Returns the producer to continue with.
    async fn try_suspects(&self, id: &str, producer: KafkaProducer) -> Result<KafkaProducer> {
        let suspects = self.refusals.take_suspects();
        if suspects.is_empty() {
            return Ok(producer);
        }
        info!(self.log, "trying the records of a refused batch one by one";
            "records" => suspects.len());
        // If that fails, the suspects are forgotten: their topic may be gone and must not hold up
        // the others. Records refused in the next transaction become suspects again.
        let tried = self.try_all(id, producer, &suspects).await;
        // Nothing was left out yet.
        self.refusals.undone();
        tried
    }

    /// Sends the suspects one by one in transactions that are aborted, so no consumer of committed
    /// records sees them.
    async fn try_all(
        &self,
        id: &str,
        mut producer: KafkaProducer,
        suspects: &[Suspect],
    ) -> Result<KafkaProducer> {
        let what = || "cannot try the records of a refused batch".to_owned();
        let failed = |error| failed(ErrorKind::TransactionAborted, what(), error);
        let limit = self.config.delivery.transaction_timeout;
        let mut left = suspects.iter().peekable();
        while left.peek().is_some() {
            call(&producer, limit, |client| client.begin_transaction()).await.map_err(failed)?;
            let mut refused = false;
            while let (false, Some(suspect)) = (refused, left.next()) {
                let tried = timeout(limit, producer.try_suspect(suspect)).await;
                let late = |_| Error::new(ErrorKind::TransactionAborted, what());
                refused = tried.map_err(late)??.is_some();
            }
            if refused {
                // After a refusal librdkafka's sequence numbers have a gap. Beginning with another
                // producer aborts the transaction too.
                let old = std::mem::replace(&mut producer, self.begin(id).await?);
                spawn_blocking(move || drop(old));
            } else {
                let abort = |client: &Client| client.abort_transaction(CALL_LIMIT);
                call(&producer, limit, abort).await.map_err(failed)?;
            }
        }
        Ok(producer)
    }

    /// The producer of the current session.
    pub fn producer(&self) -> Result<KafkaProducer> {
        let what = "the session of Kafka transactions has ended";
        let ended = || Error::new(ErrorKind::TransactionAborted, what);
        self.current().clone().ok_or_else(ended)
    }

    /// Checks that the session's batches are not larger than `bytes`, the topic's limit. If they
    /// are, the session has to end.
    pub fn check_batch_size(
        &self,
        producer: &KafkaProducer,
        topic: &str,
        bytes: usize,
    ) -> Result<()> {
        if bytes >= producer.batch_size() {
            return Ok(());
        }
        let mut size = self.batch_size.lock().unwrap_or_else(PoisonError::into_inner);
        *size = Some(size.map_or(bytes, |size| size.min(bytes)));
        let what =
            format!("topic {topic} takes only batches of {bytes} bytes; the next session's are");
        Err(Error::new(ErrorKind::TransactionAborted, what))
    }

    /// Maximum size of a batch for a topic; `limit` is the topic's own setting, if known.
    pub fn batch_bytes(&self, topic: &str, limit: Option<usize>) -> usize {
        self.limits.of(topic, limit)
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

    /// Finds the cause of a failure; the errors of the records that were dropped with it don't have
    /// it. If a topic is the cause, the next transaction leaves that topic out.
    pub async fn find_cause(&self, error: Error) -> Error {
        let Some(producer) = self.current().clone() else { return error };
        let began = Instant::now();
        let in_flight = || producer.with_client(|client| client.in_flight_count()) > 0;
        while producer.cause().is_none() && in_flight() && began.elapsed() < CALL_LIMIT {
            sleep(CAUSE_PAUSE).await;
        }
        let error = producer.cause().unwrap_or(error);
        if let Some((code, _)) = producer.client().fatal_error()
            && is_fenced(code)
        {
            return Error::new(ErrorKind::TransactionAborted, FENCED).caused_by(error);
        }
        let Failure { reason, denied } = producer.client().context().transaction_failure();
        if let Some(topic) = denied {
            let what = format!("the user may not write to topic {topic}");
            let denial = code_error(what, Code::TopicAuthorizationFailed);
            if topic == self.positions.topic() {
                return as_relay_error(denial);
            }
            self.unavailable.deny(&topic, denial.clone());
            let what = "the Kafka transaction was aborted and is repeated without a topic";
            return Error::new(ErrorKind::TransactionAborted, what).caused_by(denial);
        }
        match reason {
            Some(reason) if is_consequence(&error) => {
                let what = "the Kafka transaction was aborted and is repeated";
                Error::new(ErrorKind::TransactionAborted, what).caused_by(reason)
            }
            _ => error,
        }
    }

    /// Writes the position into the transaction, commits both, and opens the next one.
    ///
    /// Call it only when all records sent have been acknowledged.
    pub async fn commit(&self, position: &Position) -> Result<()> {
        let producer = self.producer()?;
        let began = Instant::now();
        let record = self.positions.record(position)?;
        self.faults.reach(FaultSite::BeforePosition);
        producer.send_position(self.positions.topic(), &record).await?;
        self.faults.reach(FaultSite::BeforeCommit);
        let what = || format!("the Kafka transaction up to {} failed", position.checkpoint.lsn);
        // Wait for unavailable brokers until they have aborted the transaction themselves.
        let limit = self.config.delivery.transaction_timeout * 2;
        call(&producer, limit, commit)
            .await
            .map_err(|error| failed(ErrorKind::TransactionAborted, what(), error))?;
        self.faults.reach(FaultSite::AfterCommit);
        self.refusals.committed();
        self.observer.transaction_committed(began.elapsed());
        let what = "cannot begin a Kafka transaction".to_owned();
        call(&producer, limit, |client| client.begin_transaction())
            .await
            .map_err(|error| failed(ErrorKind::TransactionAborted, what, error))
    }

    fn current(&self) -> MutexGuard<'_, Option<KafkaProducer>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls into librdkafka on a blocking thread, and repeats the call while its error is retriable.
async fn call(
    producer: &KafkaProducer,
    limit: Duration,
    what: impl Fn(&Client) -> Result<(), KafkaError> + Clone + Send + 'static,
) -> Result<(), KafkaError> {
    let began = Instant::now();
    loop {
        let (producer, what) = (producer.clone(), what.clone());
        let called = spawn_blocking(move || producer.with_client(what)).await;
        let result = called.unwrap_or_else(|_| Err(KafkaError::Canceled));
        match &result {
            Err(error) if may_pass(error) && began.elapsed() < limit => {}
            _ => return result,
        }
    }
}

fn commit(client: &Client) -> Result<(), KafkaError> {
    // rust-rdkafka waits for reports in steps of 100 ms. All have arrived, but the last one may
    // still be in processing on its thread.
    let began = Instant::now();
    while client.in_flight_count() > 0 && began.elapsed() < CALL_LIMIT {
        std::thread::sleep(REPORT_PAUSE);
    }
    client.commit_transaction(CALL_LIMIT)
}

fn may_pass(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => {
            error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort()
        }
        KafkaError::Flush(code) => *code == Code::OperationTimedOut,
        _ => false,
    }
}

/// The meaning of a fenced producer for the operator.
const FENCED: &str = "another instance has taken over this slot, or Kafka gave the transaction up \
                      after delivery.transaction_timeout";

fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// Converts librdkafka's error; a transient one becomes an error of `kind`.
fn failed(kind: ErrorKind, what: String, error: KafkaError) -> Error {
    let refused = |what| Error::new(ErrorKind::KafkaRefused, what);
    match error.rdkafka_error_code() {
        Some(Code::TransactionalIdAuthorizationFailed) => refused(what)
            .caused_by(error)
            .remedy("the user needs the ACLs Describe and Write on that transactional id"),
        Some(Code::UnsupportedFeature | Code::UnsupportedVersion) => {
            refused(what).caused_by(error).remedy(
                "transactions need Kafka 2.5 or newer; or set delivery.mode = \"at-least-once\"",
            )
        }
        Some(code) if is_fenced(code) => {
            Error::new(kind, format!("{what}: {FENCED}")).caused_by(error)
        }
        _ => match kafka_error(what.clone(), error.clone()) {
            passes if passes.is_transient() => Error::new(kind, what).caused_by(error),
            other => other,
        },
    }
}
