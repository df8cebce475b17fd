//! Runs a fake broker inside this process, for real clients to connect to.

use factlib::{Result, testing::fake_broker::FakeCluster};

/// Partitions per topic; more than one, so that order depends on the key.
pub const PARTITIONS: i32 = 4;

/// Bytes that a partition keeps, as the demo may run for days.
const RETAINED_BYTES: &str = "4000000";

/// Id of the only broker.
const BROKER_ID: i32 = 1;

/// One fake broker.
pub struct Broker {
    cluster: FakeCluster,
    pub is_up: bool,
}

impl Broker {
    /// Starts a broker with these topics.
    pub async fn start(topics: &[String]) -> Result<Self> {
        let cluster = FakeCluster::start().await?;
        for topic in topics {
            let settings = [("retention.bytes", RETAINED_BYTES)];
            cluster.create_topic_with(topic, PARTITIONS, &settings)?;
        }
        Ok(Broker { cluster, is_up: true })
    }

    /// Address of the broker, `host:port`.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap()
    }

    /// Stops the broker, or starts it again with its records.
    pub async fn set_up(&mut self, up: bool) -> Result<()> {
        self.is_up = up;
        match up {
            true => Ok(self.cluster.broker_up(BROKER_ID).await?),
            false => {
                self.cluster.broker_down(BROKER_ID).await;
                Ok(())
            }
        }
    }
}
