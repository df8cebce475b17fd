//! A broker inside this process: librdkafka's mock, to which real clients connect.

use factlib::{Error, ErrorKind, Result};
use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// More than one, so that order is kept by key and not by chance.
pub const PARTITIONS: i32 = 4;

/// One mock broker.
pub struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Broker {
    /// A broker with these topics: the mock has no request that creates one.
    pub fn start(topics: &[String]) -> Result<Self> {
        let cluster = MockCluster::new(1).map_err(failed)?;
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(Broker(cluster))
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }
}

fn failed(error: KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "cannot start the mock broker").caused_by(error)
}
