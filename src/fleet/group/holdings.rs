//! The pipelines that this instance runs or is stopping: a plain struct, under the `Sharing`.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{InstanceAssignment, InstanceMetadata};

#[derive(Default)]
pub(super) struct Holdings {
    /// Metadata but for the pipelines of the configuration.
    about: InstanceMetadata,
}

/// Changes that an assignment makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Pipelines to start.
    pub start: Vec<String>,
    /// Pipelines to stop.
    pub stop: Vec<String>,
}

impl Holdings {
    pub fn new(instance: String, max: Option<usize>) -> Self {
        Holdings { about: InstanceMetadata { instance, max, ..InstanceMetadata::default() } }
    }

    /// The metadata of this moment.
    pub fn metadata(&self, known: impl Iterator<Item = String>) -> InstanceMetadata {
        InstanceMetadata { known: known.collect(), ..self.about.clone() }
    }

    /// True for a pipeline that is assigned to this instance.
    pub fn has(&self, name: &str) -> bool {
        self.about.held.contains_key(name)
    }

    /// Number of pipelines that are assigned to this instance.
    pub fn count(&self) -> usize {
        self.about.held.len()
    }

    /// True if nothing is being stopped.
    pub fn is_settled(&self) -> bool {
        self.about.ending.is_empty()
    }

    /// Takes up an assignment, but for pipelines that are not `known` any more. One that is still
    /// being stopped starts with its end.
    pub fn assigned(
        &mut self,
        assignment: &InstanceAssignment,
        known: impl Fn(&str) -> bool,
    ) -> Changes {
        self.about.round = assignment.round;
        if self.about.leaving {
            return Changes::default();
        }
        let assigned = assignment.pipelines.iter().filter(|(name, _)| known(name));
        let assigned: BTreeMap<_, _> =
            assigned.map(|(name, since)| (name.clone(), *since)).collect();
        let before = std::mem::replace(&mut self.about.held, assigned);
        let held = &self.about.held;
        // One that is being stopped before it runs again is being stopped already.
        let running = before.into_keys().filter(|name| !self.about.ending.contains(name));
        let (kept, stop): (BTreeSet<_>, Vec<_>) = {
            let (kept, stop): (Vec<_>, Vec<_>) = running.partition(|name| held.contains_key(name));
            (kept.into_iter().collect(), stop)
        };
        let is_new = |name: &&String| !kept.contains(*name) && !self.about.ending.contains(*name);
        let start = held.keys().filter(is_new).cloned().collect();
        self.about.ending.extend(stop.iter().cloned());
        Changes { start, stop }
    }

    /// Lets go of a pipeline; returns true if it has to be stopped.
    pub fn drop_one(&mut self, name: &str) -> bool {
        let held = self.about.held.remove(name).is_some();
        held && self.about.ending.insert(name.to_owned())
    }

    /// Lets go of all pipelines; returns those to stop.
    pub fn drop_all(&mut self) -> Vec<String> {
        let held = std::mem::take(&mut self.about.held).into_keys();
        held.filter(|name| self.about.ending.insert(name.clone())).collect()
    }

    /// As [`drop_all`](Self::drop_all), and takes no more.
    pub fn leave(&mut self) -> Vec<String> {
        self.about.leaving = true;
        self.drop_all()
    }

    /// Notes that a pipeline has stopped; returns true if it is to be started again.
    pub fn ended(&mut self, name: &str) -> bool {
        self.about.ending.remove(name) && self.has(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(names: &[&str]) -> InstanceAssignment {
        let pipelines = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
        InstanceAssignment { pipelines, ..InstanceAssignment::default() }
    }

    fn changes(start: &[&str], stop: &[&str]) -> Changes {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Changes { start: owned(start), stop: owned(stop) }
    }

    #[test]
    fn an_assignment_starts_what_is_new_and_stops_what_is_missing() {
        let mut holdings = Holdings::new("a".into(), None);
        let mut take =
            |names: &[&str]| holdings.assigned(&assignment(names), |name| name != "gone");
        assert_eq!(take(&["x", "y", "gone"]), changes(&["x", "y"], &[]));
        assert_eq!(take(&["x", "y"]), changes(&[], &[]));
        assert_eq!(take(&["y", "z"]), changes(&["z"], &["x"]));
        assert_eq!(take(&["y", "z"]), changes(&[], &[]));
        // It comes back before its end.
        assert_eq!(take(&["x", "z"]), changes(&[], &["y"]));
        assert_eq!(take(&["z"]), changes(&[], &[]), "it is being stopped");
        assert_eq!(take(&["x", "z"]), changes(&[], &[]));
        assert!(holdings.ended("x"), "it starts again");
        assert!(!holdings.ended("y"));
        assert!(holdings.is_settled());
    }

    #[test]
    fn what_is_let_go_is_told_until_it_has_ended() {
        let mut holdings = Holdings::new("a".into(), Some(3));
        holdings.assigned(&assignment(&["x", "y", "z"]), |_| true);
        assert!(holdings.drop_one("x") && !holdings.drop_one("x"));
        assert_eq!(holdings.leave(), ["y", "z"]);
        assert!(!holdings.ended("y"));
        let metadata = holdings.metadata(["x".to_owned()].into_iter());
        assert!(metadata.leaving && metadata.held.is_empty());
        assert_eq!(metadata.ending, ["x".to_owned(), "z".into()].into());
        assert_eq!(metadata.known, ["x".to_owned()].into());
        assert_eq!(holdings.assigned(&assignment(&["x", "q"]), |_| true), Changes::default());
    }
}
