//! The requests of a group member to its coordinator.
//!
//! Sources: Kafka's protocol guide, and the broker's `GroupCoordinator` (before 4.0) and
//! `GroupMetadataManager` (4.0). Versions are those of `kafka-protocol`; JoinGroup names the
//! rebalance time-out from version 1 on, so Kafka 0.11 suffices.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol, leave_group_request::MemberIdentity,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use super::{GroupMember, GroupSettings, PROTOCOL_TYPE, envelope};
use crate::{
    connection::Connection,
    error::{Code, Error, Result, check},
};

const JOIN_VERSION: i16 = 9;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 5;

/// First version of LeaveGroup with a list of members.
const LEAVE_VERSION_LIST: i16 = 3;

/// A request that is answered when the whole group has come to a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoundRequest {
    /// Answered when all members have joined.
    Join { id: String, metadata: Bytes },
    /// Answered when the leader has assigned the work. Only the leader sends assignments.
    Sync { id: String, generation: i32, assignments: Vec<(String, Bytes)> },
}

impl RoundRequest {
    /// Returns the result of a request that could not be sent.
    pub fn not_sent(self, error: Error) -> RoundAnswer {
        match self {
            RoundRequest::Join { .. } => RoundAnswer::Joined(Err(error)),
            RoundRequest::Sync { .. } => RoundAnswer::Synced(Err(error)),
        }
    }
}

/// The coordinator's answer to a [`RoundRequest`].
#[derive(Debug)]
pub(super) enum RoundAnswer {
    Joined(Result<Joined>),
    Synced(Result<Bytes>),
}

/// The coordinator's answer to JoinGroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The member is to join with this id (KIP-394).
    IdAssigned(String),
    /// All members have joined. Only the leader receives a list of them.
    Generation { id: String, generation: i32, is_leader: bool, members: Vec<GroupMember> },
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub id: String,
    pub generation: i32,
}

pub(super) async fn send_round(
    connection: &Connection,
    group: &GroupSettings,
    request: RoundRequest,
) -> RoundAnswer {
    match request {
        RoundRequest::Join { id, metadata } => {
            RoundAnswer::Joined(join(connection, group, id, metadata).await)
        }
        RoundRequest::Sync { id, generation, assignments } => {
            RoundAnswer::Synced(sync(connection, group, (id, generation), assignments).await)
        }
    }
}

async fn join(
    connection: &Connection,
    group: &GroupSettings,
    id: String,
    metadata: Bytes,
) -> Result<Joined> {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text(&group.protocol))
        .with_metadata(metadata);
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(milliseconds(group.session_timeout))
        .with_rebalance_timeout_ms(milliseconds(group.rebalance_timeout))
        .with_member_id(StrBytes::from_string(id))
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(vec![protocol]);
    let answer = connection.call(&request, JOIN_VERSION).await?;
    mute(connection, answer.throttle_time_ms);
    let id = answer.member_id.to_string();
    if answer.error_code == Code::MemberIdRequired.code() && !id.is_empty() {
        return Ok(Joined::IdAssigned(id));
    }
    check(answer.error_code, None, || format!("cannot join the group {}", group.group))?;
    let members = answer.members.into_iter().map(|member| {
        let (metadata, assigned) = envelope::unpack(&member.metadata);
        GroupMember { id: member.member_id.to_string(), metadata, assigned }
    });
    Ok(Joined::Generation {
        is_leader: answer.leader == answer.member_id,
        id,
        generation: answer.generation_id,
        members: members.collect(),
    })
}

async fn sync(
    connection: &Connection,
    group: &GroupSettings,
    (id, generation): (String, i32),
    assignments: Vec<(String, Bytes)>,
) -> Result<Bytes> {
    let assignments = assignments.into_iter().map(|(member, assignment)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(StrBytes::from_string(member))
            .with_assignment(assignment)
    });
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(StrBytes::from_string(id))
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(text(&group.protocol)))
        .with_assignments(assignments.collect());
    let answer = connection.call(&request, SYNC_VERSION).await?;
    mute(connection, answer.throttle_time_ms);
    check(answer.error_code, None, || {
        format!("cannot receive the assignment of the group {}", group.group)
    })?;
    Ok(answer.assignment)
}

pub(super) async fn send_heartbeat(
    connection: &Connection,
    group: &GroupSettings,
    Heartbeat { id, generation }: Heartbeat,
) -> Result<()> {
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(generation)
        .with_member_id(StrBytes::from_string(id));
    let answer = connection.call(&request, HEARTBEAT_VERSION).await?;
    mute(connection, answer.throttle_time_ms);
    check(answer.error_code, None, || format!("cannot stay in the group {}", group.group))
}

pub(super) async fn leave(
    connection: &Connection,
    group: &GroupSettings,
    id: String,
) -> Result<()> {
    let id = StrBytes::from_string(id);
    let request = LeaveGroupRequest::default().with_group_id(group_id(group));
    let request = match connection.version::<LeaveGroupRequest>(LEAVE_VERSION)? {
        LEAVE_VERSION_LIST.. => {
            request.with_members(vec![MemberIdentity::default().with_member_id(id)])
        }
        _ => request.with_member_id(id),
    };
    let answer = connection.call(&request, LEAVE_VERSION).await?;
    check(answer.error_code, None, || format!("cannot leave the group {}", group.group))
}

/// Notes that the broker reads nothing for this time, because of a quota.
fn mute(connection: &Connection, throttle_time_ms: i32) {
    connection.mute.extend(Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0)));
}

fn group_id(group: &GroupSettings) -> GroupId {
    GroupId(text(&group.group))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
