//! Runs librdkafka's mock broker inside this process, for real clients to connect to.

use factlib::{Error, ErrorKind, Result};
use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// Partitions per topic; more than one, so that order depends on the key.
pub const PARTITIONS: i32 = 4;

/// One mock broker.
pub struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    pub is_up: bool,
}

/// Id of the only broker.
const BROKER_ID: i32 = 1;

impl Broker {
    /// Starts a broker with these topics, since the mock has no request to create one.
    pub fn start(topics: &[String]) -> Result<Self> {
        let cluster = MockCluster::new(1).map_err(failed)?;
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(Broker { cluster, is_up: true })
    }

    /// Address of the broker, `host:port`.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Stops the broker, or starts it again with its records.
    pub fn set_up(&mut self, up: bool) -> Result<()> {
        let result = match up {
            true => self.cluster.broker_up(BROKER_ID),
            false => self.cluster.broker_down(BROKER_ID),
        };
        self.is_up = up;
        result.map_err(failed)
    }
}

fn failed(error: KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "the mock broker failed").caused_by(error)
}
