//! The place of an instance in its group, as the servers show it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::Serialize;

/// The place of this instance among those that share the pipelines of a fleet.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// `fleet.group`.
    pub group: String,
    /// Name of this instance.
    pub instance: String,
    /// The reason why it is not a member at the moment; none while it is one.
    pub problem: Option<String>,
    /// Number of instances at the last assignment, with this one; 0 while it is not a member.
    pub instances: usize,
    /// Number of pipelines that this instance runs.
    pub pipelines: usize,
    /// Pipelines for which no instance has room.
    pub unassigned: Vec<String>,
    /// Number of assignments since the start.
    pub rebalances: u64,
    /// Time of the last assignment or loss.
    #[serde(skip)]
    since: Instant,
}

impl GroupStatus {
    pub(crate) fn new(group: &str, instance: String) -> Self {
        GroupStatus {
            group: group.to_owned(),
            instance,
            problem: Some("joining".into()),
            instances: 0,
            pipelines: 0,
            unassigned: Vec::new(),
            rebalances: 0,
            since: Instant::now(),
        }
    }

    /// Notes an assignment.
    pub(crate) fn assigned(
        &mut self,
        pipelines: usize,
        instances: usize,
        unassigned: &BTreeSet<String>,
    ) {
        self.problem = None;
        (self.pipelines, self.instances) = (pipelines, instances);
        self.unassigned = unassigned.iter().cloned().collect();
        self.rebalances += 1;
        self.since = Instant::now();
    }

    /// Notes the loss of the membership.
    pub(crate) fn lost(&mut self, why: String) {
        if self.problem.replace(why).is_none() {
            self.since = Instant::now();
        }
        (self.pipelines, self.instances) = (0, 0);
        self.unassigned.clear();
    }

    /// Notes why it can't become a member. A member notes nothing: its session may last.
    pub(crate) fn trouble(&mut self, why: String) {
        if let Some(problem) = &mut self.problem {
            *problem = why;
        }
    }

    /// The reason why this instance runs nothing; none while it is a member.
    pub(super) fn not_member(&self) -> Option<String> {
        let why = self.problem.as_ref()?;
        Some(format!("not a member of the group {}: {why}", self.group))
    }

    /// As [`not_member`](Self::not_member), once that has lasted this long.
    pub(super) fn not_member_for(&self, limit: Duration) -> Option<String> {
        self.not_member().filter(|_| self.since.elapsed() >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_is_no_member_says_why_and_fails_when_it_lasts() {
        let mut status = GroupStatus::new("relays", "relay-0".into());
        let joining = "not a member of the group relays: joining";
        assert_eq!(status.not_member().as_deref(), Some(joining));
        assert_eq!(status.not_member_for(Duration::from_secs(60)), None);
        assert_eq!(status.not_member_for(Duration::ZERO).as_deref(), Some(joining));
        status.assigned(3, 2, &["acme".to_owned()].into());
        assert_eq!(status.not_member(), None);
        assert_eq!((status.pipelines, status.instances, status.rebalances), (3, 2, 1));
        status.lost("no answer".into());
        let lost = "not a member of the group relays: no answer";
        assert_eq!(status.not_member().as_deref(), Some(lost));
        assert!(status.pipelines == 0 && status.unassigned.is_empty());
    }
}
