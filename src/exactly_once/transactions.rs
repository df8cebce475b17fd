//! The transactional producer: one at a time for a slot, whoever runs it.
//!
//! Its `transactional.id` is made of cluster and slot. To begin a session ends what an
//! earlier producer of that id left open and shuts it out, in this process or in another
//! one: a broker takes nothing from it any more. From then on there is always an open
//! transaction, but while one is committed, when nobody sends.
//!
//! # Errors
//! A session in which anything failed is given up: the next one has the broker undo what
//! was not committed, and the relay reads it again from the last position.

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

/// Of one call into librdkafka: it can't be called off, and stopping waits for it.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// Pause between two looks for a report that says why others failed.
const CAUSE_PAUSE: Duration = Duration::from_millis(5);

/// What a report's end takes, and more.
const REPORT_PAUSE: Duration = Duration::from_micros(50);

type Client = BaseProducer<Reports>;

/// The sessions of a pipeline, and what they must remember of each other.
pub(crate) struct Transactions {
    config: Arc<Config>,
    window_bytes: usize,
    pub positions: Arc<Positions>,
    current: Mutex<Option<KafkaProducer>>,
    /// The most bytes of one batch that all topics so far take.
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

    /// Shuts out every earlier producer of this slot, ends what it left open, and opens the
    /// first transaction. What is then the newest position stays it until ours.
    pub async fn begin_session(&self, cluster: u64) -> Result<()> {
        let old = self.current().take();
        self.refusals.undone();
        // Its end waits for its thread.
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

    /// A producer of that id, the only one from now on.
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

    /// True where a batch was refused of which the next session will find the cause.
    pub fn has_suspects(&self) -> bool {
        self.refusals.has_suspects()
    }

    /// Finds out which records of refused batches no broker takes: the next transaction leaves
    /// these out. Gives the producer that goes on.
    async fn try_suspects(&self, id: &str, producer: KafkaProducer) -> Result<KafkaProducer> {
        let suspects = self.refusals.take_suspects();
        if suspects.is_empty() {
            return Ok(producer);
        }
        info!(self.log, "trying the records of a refused batch one by one";
            "records" => suspects.len());
        // Where that fails they are forgotten: their topic may be gone, and must not hold up the
        // others. What is refused with the next transaction is suspect again.
        let tried = self.try_all(id, producer, &suspects).await;
        // Nothing was left out yet.
        self.refusals.undone();
        tried
    }

    /// Sends them one by one, in transactions that are undone: no consumer of committed records
    /// sees them.
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
                // librdkafka does not count well after a refusal: the broker would miss a record.
                // Another producer's beginning ends the transaction as well.
                let old = std::mem::replace(&mut producer, self.begin(id).await?);
                spawn_blocking(move || drop(old));
            } else {
                let abort = |client: &Client| client.abort_transaction(CALL_LIMIT);
                call(&producer, limit, abort).await.map_err(failed)?;
            }
        }
        Ok(producer)
    }

    /// The producer of the present session.
    pub fn producer(&self) -> Result<KafkaProducer> {
        let what = "the session of Kafka transactions has ended";
        let ended = || Error::new(ErrorKind::TransactionAborted, what);
        self.current().clone().ok_or_else(ended)
    }

    /// A topic takes batches of at most `bytes`: a session whose are larger has to end.
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

    /// The most bytes of a batch for a topic that says to take `told`; none where it is not told.
    pub fn batch_bytes(&self, topic: &str, told: Option<usize>) -> usize {
        self.limits.of(topic, told)
    }

    /// The reason why a topic may not be in a transaction now; none if it may.
    pub fn denial(&self, topic: &str) -> Option<Error> {
        self.unavailable.denial(topic)
    }

    /// Notes that a topic can't be opened; true if it is not waited for any longer.
    pub fn topic_timed_out(&self, topic: &Arc<str>) -> bool {
        self.unavailable.failed(topic)
    }

    /// Notes that a topic could be opened.
    pub fn opened(&self, topic: &str) {
        self.unavailable.opened(topic);
    }

    /// Finds the cause of a failure, which records that are given up for it do not have. If a topic
    /// is the cause, the next transaction leaves it out.
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
            let what = "the Kafka transaction is undone, and done again without a topic";
            return Error::new(ErrorKind::TransactionAborted, what).caused_by(denial);
        }
        match reason {
            Some(reason) if is_consequence(&error) => {
                let what = "the Kafka transaction is undone, and done again";
                Error::new(ErrorKind::TransactionAborted, what).caused_by(reason)
            }
            _ => error,
        }
    }

    /// Writes the position into the transaction, commits both, and opens the next one.
    ///
    /// Call it only when all that was sent has been acknowledged.
    pub async fn commit(&self, position: &Position) -> Result<()> {
        let producer = self.producer()?;
        let began = Instant::now();
        let record = self.positions.record(position)?;
        self.faults.reach(FaultSite::BeforePosition);
        producer.send_position(self.positions.topic(), &record).await?;
        self.faults.reach(FaultSite::BeforeCommit);
        let what = || format!("the Kafka transaction up to {} failed", position.checkpoint.lsn);
        // Brokers that are away are waited for until they have given the transaction up.
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

/// Calls into librdkafka, which blocks, again while its error says that it may pass.
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
    // rust-rdkafka waits for reports in steps of 100 ms. All have come; the last one may still
    // be in the hands of the thread that brought it.
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

/// What that means here.
const FENCED: &str = "another instance has taken over this slot, or Kafka gave the transaction up \
                      after delivery.transaction_timeout";

fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// What passes becomes an error of `kind`.
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
