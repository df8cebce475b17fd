//! Sends Produce requests and handles their responses.

use std::collections::HashMap;

use kafka_protocol::{
    messages::{
        ProduceRequest, ProduceResponse, TransactionalId,
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Arc, Done, Driver, Duration, Error, Instant, Result, Sent, Token, Transaction,
    cluster::Throttle,
    pause,
    topics::{Request, SendContext},
    transaction::Ending,
};
use crate::{
    answers::{BatchResult, read_response},
    error::Code,
    partition::{Answer, Event},
    producer::{AnsweredRequest, SentRequest},
    receipt::Refusal,
};

/// Maximum requests in flight to a broker: enough to keep a distant broker busy.
pub(super) const MAX_REQUESTS: usize = 5;

/// Request size from which no more batches are added; brokers accept 100 MiB.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// Newest version that identifies topics by name.
const PRODUCE_VERSION: i16 = 12;

/// Newest version for a producer that adds partitions to the transaction itself.
const PRODUCE_VERSION_EXPLICIT: i16 = 11;

impl Driver {
    /// Sends all batches that may be sent now.
    pub(super) fn send(&mut self) {
        let ids: Vec<i32> = self.brokers.keys().copied().collect();
        for id in ids {
            while self.send_to(id) {}
        }
    }

    /// Sends one request to a broker; returns false if no request could be sent.
    fn send_to(&mut self, id: i32) -> bool {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        if let Some(throttle) = broker.throttle.as_mut().filter(|throttle| now < throttle.until) {
            let is_waiting = !broker.active.is_empty() || broker.requests > 0;
            if is_waiting && throttle.is_to_be_reported(now) {
                let address = format!("{}:{}", broker.host, broker.port).into();
                self.observer.trouble(None, &Error::Throttled { address });
            }
            return false;
        }
        // A second request would only wait for the end of the throttle.
        let most = if broker.throttle.is_some() { 1 } else { MAX_REQUESTS };
        // A commit waits for its last records.
        let is_committing = self.transaction.as_ref().is_some_and(Transaction::is_committing);
        let is_early = broker.requests > 0 && now < broker.pace.next() && !is_committing;
        if broker.active.is_empty() || broker.requests >= most || is_early {
            return false;
        }
        let Some(identity) = self.identity else { return false };
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.may_send()) {
            return false;
        }
        let is_waiting = |(topic, place): &(usize, usize)| {
            let partition = self.topics[*topic].partitions.get(*place);
            partition.is_some_and(|p| p.not_before.is_some_and(|at| now < at))
        };
        if broker.active.iter().all(is_waiting) {
            return false;
        }
        let Some(connection) = self.connection_to(id) else { return false };
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        let open_transaction = self.transaction.as_ref().map_or(u64::MAX, Transaction::number);
        let mut context = SendContext {
            identity,
            fresh_from: self.fresh_from,
            settings: &self.settings,
            now,
            last_round: open_transaction,
            is_transactional: self.transaction.is_some(),
        };
        let mut request = Request::default();
        for _ in 0..broker.active.len() {
            let Some((topic, place)) = broker.active.pop_front() else { break };
            let state = &mut self.topics[topic];
            let is_closed = state.is_closed();
            context.last_round = state.last_round(open_transaction);
            let Some(partition) = state.partitions.get_mut(place) else { continue };
            // Partitions with records only for the next transaction or round are enqueued when this
            // one has ended.
            let handle = state.topic.as_ref();
            let has_records = !partition.queue.is_empty()
                || handle.is_some_and(|handle| handle.0.has_records(place, context.last_round));
            // The partition is enqueued again once it is part of the transaction.
            let mut is_out = || self.transaction.as_mut().is_some_and(|t| !t.has((topic, place)));
            if is_closed || !has_records || is_out() {
                partition.is_enqueued = false;
                continue;
            }
            let is_done =
                partition.next(&context, state.topic.as_ref(), (topic, place), &mut request);
            match is_done {
                true => partition.is_enqueued = false,
                false => broker.active.push_back((topic, place)),
            }
            if request.bytes >= MAX_REQUEST_BYTES {
                break;
            }
        }
        if request.needs_producer_id {
            match &mut self.transaction {
                None => self.fresh_from = identity.serial + 1,
                Some(transaction) => transaction.sequence_lost(),
            }
        }
        if request.sent.is_empty() {
            return false;
        }
        let limit = (self.settings.request_timeout / 2).as_millis();
        let records = request.records;
        let said = SentRequest { partitions: request.sent.len(), bytes: request.bytes };
        let (topics, sent) = request.finish(&self.topics);
        let transactional_id = self.transaction.as_mut().map(|transaction| {
            transaction.is_started = true;
            TransactionalId(StrBytes::from_string(transaction.id().to_owned()))
        });
        let version = match &self.transaction {
            Some(transaction) if !transaction.brokers_add_partitions => PRODUCE_VERSION_EXPLICIT,
            _ => PRODUCE_VERSION,
        };
        let produce = ProduceRequest::default()
            .with_transactional_id(transactional_id)
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(limit).unwrap_or(i32::MAX))
            .with_topic_data(topics);
        broker.requests += 1;
        broker.pace.sent(now, records, said.bytes);
        self.observer.sent(&connection.address, &said);
        let pending = connection.send(&produce, version);
        let mute = connection.mute.clone();
        self.tasks.push(Box::pin(async move {
            let answer = match pending {
                Ok(pending) => pending.wait().await,
                Err(error) => Err(error),
            };
            if let Ok(answer) = &answer {
                mute.extend(throttle_of(answer));
            }
            Done::Produced { broker: id, sent, at: now, answer }
        }));
        true
    }

    pub(super) fn produced(
        &mut self,
        id: i32,
        sent: Vec<Sent>,
        at: Instant,
        answer: Result<ProduceResponse>,
    ) {
        let throttled = answer.as_ref().map_or(Duration::ZERO, throttle_of);
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.requests -= 1;
            if answer.is_ok() {
                broker.throttle = (!throttled.is_zero()).then(|| Throttle::new(throttled));
            }
            if answer.is_err() {
                broker.notice_end();
            }
            let address = format!("{}:{}", broker.host, broker.port);
            let said = AnsweredRequest { took: at.elapsed(), is_lost: answer.is_err(), throttled };
            self.observer.answered(&address, &said);
        }
        let answers = match &answer {
            Ok(response) => by_partition(response),
            Err(error) => {
                self.observer.trouble(None, error);
                self.refresh_metadata();
                HashMap::new()
            }
        };
        for Sent { topic, partition, token } in sent {
            let name = Arc::clone(&self.topics[topic].name);
            let result =
                answers.get(&(&*name, partition as i32)).map(|answer| read_response(answer));
            let result = result.unwrap_or(BatchResult {
                answer: Answer::Unknown,
                base_offset: None,
                refusal: None,
                record_refusals: Vec::new(),
                leader_may_have_moved: true,
            });
            self.answered(topic, partition, token, result);
        }
    }

    fn answered(&mut self, topic: usize, place: usize, token: Token, mut result: BatchResult) {
        let state = &mut self.topics[topic];
        let name = Arc::clone(&state.name);
        let Some(partition) = state.partitions.get_mut(place) else { return };
        if let Some(batch) = partition.queue.batch(token) {
            result.stop_for(batch);
            batch.base_offset = result.base_offset;
        }
        let BatchResult { answer, refusal, record_refusals, leader_may_have_moved, .. } = result;
        let is_concurrent =
            refusal.as_ref().is_some_and(|refusal| refusal.code == Code::ConcurrentTransactions);
        let mut is_reported = true;
        if !is_concurrent {
            partition.ending = Ending::default();
        }
        match &answer {
            Answer::Acknowledged => {
                if partition.failures > 0 {
                    state.failing = state.failing.saturating_sub(1);
                    if state.failing == 0 && !state.is_missing {
                        self.observer.recovered(&name);
                    }
                }
                (partition.failures, partition.not_before) = (0, None);
            }
            // The queue sends the rest of the batch again at once.
            Answer::Refused(_)
            | Answer::Stopped { .. }
            | Answer::TooLarge
            | Answer::SequenceLost => {}
            Answer::NotNow if is_concurrent => {
                let pause;
                (pause, is_reported) = partition.ending.awaited(&self.settings);
                partition.not_before = Some(Instant::now() + pause);
            }
            Answer::NotNow | Answer::Unknown => {
                state.failing += usize::from(partition.failures == 0);
                let pause = pause(&self.settings, partition.failures);
                partition.failures += 1;
                partition.not_before = Some(Instant::now() + pause);
            }
        }
        if let Some(refusal) = refusal.filter(|_| is_reported) {
            let is_of_record = matches!(
                answer,
                Answer::Refused(_)
                    | Answer::Stopped { .. }
                    | Answer::TooLarge
                    | Answer::Acknowledged
            );
            if !is_of_record {
                let error = Error::Broker {
                    what: format!("partition {place} of topic {name}"),
                    code: refusal.code,
                    message: refusal.message.clone(),
                };
                if let Some(transaction) = &mut self.transaction {
                    transaction.refused(&name, &error, refusal.code);
                }
                self.observer.trouble(Some(&name), &error);
            }
            partition.last_refusal = Some(refusal);
        }
        let is_too_large = answer == Answer::TooLarge;
        let events = partition.queue.answered(token, answer);
        let is_stopped = partition.queue.is_stopped();
        if is_stopped {
            // Before the receipts are told, so that nothing is pushed any more once they are.
            state.stop();
        }
        let Some(partition) = state.partitions.get_mut(place) else { return };
        let refused = events.iter().filter(|event| matches!(event, Event::Refused(_))).count();
        // Refused records end in the order in which the broker named them. If the numbers differ,
        // every record gets the message of the batch.
        let are_named = refused == record_refusals.len();
        let mut record_refusals = record_refusals.into_iter();
        for event in events {
            match event {
                Event::Acknowledged(batch) => {
                    batch.receipts.acknowledged(place as i32, batch.base_offset);
                }
                Event::Refused(batch) | Event::TooLarge(batch) => {
                    let own = record_refusals.next().filter(|_| are_named);
                    let own = own.map(|(_, refusal)| refusal);
                    let refusal = own.or_else(|| partition.last_refusal.clone());
                    let unknown = Refusal { code: Code::InvalidRecord, message: None };
                    batch.receipts.refused(&refusal.unwrap_or(unknown));
                }
                Event::NotSent(batch) => batch.receipts.not_sent(),
            }
        }
        if is_stopped && let Some(handle) = &state.topic {
            handle.0.take_all(place).iter().for_each(|pending| pending.receipts.not_sent());
        }
        // A single record that is too large does not mean that batches are too large.
        if is_too_large
            && !partition.queue.is_empty()
            && let Some(handle) = &state.topic
        {
            handle.0.shrink_batches();
        }
        if leader_may_have_moved {
            self.refresh_metadata();
        }
        self.enqueue_partition(topic, place);
        self.end_closed(topic);
    }
}

/// Returns the time for which the broker throttles the client.
fn throttle_of(response: &ProduceResponse) -> Duration {
    Duration::from_millis(response.throttle_time_ms.max(0) as u64)
}

type Answers<'a> = HashMap<(&'a str, i32), &'a PartitionProduceResponse>;

fn by_partition(response: &ProduceResponse) -> Answers<'_> {
    let all = response.responses.iter().flat_map(|topic| {
        let name: &str = &topic.name;
        topic.partition_responses.iter().map(move |partition| ((name, partition.index), partition))
    });
    all.collect()
}
