//! Reads what a group's coordinator knows of its members.

use std::time::Duration;

#[cfg(feature = "cli")]
pub(crate) use factlib_kafka::client::GroupMemberDescription as MemberDescription;
use factlib_kafka::{client::GroupDescription, group::PROTOCOL_TYPE};

use super::{KafkaSettings, broker_client::BrokerClient};
use crate::Result;

/// Limit for the question to the coordinator.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct GroupReader(BrokerClient);

impl GroupReader {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a setting that the client does not take.
    pub fn new(settings: &KafkaSettings) -> Result<Self> {
        BrokerClient::new(settings).map(GroupReader)
    }

    /// Describes a group; one without members may as well not exist.
    pub async fn read(&self, group: &str) -> Result<GroupDescription> {
        let what = format!("cannot describe the group {group}");
        self.0.within(LIMIT, what, self.0.client().describe_group(group)).await
    }
}

/// True for a group of another program. One that does not exist has no type.
pub(crate) fn is_foreign(group: &GroupDescription) -> bool {
    !["", PROTOCOL_TYPE].contains(&group.protocol_type.as_str())
}
