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
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{BaseProducer, Producer},
};
use slog::{Logger, info};
use tokio::task::spawn_blocking;

use super::{
    errors::{code_error, is_consequence, kafka_error, of_the_whole},
    positions::Positions,
    producer::KafkaProducer,
    reports::Reports,
    transaction_log::Failure,
    unavailable::UnavailableTopics,
};
use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    checkpoint::Position,
    config::Config,
    faults::{FaultSite, Faults},
    status::Status,
};

/// Of one call into librdkafka: it can't be called off, and stopping waits for it.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// What a report's end takes, and more.
const REPORT_PAUSE: Duration = Duration::from_micros(50);

type Client = BaseProducer<Reports>;

/// The sessions of a pipeline, and what they must remember of each other.
pub(crate) struct Transactions {
    config: Arc<Config>,
    window_bytes: usize,
    pub positions: Arc<Positions>,
    present: Mutex<Option<KafkaProducer>>,
    /// The most bytes of one batch that all topics so far take.
    batch_size: Mutex<Option<usize>>,
    refusals: Refusals,
    unavailable: UnavailableTopics,
    status: Arc<Status>,
    faults: Faults,
    log: Logger,
}

/// After a transaction failed for a topic, so many of the longest pauses pass before the next one
/// may: each try costs a transaction.
const DENIED_PAUSES: u32 = 6;

/// Events that a broker refused for good, by the topic that they were for: a transaction in
/// which one was refused can't be committed, and the next one leaves it out.
#[derive(Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Refused>>);

/// By topic, position and event id.
type Refused = HashMap<(Arc<str>, Lsn, String), Refusal>;

struct Refusal {
    error: Error,
    /// The open transaction leaves the event out.
    heeded: bool,
}

impl Refusals {
    pub fn note(&self, topic: &Arc<str>, event: &Event, error: &Error) {
        let key = (Arc::clone(topic), event.lsn(), event.id().to_owned());
        self.lock().insert(key, Refusal { error: error.clone(), heeded: false });
    }

    /// What was said of the event, which the open transaction then leaves out.
    pub fn of(&self, topic: &Arc<str>, event: &Event) -> Option<Error> {
        let mut known = self.lock();
        if known.is_empty() {
            return None;
        }
        let refusal = known.get_mut(&(Arc::clone(topic), event.lsn(), event.id().to_owned()))?;
        refusal.heeded = true;
        Some(refusal.error.clone())
    }

    /// What was left out of a transaction that is committed does not come again; other events
    /// may be of a later one.
    fn committed(&self) {
        self.lock().retain(|_, refusal| !refusal.heeded);
    }

    /// What was left out of a transaction that is undone comes again.
    fn undone(&self) {
        self.lock().values_mut().for_each(|refusal| refusal.heeded = false);
    }

    fn lock(&self) -> MutexGuard<'_, Refused> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transactions {
    pub fn new(
        config: &Arc<Config>,
        window_bytes: usize,
        positions: Arc<Positions>,
        status: Arc<Status>,
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
            present: Mutex::default(),
            batch_size: Mutex::default(),
            refusals: Refusals::default(),
            status,
            faults,
            log,
        }
    }

    /// Shuts out every earlier producer of this slot, ends what it left open, and opens the
    /// first transaction. What is then the newest position stays it until ours.
    pub async fn begin_session(&self, cluster: u64) -> Result<()> {
        let old = self.present().take();
        self.refusals.undone();
        // Its end waits for its thread.
        spawn_blocking(move || drop(old));
        let id = format!("factlib-{cluster}-{}", self.config.postgres.slot);
        let batch_size = *self.batch_size.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = KafkaProducer::transactional(
            &self.config,
            &id,
            self.window_bytes,
            batch_size,
            self.refusals.clone(),
            Arc::clone(&self.status),
            self.log.clone(),
        )?;
        let what = || format!("cannot begin transactions as {id}");
        let limit = self.config.postgres.connect_timeout;
        call(&producer, limit, |client| client.init_transactions(CALL_LIMIT))
            .await
            .map_err(|error| failed(ErrorKind::KafkaUnavailable, what(), error))?;
        call(&producer, limit, |client| client.begin_transaction())
            .await
            .map_err(|error| failed(ErrorKind::KafkaUnavailable, what(), error))?;
        info!(self.log, "Kafka transactions begin"; "transactional_id" => &id);
        *self.present() = Some(producer);
        Ok(())
    }

    /// The producer of the present session.
    pub fn producer(&self) -> Result<KafkaProducer> {
        let what = "the session of Kafka transactions has ended";
        let ended = || Error::new(ErrorKind::TransactionAborted, what);
        self.present().clone().ok_or_else(ended)
    }

    /// A topic takes batches of at most `bytes`: a session whose are larger has to end.
    pub fn fit(&self, producer: &KafkaProducer, topic: &str, bytes: usize) -> Result<()> {
        if bytes >= producer.batch_size() {
            return Ok(());
        }
        let mut size = self.batch_size.lock().unwrap_or_else(PoisonError::into_inner);
        *size = Some(size.map_or(bytes, |size| size.min(bytes)));
        let what =
            format!("topic {topic} takes only batches of {bytes} bytes; the next session's are");
        Err(Error::new(ErrorKind::TransactionAborted, what))
    }

    /// Why a topic may not be in a transaction now.
    pub fn denial(&self, topic: &str) -> Option<Error> {
        self.unavailable.denial(topic)
    }

    /// A topic can't be opened; true where it is not waited for any longer.
    pub fn gives_up(&self, topic: &Arc<str>) -> bool {
        self.unavailable.failed(topic)
    }

    /// A topic could be opened.
    pub fn opened(&self, topic: &str) {
        self.unavailable.opened(topic);
    }

    /// What a failure comes from: records that are given up because the transaction has failed
    /// know nothing of it. A topic that it failed for is not in the next one.
    pub fn explain(&self, error: Error) -> Error {
        let Some(producer) = self.present().clone() else { return error };
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
                return of_the_whole(denial);
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
        producer.send_position(&record).await?;
        self.faults.reach(FaultSite::BeforeCommit);
        let what = || format!("the Kafka transaction up to {} failed", position.checkpoint.lsn);
        // Brokers that are away are waited for until they have given the transaction up.
        let limit = self.config.delivery.transaction_timeout * 2;
        call(&producer, limit, commit)
            .await
            .map_err(|error| failed(ErrorKind::TransactionAborted, what(), error))?;
        self.faults.reach(FaultSite::AfterCommit);
        self.refusals.committed();
        self.status.transaction_committed(began.elapsed());
        let what = "cannot begin a Kafka transaction".to_owned();
        call(&producer, limit, |client| client.begin_transaction())
            .await
            .map_err(|error| failed(ErrorKind::TransactionAborted, what, error))
    }

    fn present(&self) -> MutexGuard<'_, Option<KafkaProducer>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::OutboxEvent;

    #[test]
    fn a_refusal_is_known_until_a_transaction_without_the_event_is_committed() {
        let fact = OutboxEvent { aggregate_type: "order".into(), ..OutboxEvent::default() };
        let event = Event::parse(fact.encode_to_vec().into(), Lsn::new(7)).expect("an event");
        let (topic, other): (Arc<str>, Arc<str>) = ("orders".into(), "letters".into());
        let refusals = Refusals::default();
        refusals.note(&topic, &event, &Error::new(ErrorKind::RecordTooLarge, "too large"));
        assert!(refusals.of(&other, &event).is_none());
        // One that did not come as far as the event.
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_some());
        refusals.undone();
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_some());
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_none());
    }
}
