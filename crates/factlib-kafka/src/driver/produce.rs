//! Sending batches, and what becomes of them.

use std::collections::HashMap;

use kafka_protocol::{
    messages::{
        ProduceRequest, ProduceResponse, TransactionalId,
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Arc, Done, Driver, Duration, Error, Instant, Link, Result, Sent, Token, pause,
    topics::{Request, Terms},
    transaction::CONCURRENT_PAUSE,
};
use crate::{
    answers::{Judged, judge},
    error::Code,
    partition::{Answer, Event},
    producer::{AnsweredRequest, SentRequest},
    topic::Refusal,
};

/// Requests on their way to a broker at most: enough to keep a far one busy.
pub(super) const MAX_REQUESTS: usize = 5;

/// Bytes of records in a request at most, but for a single batch; brokers take 100 MiB.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// The newest version that names topics by their names.
const PRODUCE_VERSION: i16 = 12;

/// The newest version for which partitions have to be added to a transaction before.
const PRODUCE_VERSION_ADDED: i16 = 11;

impl Driver {
    /// Sends what can be sent.
    pub(super) fn send(&mut self) {
        let ids: Vec<i32> = self.brokers.keys().copied().collect();
        for id in ids {
            while self.send_to(id) {}
        }
    }

    /// Sends one request to a broker; false where there is nothing to send, or no way.
    fn send_to(&mut self, id: i32) -> bool {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        let is_throttled = broker.throttled_until.is_some_and(|until| now < until);
        if broker.active.is_empty() || broker.requests >= MAX_REQUESTS || is_throttled {
            return false;
        }
        let Some(identity) = self.identity else { return false };
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.may_send()) {
            return false;
        }
        let Some(connection) = self.link(id) else { return false };
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        let terms = Terms {
            identity,
            fresh_from: self.fresh_from,
            settings: &self.settings,
            now,
            transaction: self.transaction.as_ref().map_or(0, |transaction| transaction.number()),
            is_transactional: self.transaction.is_some(),
        };
        let mut request = Request::default();
        for _ in 0..broker.active.len() {
            let Some((topic, place)) = broker.active.pop_front() else { break };
            let state = &mut self.topics[topic];
            let is_closed = state.is_closed();
            let Some(partition) = state.partitions.get_mut(place) else { continue };
            // What is for the next transaction is listed again when this one has ended.
            let handle = state.topic.as_ref();
            let has_some = !partition.queue.is_empty()
                || handle.is_some_and(|handle| handle.0.has_some(place, terms.transaction));
            // It is listed again once the transaction has it.
            let mut is_out = || self.transaction.as_mut().is_some_and(|t| !t.has((topic, place)));
            if is_closed || !has_some || is_out() {
                partition.is_listed = false;
                continue;
            }
            let is_done =
                partition.next(&terms, state.topic.as_ref(), (topic, place), &mut request);
            match is_done {
                true => partition.is_listed = false,
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
        let said = SentRequest { partitions: request.sent.len(), bytes: request.bytes };
        let (topics, sent) = request.finish(&self.topics);
        let transactional_id = self.transaction.as_mut().map(|transaction| {
            transaction.is_touched = true;
            TransactionalId(StrBytes::from_string(transaction.id().to_owned()))
        });
        let version = match &self.transaction {
            Some(transaction) if !transaction.adds_implicitly() => PRODUCE_VERSION_ADDED,
            _ => PRODUCE_VERSION,
        };
        let produce = ProduceRequest::default()
            .with_transactional_id(transactional_id)
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(limit).unwrap_or(i32::MAX))
            .with_topic_data(topics);
        broker.requests += 1;
        self.observer.sent(&connection.address, &said);
        let pending = connection.send(&produce, version);
        self.tasks.push(Box::pin(async move {
            let answer = match pending {
                Ok(pending) => pending.wait().await,
                Err(error) => Err(error),
            };
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
        let throttle_ms = answer.as_ref().map_or(0, |answer| answer.throttle_time_ms);
        let throttled = Duration::from_millis(throttle_ms.max(0) as u64);
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.requests -= 1;
            if !throttled.is_zero() {
                broker.throttled_until = Some(Instant::now() + throttled);
            }
            if answer.is_err() && matches!(&broker.link, Link::Up(link) if link.is_closed()) {
                broker.link = Link::Down { not_before: None };
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
            let judged = answers.get(&(&*name, partition as i32)).map(|answer| judge(answer));
            let judged = judged.unwrap_or(Judged {
                answer: Answer::Unknown,
                refusal: None,
                of_records: Vec::new(),
                is_misplaced: true,
            });
            self.answered(topic, partition, token, judged);
        }
    }

    fn answered(&mut self, topic: usize, place: usize, token: Token, judged: Judged) {
        let Judged { answer, refusal, of_records, is_misplaced } = judged;
        let state = &mut self.topics[topic];
        let name = Arc::clone(&state.name);
        let Some(partition) = state.partitions.get_mut(place) else { return };
        let is_concurrent =
            refusal.as_ref().is_some_and(|refusal| refusal.code == Code::ConcurrentTransactions);
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
            // It goes again at once, without what was refused.
            Answer::Refused(_) | Answer::TooLarge | Answer::SequenceLost => {}
            Answer::NotNow if is_concurrent => {
                partition.not_before = Some(Instant::now() + CONCURRENT_PAUSE);
            }
            Answer::NotNow | Answer::Unknown => {
                state.failing += usize::from(partition.failures == 0);
                let pause = pause(&self.settings, partition.failures);
                partition.failures += 1;
                partition.not_before = Some(Instant::now() + pause);
            }
        }
        if let Some(refusal) = refusal.filter(|_| !is_concurrent) {
            if !matches!(answer, Answer::Refused(_) | Answer::TooLarge | Answer::Acknowledged) {
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
        let refused = events.iter().filter(|event| matches!(event, Event::Refused(_))).count();
        // The named ones end in their order; else the words are those of the batch.
        let are_named = refused == of_records.len();
        let mut of_records = of_records.into_iter();
        for event in events {
            match event {
                Event::Acknowledged(batch) => batch.receipts.acknowledged(),
                Event::Refused(batch) | Event::TooLarge(batch) => {
                    let own = of_records.next().filter(|_| are_named);
                    let refusal = own.or_else(|| partition.last_refusal.clone());
                    let unknown = Refusal { code: Code::InvalidRecord, message: None };
                    batch.receipts.refused(&refusal.unwrap_or(unknown));
                }
            }
        }
        // A single record that is too large says nothing of batches.
        if is_too_large
            && !partition.queue.is_empty()
            && let Some(handle) = &state.topic
        {
            handle.0.shrink_batches();
        }
        if is_misplaced {
            self.refresh_metadata();
        }
        self.list(topic, place);
        self.end_closed(topic);
    }
}

type Answers<'a> = HashMap<(&'a str, i32), &'a PartitionProduceResponse>;

fn by_partition(response: &ProduceResponse) -> Answers<'_> {
    let all = response.responses.iter().flat_map(|topic| {
        let name: &str = &topic.name;
        topic.partition_responses.iter().map(move |partition| ((name, partition.index), partition))
    });
    all.collect()
}
