//! Requests to the transaction coordinator: get a producer id, add partitions to the open
//! transaction, and commit or abort it.
//!
//! Only one request at a time is sent to the coordinator. Without KIP-890 (`transaction.version`
//! 2, Kafka 4.0 or later), the producer adds a partition before sending its first record, and
//! keeps its epoch. With KIP-890, the brokers add partitions themselves, and each commit or abort
//! assigns a new epoch.

use kafka_protocol::{
    messages::{
        AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProducerId,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
    },
    protocol::Request,
};

use super::{
    Answer, Arc, Done, Driver, Duration, Error, Identity, Instant, Lease, Result, TransactionError,
    topic_name,
    transaction::{Coordinator, Ending, Goal, LAST_ABORT_LIMIT, Transaction},
};
use crate::{
    broker_pool::BrokerPool,
    coordinator_key::CoordinatorKey,
    error::{Code, check},
};

/// Newest versions for a producer that adds partitions itself.
const ADD_PARTITIONS_VERSION: i16 = 3;
const END_TXN_VERSION_EXPLICIT: i16 = 4;

/// First version with which a producer begins again after an abort (Kafka 2.5, KIP-360).
const MIN_INIT_VERSION: i16 = 3;

/// Minimum `transaction.version` at which brokers add partitions themselves.
const IMPLICIT_LEVEL: i16 = 2;

/// Result of a request to the coordinator.
pub(super) struct CoordinatorResponse {
    /// The broker for the next request; none after an error.
    coordinator: Option<Coordinator>,
    outcome: Outcome,
}

enum Outcome {
    Initialized(Result<(i64, i16)>),
    Added(Vec<(usize, usize)>, Result<Vec<(usize, usize, Option<Code>)>>),
    /// Includes producer id and epoch for the next transaction, if the coordinator assigned them.
    Ended(Result<Option<(i64, i16)>>),
}

impl Driver {
    pub(super) fn begin(&mut self, answer: Answer) {
        let Some(transaction) = &mut self.transaction else { return };
        match (&transaction.failure, self.identity) {
            (Some(failure), _) => drop(answer.send(Err(failure.clone()))),
            (None, Some(_)) => drop(answer.send(Ok(()))),
            (None, None) => transaction.beginning.push(answer),
        }
        self.identity_schedule.hurry(Duration::ZERO);
    }

    pub(super) fn commit(&mut self, number: u64, answer: Answer) {
        let Some(transaction) = &mut self.transaction else { return };
        match transaction.goal {
            None => transaction.goal = Some(Goal::Commit { number, answer }),
            Some(_) => transaction.later_commits.push_back((number, answer)),
        }
    }

    pub(super) fn abort(&mut self, answer: Answer) {
        let Some(transaction) = &mut self.transaction else { return };
        match &transaction.failure {
            Some(error @ (TransactionError::Fenced(_) | TransactionError::Refused(_))) => {
                let _ = answer.send(Err(error.clone()));
            }
            _ => {
                // The failure stops all sending for this transaction.
                let error = Error::Ended;
                transaction
                    .failure
                    .get_or_insert(TransactionError::Abortable { error, topic: None });
                transaction.fail_waiting_callers();
                transaction.goal = Some(Goal::Abort { answer, is_ended: false });
            }
        }
    }

    /// Aborts the open transaction after all handles were dropped: readers of committed records
    /// would otherwise wait for it until it times out.
    pub(super) fn abort_at_the_end(&mut self) {
        let (answer, _) = tokio::sync::oneshot::channel();
        self.abort(answer);
        if let Some(transaction) = &mut self.transaction {
            transaction.ends_at = Some(Instant::now() + LAST_ABORT_LIMIT);
        }
    }

    /// Sends the next request to the coordinator, if one is due.
    pub(super) fn advance_transaction(&mut self) {
        let now = Instant::now();
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.is_requesting || transaction.not_before.is_some_and(|at| now < at) {
            return;
        }
        transaction.not_before = None;
        match &transaction.goal {
            Some(Goal::Abort { .. }) => self.advance_abort(),
            _ if transaction.failure.is_some() => transaction.fail_waiting_callers(),
            _ if self.identity.is_none() => self.initialize(None),
            _ if !transaction.wanted.is_empty() => self.add_partitions(),
            Some(Goal::Commit { number, .. }) => {
                let number = *number;
                self.advance_commit(number);
            }
            None => {}
        }
    }

    fn advance_commit(&mut self, number: u64) {
        let is_at_rest = self.is_at_rest();
        let Some(transaction) = &mut self.transaction else { return };
        // A transaction before the open one is already committed.
        if number < transaction.number {
            self.notify_committed();
        } else if is_at_rest {
            match transaction.is_started {
                true => self.end(true),
                false => self.handle_committed(None),
            }
        }
    }

    fn advance_abort(&mut self) {
        let is_quiet = self.topics.iter().all(|topic| topic.in_flight() == 0);
        let identity = self.identity;
        let Some(transaction) = &mut self.transaction else { return };
        let Some(Goal::Abort { is_ended, .. }) = &mut transaction.goal else { return };
        if !is_quiet {
            return;
        }
        if transaction.is_started && !*is_ended && identity.is_some() {
            self.end(false);
        } else {
            *is_ended = true;
            self.initialize(identity);
        }
    }

    /// Requests a producer id and epoch; after an abort, the next epoch of this producer id.
    fn initialize(&mut self, of: Option<Identity>) {
        let Some(transaction) = &self.transaction else { return };
        let (id, epoch) = of.map_or((-1, -1), |of| (of.producer_id, of.epoch));
        let timeout_ms = transaction.settings.timeout.as_millis();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transaction.transactional_id()))
            .with_transaction_timeout_ms(i32::try_from(timeout_ms).unwrap_or(i32::MAX))
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch);
        self.request_coordinator(request, 5, move |answer| {
            Outcome::Initialized(answer.and_then(|answer| {
                check(answer.error_code, None, || "cannot begin transactions".into())?;
                Ok((answer.producer_id.0, answer.producer_epoch))
            }))
        });
    }

    fn add_partitions(&mut self) {
        let Some(identity) = self.identity else { return };
        let Some(transaction) = &mut self.transaction else { return };
        let wanted = std::mem::take(&mut transaction.wanted);
        let mut topics: Vec<(usize, AddPartitionsToTxnTopic)> = Vec::new();
        for (topic, place) in &wanted {
            let known = topics.iter_mut().find(|(known, _)| known == topic);
            match known {
                Some((_, known)) => known.partitions.push(*place as i32),
                None => {
                    let new = AddPartitionsToTxnTopic::default()
                        .with_name(topic_name(&self.topics[*topic].name))
                        .with_partitions(vec![*place as i32]);
                    topics.push((*topic, new));
                }
            }
        }
        let places: Vec<_> =
            topics.iter().map(|(place, topic)| (topic.name.clone(), *place)).collect();
        transaction.is_started = true;
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transaction.transactional_id())
            .with_v3_and_below_producer_id(ProducerId(identity.producer_id))
            .with_v3_and_below_producer_epoch(identity.epoch)
            .with_v3_and_below_topics(topics.into_iter().map(|(_, topic)| topic).collect());
        self.request_coordinator(request, ADD_PARTITIONS_VERSION, move |answer| {
            let results = answer.map(|answer| {
                let topics = answer.results_by_topic_v3_and_below.into_iter();
                topics
                    .flat_map(|topic| {
                        let place = places.iter().find(|(name, _)| *name == topic.name);
                        let place = place.map_or(usize::MAX, |(_, place)| *place);
                        topic.results_by_partition.into_iter().map(move |result| {
                            let code = result.partition_error_code;
                            let code = kafka_protocol::error::ParseResponseErrorCode::err(code);
                            (place, result.partition_index as usize, code)
                        })
                    })
                    .collect()
            });
            Outcome::Added(wanted, results)
        });
    }

    fn end(&mut self, is_committed: bool) {
        let Some(identity) = self.identity else { return };
        let Some(transaction) = &self.transaction else { return };
        let brokers_add_partitions = transaction.brokers_add_partitions;
        let request = EndTxnRequest::default()
            .with_transactional_id(transaction.transactional_id())
            .with_producer_id(ProducerId(identity.producer_id))
            .with_producer_epoch(identity.epoch)
            .with_committed(is_committed);
        let max_version = if brokers_add_partitions { 5 } else { END_TXN_VERSION_EXPLICIT };
        self.request_coordinator(request, max_version, move |answer| {
            Outcome::Ended(answer.and_then(|answer| {
                let what = if is_committed { "commit" } else { "abort" };
                check(answer.error_code, None, || format!("cannot {what} the transaction"))?;
                let next = (answer.producer_id.0, answer.producer_epoch);
                Ok(brokers_add_partitions.then_some(next).filter(|(id, _)| *id >= 0))
            }))
        });
    }

    fn request_coordinator<R: Request + Send + Sync + 'static>(
        &mut self,
        request: R,
        max_version: i16,
        outcome: impl FnOnce(Result<R::Response>) -> Outcome + Send + 'static,
    ) where
        R::Response: Send,
    {
        let brokers = self.broker_pool();
        let Some(transaction) = &mut self.transaction else { return };
        transaction.is_requesting = true;
        let known = transaction.coordinator.take();
        let id = transaction.settings.id.clone();
        self.tasks.push(Box::pin(async move {
            let exchange = async {
                let known = match known {
                    Some(Coordinator { host, port, .. }) => {
                        Lease::take(&brokers.settings, &host, port).await.ok()
                    }
                    None => None,
                };
                let connection = match known {
                    Some(connection) => connection,
                    None => find_coordinator(brokers, &id).await?,
                };
                let answer = connection.call(&request, max_version).await?;
                let (host, port) = connection.host_and_port();
                let transaction_version = connection.feature("transaction.version");
                Ok((Coordinator { host, port, transaction_version }, answer))
            };
            Done::Coordinator(match exchange.await {
                Ok((coordinator, answer)) => CoordinatorResponse {
                    coordinator: Some(coordinator),
                    outcome: outcome(Ok(answer)),
                },
                Err(error) => {
                    CoordinatorResponse { coordinator: None, outcome: outcome(Err(error)) }
                }
            })
        }));
    }

    pub(super) fn handle_coordinator_response(
        &mut self,
        CoordinatorResponse { coordinator, outcome }: CoordinatorResponse,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.is_requesting = false;
        transaction.coordinator = coordinator;
        match outcome {
            Outcome::Initialized(Ok((producer_id, epoch))) => self.initialized(producer_id, epoch),
            Outcome::Added(wanted, Ok(results)) => self.partitions_added(wanted, results),
            Outcome::Ended(Ok(next)) => {
                (transaction.failures, transaction.ending) = (0, Ending::default());
                match &mut transaction.goal {
                    Some(Goal::Abort { is_ended, .. }) => {
                        *is_ended = true;
                        if let Some((producer_id, epoch)) = next {
                            self.set_identity(producer_id, epoch);
                        }
                    }
                    _ => self.handle_committed(next),
                }
            }
            Outcome::Initialized(Err(error)) | Outcome::Ended(Err(error)) => {
                self.handle_coordinator_error(error);
            }
            Outcome::Added(wanted, Err(error)) => {
                transaction.wanted.extend(wanted);
                self.handle_coordinator_error(error);
            }
        }
    }

    fn handle_coordinator_error(&mut self, error: Error) {
        let Some(transaction) = &mut self.transaction else { return };
        let code = error.code();
        if matches!(code, Some(Code::NotCoordinator | Code::CoordinatorNotAvailable)) {
            transaction.coordinator = None;
        }
        let is_undone = matches!(transaction.goal, Some(Goal::Abort { is_ended: false, .. }));
        let Some(failure) = Transaction::permanent_failure(&error) else {
            if transaction.retry(&self.settings, &error) {
                self.observer.trouble(None, &transaction.with_coordinator(error));
            }
            return;
        };
        if let (Some(Goal::Abort { is_ended, .. }), true, TransactionError::Abortable { .. }) =
            (&mut transaction.goal, is_undone, &failure)
        {
            // The coordinator has no transaction left to abort.
            *is_ended = true;
            return;
        }
        transaction.failed.send_replace(Some(failure.clone()));
        transaction.failure = Some(failure);
        transaction.fail_waiting_callers();
    }

    /// Handles the first producer id, or the next epoch after an abort.
    fn initialized(&mut self, producer_id: i64, epoch: i16) {
        self.set_identity(producer_id, epoch);
        let number = self.announced.transaction.load(std::sync::atomic::Ordering::Acquire);
        let Some(transaction) = &mut self.transaction else { return };
        let level = transaction.coordinator.as_ref();
        let level = level.map_or(0, |coordinator| coordinator.transaction_version);
        transaction.brokers_add_partitions = level >= IMPLICIT_LEVEL;
        (transaction.failures, transaction.ending) = (0, Ending::default());
        for answer in transaction.beginning.drain(..) {
            let _ = answer.send(Ok(()));
        }
        if let Some(Goal::Abort { answer, .. }) = transaction.goal.take() {
            transaction.begin_next(number);
            transaction.failure = None;
            transaction.failed.send_replace(None);
            for topic in &mut self.topics {
                topic.clear(true);
                topic.failing = 0;
            }
            let _ = answer.send(Ok(()));
        }
        self.enqueue_filled_partitions();
    }

    fn partitions_added(
        &mut self,
        wanted: Vec<(usize, usize)>,
        results: Vec<(usize, usize, Option<Code>)>,
    ) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.failures = 0;
        let mut failed = None;
        for (topic, place) in wanted {
            let result = results.iter().find(|(t, p, _)| (*t, *p) == (topic, place));
            let name = Arc::clone(&self.topics[topic].name);
            let code = match result {
                Some((_, _, None)) => {
                    transaction.added.insert((topic, place));
                    continue;
                }
                Some((_, _, Some(code))) => *code,
                None => Code::UnknownServerError,
            };
            transaction.wanted.push((topic, place));
            let error = Error::Broker {
                what: format!("partition {place} of topic {name} in the transaction"),
                code,
                message: None,
            };
            if let Some(mut failure) = Transaction::permanent_failure(&error) {
                if let TransactionError::Abortable { topic, .. } = &mut failure
                    && code == Code::TopicAuthorizationFailed
                {
                    *topic = Some(Arc::clone(&name));
                }
                transaction.fail(failure);
                self.observer.trouble(Some(&name), &error);
            } else if code != Code::OperationNotAttempted || failed.is_none() {
                // Report the error that stopped the other partitions.
                failed = Some((name, error));
            }
        }
        if let Some((name, error)) = failed {
            let code = error.code();
            if matches!(code, Some(Code::NotCoordinator | Code::CoordinatorNotAvailable)) {
                transaction.coordinator = None;
            }
            if transaction.retry(&self.settings, &error) {
                self.observer.trouble(Some(&name), &transaction.with_coordinator(error));
            }
        } else {
            transaction.ending = Ending::default();
        }
        self.enqueue_filled_partitions();
        let topics: Vec<_> =
            self.transaction.iter().flat_map(|t| t.added.iter().copied()).collect();
        for (topic, place) in topics {
            if !self.topics[topic].partitions.get(place).is_none_or(|p| p.queue.is_empty()) {
                self.enqueue_partition(topic, place);
            }
        }
    }

    /// Opens the next transaction after a commit.
    fn handle_committed(&mut self, next: Option<(i64, i16)>) {
        if let Some((producer_id, epoch)) = next {
            self.set_identity(producer_id, epoch);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.begin_next(transaction.number + 1);
        }
        self.notify_committed();
        self.enqueue_filled_partitions();
    }

    /// Notifies the callers whose transactions are committed.
    fn notify_committed(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        let is_over = |goal: &mut Goal| matches!(goal, Goal::Commit { number, .. } if *number < transaction.number);
        while let Some(Goal::Commit { answer, .. }) = transaction.goal.take_if(is_over) {
            let _ = answer.send(Ok(()));
            let later = transaction.later_commits.pop_front();
            transaction.goal = later.map(|(number, answer)| Goal::Commit { number, answer });
        }
    }
}

/// Connects to the coordinator of a transactional id.
async fn find_coordinator(brokers: BrokerPool, id: &str) -> Result<Lease> {
    let settings = Arc::clone(&brokers.settings);
    let key = CoordinatorKey::TransactionalId(id);
    let (_, answer) = brokers.request(&key.request(), CoordinatorKey::VERSION).await?;
    let (host, port) = key.address(&answer)?;
    let coordinator = Lease::take(&settings, &host, port).await?;
    coordinator.require::<InitProducerIdRequest>(MIN_INIT_VERSION)?;
    Ok(coordinator)
}
