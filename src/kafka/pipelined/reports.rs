//! What the client reports: log and status, and topics whose records the brokers do not take.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use factlib_kafka::{AnsweredRequest, Code, DrainHold, Observer, SentRequest};
use slog::{Logger, info, warn};
use tokio::{sync::Notify, time::Instant};

use super::errors;
use crate::{
    Error,
    kafka::{BrokerStatus, KafkaObserver, KafkaStatus, complaints::Complaints},
};

/// Time in which a topic's trouble may pass before its batches fail.
const GRACE: Duration = Duration::from_secs(3);

/// The same for a topic that a broker does not know: it may just have been created, or the broker
/// may just have started. Batches that fail then may be sent twice, so it is long.
const UNKNOWN_TOPIC_GRACE: Duration = Duration::from_secs(30);

/// Name under which the status has this client.
const NAME: &str = "pipelined";

/// State of one opening of a topic.
#[derive(Default)]
pub(super) struct TopicState {
    trouble: Mutex<Trouble>,
    pub(super) failed: Notify,
}

#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    error: Option<Error>,
    /// The error of a record behind which nothing may be sent.
    stopped_by: Option<Error>,
}

impl TopicState {
    /// The reason why the topic's batches fail, if they do.
    pub fn error(&self) -> Option<Error> {
        let trouble = self.lock();
        trouble.error.as_ref().or(trouble.stopped_by.as_ref()).cloned()
    }

    /// Takes no more batches, because nothing may be sent behind a record with this error. What
    /// was sent before ends in its own time.
    pub fn stop(&self, error: &Error) {
        self.lock().stopped_by.get_or_insert_with(|| error.clone());
    }

    /// Has the topic's batches fail.
    pub fn fail(&self, error: Error) {
        self.lock().error = Some(error);
        self.failed.notify_one();
    }

    /// Notes trouble, which may pass for a while.
    fn trouble(&self, error: Error, grace: Duration) {
        let mut trouble = self.lock();
        let since = *trouble.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= grace && trouble.error.is_none() {
            drop(trouble);
            self.fail(error);
        }
    }

    fn recovered(&self) {
        self.lock().since = None;
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives the client's reports, on its thread.
pub(super) struct Reports {
    observer: Arc<dyn KafkaObserver>,
    topics: Mutex<HashMap<Arc<str>, Weak<TopicState>>>,
    complaints: Complaints,
    last_trouble: Mutex<Option<factlib_kafka::Error>>,
    brokers: Mutex<Brokers>,
    log: Logger,
}

struct Brokers {
    status: BTreeMap<String, BrokerStatus>,
    /// None where nobody wants statistics.
    interval: Option<Duration>,
    told: Instant,
}

impl Reports {
    pub fn new(observer: Arc<dyn KafkaObserver>, interval: Duration, log: Logger) -> Self {
        let interval = (!interval.is_zero()).then_some(interval);
        Reports {
            observer,
            topics: Mutex::default(),
            complaints: Complaints::default(),
            last_trouble: Mutex::default(),
            brokers: Mutex::new(Brokers {
                status: BTreeMap::new(),
                interval,
                told: Instant::now(),
            }),
            log,
        }
    }

    /// A new opening of the topic.
    pub fn opened(&self, topic: &Arc<str>) -> Arc<TopicState> {
        let state = Arc::new(TopicState::default());
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(Arc::clone(topic), Arc::downgrade(&state));
        state
    }

    /// Has the batches of all open topics fail.
    pub fn fail_all(&self, error: &Error) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = topics.values().filter_map(Weak::upgrade).collect();
        drop(topics);
        open.iter().for_each(|topic| topic.fail(error.clone()));
    }

    /// The last trouble that the client reported.
    pub fn last_trouble(&self) -> Option<factlib_kafka::Error> {
        self.last_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn state(&self, topic: &str) -> Option<Arc<TopicState>> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic)?.upgrade()
    }

    /// Changes the status of a broker, and tells it when it is time to.
    fn broker(&self, name: &str, change: impl FnOnce(&mut BrokerStatus)) {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(interval) = brokers.interval else { return };
        match brokers.status.get_mut(name) {
            Some(status) => change(status),
            None => change(brokers.status.entry(name.to_owned()).or_default()),
        }
        if brokers.told.elapsed() >= interval {
            brokers.told = Instant::now();
            let status = KafkaStatus { brokers: brokers.status.clone() };
            drop(brokers);
            self.observer.kafka_client(NAME.to_owned(), status);
        }
    }
}

impl Observer for Reports {
    fn trouble(&self, topic: Option<&str>, error: &factlib_kafka::Error) {
        *self.last_trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        let text = error.to_string();
        if self.complaints.is_news(&text) {
            match error.code() {
                // Of a broker that has just started.
                Some(Code::CoordinatorLoadInProgress) => {
                    info!(self.log, "Kafka is still starting"; "error" => &text, "topic" => topic);
                }
                _ => {
                    warn!(self.log, "Kafka client reports trouble"; "error" => &text, "topic" => topic);
                }
            }
        }
        let is_unknown_topic =
            matches!(error.code(), Some(Code::UnknownTopicOrPartition | Code::UnknownTopicId));
        let of_topic = topic.and_then(|topic| Some((topic, errors::of_topic(topic, error)?)));
        match of_topic {
            Some((topic, error)) => {
                if let Some(state) = self.state(topic) {
                    let grace = match is_unknown_topic {
                        true => UNKNOWN_TOPIC_GRACE,
                        false => GRACE,
                    };
                    state.trouble(error, grace);
                }
            }
            None => {
                self.observer.kafka_trouble(text);
            }
        }
    }

    fn recovered(&self, topic: &str) {
        if let Some(state) = self.state(topic) {
            state.recovered();
        }
    }

    fn connected(&self, broker: &str) {
        self.broker(broker, |status| status.connected = true);
    }

    fn disconnected(&self, broker: &str, _: Option<&factlib_kafka::Error>) {
        self.broker(broker, |status| {
            status.connected = false;
            status.requests_in_flight = 0;
        });
    }

    fn sent(&self, broker: &str, request: &SentRequest) {
        self.broker(broker, |status| {
            status.requests_in_flight += 1;
            status.sent_bytes += request.bytes as u64;
        });
    }

    fn answered(&self, broker: &str, answer: &AnsweredRequest) {
        self.broker(broker, |status| {
            status.requests_in_flight = status.requests_in_flight.saturating_sub(1);
            match answer.is_lost {
                true => status.send_errors += 1,
                false => status.answered_after(answer.took.as_secs_f64()),
            }
        });
    }

    fn grown(&self, topic: &str, from: usize, to: usize) {
        let refusal = self.observer.partitions_grew(topic, from, to, &self.log);
        if let (Some(error), Some(state)) = (refusal, self.state(topic)) {
            state.stop(&error);
        }
    }

    fn drained(&self, topic: &str, from: usize, to: usize, hold: DrainHold) {
        self.observer.partitions_drained(topic, from, to, hold);
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.observer.kafka_client_ended(NAME);
    }
}

#[cfg(test)]
mod tests {
    use slog::{Discard, o};

    use super::*;
    use crate::{ErrorKind, kafka::unobserved};

    fn denied() -> factlib_kafka::Error {
        factlib_kafka::Error::Broker {
            what: "Produce".into(),
            code: factlib_kafka::Code::TopicAuthorizationFailed,
            message: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_fails_once_its_trouble_has_lasted() {
        let reports = Reports::new(unobserved(), Duration::ZERO, Logger::root(Discard, o!()));
        let state = reports.opened(&"t".into());
        reports.trouble(Some("t"), &denied());
        assert!(state.error().is_none());
        tokio::time::advance(GRACE).await;
        reports.recovered("t");
        reports.trouble(Some("t"), &denied());
        assert!(state.error().is_none(), "the former trouble has passed");
        tokio::time::advance(GRACE).await;
        reports.trouble(Some("t"), &denied());
        let error = state.error().expect("it failed");
        assert_eq!(error.kind(), ErrorKind::TopicUnavailable);
        state.failed.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_of_the_brokers_fails_no_topic() {
        let reports = Reports::new(unobserved(), Duration::ZERO, Logger::root(Discard, o!()));
        let state = reports.opened(&"t".into());
        let away = factlib_kafka::Error::TimedOut { address: "b:1".into(), request: "Produce" };
        for _ in 0..3 {
            reports.trouble(Some("t"), &away);
            tokio::time::advance(GRACE).await;
        }
        assert!(state.error().is_none());
    }
}
