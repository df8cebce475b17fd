//! A broker inside this process: librdkafka's mock, to which real clients connect.

use factlib::{Error, ErrorKind, Result};
use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// More than one, so that order is kept by key and not by chance.
pub const PARTITIONS: i32 = 4;

/// One mock broker.
pub struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    pub is_up: bool,
}

/// Its number.
const ID: i32 = 1;

impl Broker {
    /// A broker with these topics: the mock has no request that creates one.
    pub fn start(topics: &[String]) -> Result<Self> {
        let cluster = MockCluster::new(1).map_err(failed)?;
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(Broker { cluster, is_up: true })
    }

    /// `host:port`.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Stops it, or starts it again with all that it has.
    pub fn set_up(&mut self, up: bool) -> Result<()> {
        let done = if up { self.cluster.broker_up(ID) } else { self.cluster.broker_down(ID) };
        self.is_up = up;
        done.map_err(failed)
    }
}

fn failed(error: KafkaError) -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "the mock broker failed").caused_by(error)
}
