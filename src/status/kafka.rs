//! Takes the reports of the pipeline's Kafka clients.

use std::time::Duration;

use super::Status;
use crate::kafka::{KafkaObserver, KafkaStatus};

impl KafkaObserver for Status {
    fn kafka_trouble(&self, error: String) -> bool {
        Status::kafka_trouble(self, error)
    }

    fn kafka_client(&self, name: String, status: KafkaStatus) {
        Status::kafka_client(self, name, status);
    }

    fn kafka_client_ended(&self, name: &str) {
        Status::kafka_client_ended(self, name);
    }

    #[cfg(feature = "client-kafka")]
    fn partitions(&self, topic: &str, count: usize, log: &slog::Logger) {
        Status::partitions(self, topic, count, log);
    }

    fn transaction_committed(&self, took: Duration) {
        Status::transaction_committed(self, took);
    }
}

impl Status {
    /// Notes an error of the Kafka client. Returns true if it is another one than before.
    pub fn kafka_trouble(&self, error: String) -> bool {
        self.failed("kafka", &error);
        let is_news = self.locked().kafka_error.replace(error.clone()) != Some(error);
        self.change_all(|_| {});
        is_news
    }

    pub fn kafka_client(&self, name: String, tells: KafkaStatus) {
        self.locked().kafka_clients.insert(name, tells);
    }

    pub fn kafka_client_ended(&self, name: &str) {
        self.locked().kafka_clients.remove(name);
    }
}
