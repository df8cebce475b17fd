//! Describes consumer groups.

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, describe_groups_response::DescribedGroup,
};
use tokio::time::{Instant, sleep};

use super::{Client, Code, Error, Lease, Result, check, text};
use crate::{
    coordinator_key::CoordinatorKey,
    group::{PROTOCOL_TYPE, envelope},
};

const DESCRIBE_VERSION: i16 = 6;

/// State of a group that does not exist.
const DEAD: &str = "Dead";

/// A consumer group and its members.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// State in Kafka's words: `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty` (no
    /// members), or `Dead` (no such group).
    pub state: String,
    /// Protocol type of the members, such as `consumer`; empty for a group that is dead.
    pub protocol_type: String,
    /// The members. Brokers may tell their metadata and assignments only in the state `Stable`.
    pub members: Vec<GroupMemberDescription>,
}

/// A member of a consumer group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupMemberDescription {
    /// Id that the coordinator gave to the member.
    pub id: String,
    /// Client id of the member's requests.
    pub client_id: String,
    /// Address of the member's host, as the coordinator sees it, such as `/10.0.0.7`.
    pub host: String,
    /// The member's metadata of the last round.
    pub metadata: Bytes,
    /// The member's assignment of the last round.
    pub assignment: Bytes,
}

impl Client {
    /// Describes a consumer group of the classic protocol. A group that does not exist has the state
    /// `Dead`. Retries for up to [`Settings::request_timeout`](crate::Settings) while the group's
    /// coordinator moves.
    ///
    /// # Errors
    /// Returns the broker's error. The user needs the right `Describe` on the group.
    pub async fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        let deadline = Instant::now() + self.settings.request_timeout;
        loop {
            let failed = match self.describe_group_once(name).await {
                Ok(group) => return Ok(GroupDescription::of(group)),
                Err(error) if error.code() == Some(Code::GroupIdNotFound) => {
                    return Ok(GroupDescription {
                        state: DEAD.into(),
                        protocol_type: String::new(),
                        members: Vec::new(),
                    });
                }
                Err(error) => error,
            };
            let passes = match &failed {
                Error::Broker { code, .. } => matches!(
                    code,
                    Code::NotCoordinator
                        | Code::CoordinatorNotAvailable
                        | Code::CoordinatorLoadInProgress
                ),
                Error::Connection { .. } | Error::TimedOut { .. } | Error::HungUp { .. } => true,
                _ => false,
            };
            if !passes || Instant::now() + self.settings.backoff > deadline {
                return Err(failed);
            }
            self.give_up_broker().await;
            sleep(self.settings.backoff).await;
        }
    }

    async fn describe_group_once(&self, name: &str) -> Result<DescribedGroup> {
        let key = CoordinatorKey::Group(name);
        let found = self.request_any_broker(&key.request(), CoordinatorKey::VERSION).await?;
        let (host, port) = key.address(&found)?;
        let connection = Lease::take(&self.settings, &host, port).await?;
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
        let answer = connection.call(&request, DESCRIBE_VERSION).await?;
        let group = answer.groups.into_iter().next().ok_or_else(|| Error::Protocol {
            address: connection.address.clone(),
            what: format!("the response lacks the group {name}"),
        })?;
        check(group.error_code, group.error_message.as_deref(), || {
            format!("cannot describe the group {name}")
        })?;
        Ok(group)
    }
}

impl GroupDescription {
    fn of(group: DescribedGroup) -> Self {
        let is_ours = group.protocol_type.as_str() == PROTOCOL_TYPE;
        let members = group.members.into_iter().map(|member| {
            let metadata = member.member_metadata;
            GroupMemberDescription {
                id: member.member_id.to_string(),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                metadata: if is_ours { envelope::unpack(&metadata).0 } else { metadata },
                assignment: member.member_assignment,
            }
        });
        GroupDescription {
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
            members: members.collect(),
        }
    }
}
