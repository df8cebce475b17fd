//! Meaning of the coordinator's errors for a member, and advice for those that an administrator can
//! mend.

use crate::error::{Code, Error};

/// Meaning of an error for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A round has begun: join.
    Rebalance,
    /// The member's generation has passed.
    OldGeneration,
    /// The group has given up this member: join with a new id.
    UnknownMember,
    /// The coordinator can't be reached, moved, or still loads the group: search for it.
    NoCoordinator,
    /// The group takes no more members, and forgets this one.
    NoRoom,
    /// Something that only an administrator can mend, or an unknown error: try again later.
    Other,
}

impl Refusal {
    pub fn of(error: &Error) -> Self {
        let Some(code) = error.code() else { return Refusal::NoCoordinator };
        match code {
            Code::RebalanceInProgress => Refusal::Rebalance,
            Code::IllegalGeneration => Refusal::OldGeneration,
            Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch => {
                Refusal::UnknownMember
            }
            Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::RequestTimedOut => Refusal::NoCoordinator,
            Code::GroupMaxSizeReached => Refusal::NoRoom,
            _ => Refusal::Other,
        }
    }
}

/// Returns advice for an error that an administrator can mend.
pub(super) fn remedy(error: &Error) -> Option<&'static str> {
    Some(match error.code()? {
        Code::GroupAuthorizationFailed => "grant this user READ on the group",
        Code::InvalidSessionTimeout => {
            "set a session time-out between the brokers' group.min.session.timeout.ms (6 s by \
             default) and group.max.session.timeout.ms (30 min)"
        }
        Code::InconsistentGroupProtocol => {
            "the group's members are not of this kind or version: choose another group name, or \
             stop the other members"
        }
        Code::GroupMaxSizeReached => {
            "raise group.max.size of the brokers, or run fewer members in this group"
        }
        Code::InvalidGroupId => "choose another group name",
        Code::UnknownServerError | Code::RecordListTooLarge | Code::MessageTooLarge => {
            "see the broker's log; if the group's members and assignments are too large for it, \
             raise max.message.bytes of the topic __consumer_offsets"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_administrator_can_mend_has_advice_and_is_tried_again() {
        let error = |code| Error::Broker { what: "cannot join".into(), code, message: None };
        for (code, advice) in [
            (Code::GroupAuthorizationFailed, "READ"),
            (Code::InvalidSessionTimeout, "group.min.session.timeout.ms"),
            (Code::InconsistentGroupProtocol, "another group name"),
            (Code::InvalidGroupId, "another group name"),
            (Code::UnknownServerError, "__consumer_offsets"),
        ] {
            let error = error(code);
            assert_eq!(Refusal::of(&error), Refusal::Other);
            assert!(remedy(&error).is_some_and(|text| text.contains(advice)), "{error}");
        }
        let full = error(Code::GroupMaxSizeReached);
        assert_eq!(Refusal::of(&full), Refusal::NoRoom);
        assert!(remedy(&full).is_some_and(|text| text.contains("group.max.size")));
    }

    #[test]
    fn an_error_without_an_answer_makes_the_member_search_for_the_coordinator() {
        let error = Error::TimedOut { address: "kafka:9092".into(), request: "Heartbeat" };
        assert_eq!(Refusal::of(&error), Refusal::NoCoordinator);
        assert_eq!(remedy(&error), None);
    }
}
