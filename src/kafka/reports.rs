//! Handles librdkafka's callbacks: delivery reports, errors and statistics.

use std::sync::{Arc, OnceLock};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};
use slog::{Logger, debug, warn};
use tokio::sync::watch;

use super::{
    KafkaObserver,
    complaints::Complaints,
    disconnects::{Disconnect, Protocol},
    librdkafka_errors::client_error,
    pending_batch::Sent,
    statistics::{self, Statistics},
};
use crate::Error;

/// Receives librdkafka's reports, on a thread of the client's.
pub(crate) struct Reports {
    last: watch::Sender<Option<Trouble>>,
    /// The client's name; known with its first statistics.
    name: OnceLock<String>,
    protocol: Protocol,
    complaints: Complaints,
    observer: Arc<dyn KafkaObserver>,
    pub(super) log: Logger,
}

/// The last error that librdkafka reported on its own.
#[derive(Clone)]
pub(crate) struct Trouble {
    error: KafkaError,
    reason: String,
    /// A remedy, where the reason alone does not tell it.
    remedy: Option<&'static str>,
}

impl Trouble {
    /// Makes the error `what` with this trouble as its cause.
    pub fn into_error(self, what: String) -> Error {
        let error = client_error(what, self.error, &self.reason);
        match self.remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// The remedy, where one is known.
    fn advice(&self) -> Option<String> {
        self.clone().into_error(String::new()).advice().map(str::to_owned)
    }
}

impl Reports {
    /// Reports of a client with these settings.
    pub fn new(settings: &ClientConfig, observer: Arc<dyn KafkaObserver>, log: Logger) -> Self {
        Reports::of(Protocol::of(settings), observer, log)
    }

    fn of(protocol: Protocol, observer: Arc<dyn KafkaObserver>, log: Logger) -> Self {
        Reports {
            last: watch::Sender::default(),
            name: OnceLock::new(),
            protocol,
            complaints: Complaints::default(),
            observer,
            log,
        }
    }

    /// Those of another client in this one's place.
    pub fn renewed(&self) -> Self {
        Reports::of(self.protocol, Arc::clone(&self.observer), self.log.clone())
    }

    /// The last complaint.
    pub fn trouble(&self) -> Option<Trouble> {
        self.last.borrow().clone()
    }

    fn complain(&self, trouble: Trouble) {
        let advice = trouble.advice();
        // It goes on trying, and complains each time.
        if self.complaints.is_news(&trouble.reason) {
            warn!(self.log, "Kafka client reports trouble"; "error" => %trouble.error,
                "reason" => &trouble.reason, "remedy" => &advice);
        }
        self.observer.kafka_trouble(match advice {
            Some(advice) => format!("{} ({advice})", trouble.reason),
            None => trouble.reason.clone(),
        });
        self.last.send_replace(Some(trouble));
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(self.log, "librdkafka"; "level" => ?level, "facility" => facility, "text" => message);
        if facility == "FAIL"
            && let Some(Disconnect { reason, remedy }) = self.protocol.explain(message)
        {
            let error = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
            self.complain(Trouble { error, reason, remedy: Some(remedy) });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Where a reader asked to be told, that is no trouble.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        // Whose record it gave up for is said with that, and who needs another client asks.
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::GaplessGuarantee)) {
            debug!(self.log, "Kafka client gives up"; "reason" => reason);
            return;
        }
        // "All brokers are down" comes after the error that says why.
        let consequence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if consequence && self.trouble().is_some() {
            return;
        }
        self.complain(Trouble { error, reason: reason.to_owned(), remedy: None });
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match statistics::parse(statistics) {
            Ok(Statistics { name, status, partitions }) => {
                self.name.get_or_init(|| name.clone());
                self.observer.kafka_client(name, status);
                for (topic, count) in partitions {
                    self.observer.partitions_grew(&topic, count, &self.log);
                }
            }
            Err(error) => debug!(self.log, "statistics can't be read"; "error" => %error),
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        if let Some(name) = self.name.get() {
            self.observer.kafka_client_ended(name);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        match result {
            Ok(record) if record.offset() >= 0 => sent.delivered(record.partition()),
            // librdkafka infers that it was written, and no broker has said so: what
            // may be missing is sent again.
            Ok(_) => sent.failed(KafkaError::MessageProduction(RDKafkaErrorCode::Inconsistent)),
            Err((error, _)) => sent.failed(error.clone()),
        }
    }
}
