//! The pipelines that this instance runs, prepares or is stopping: a plain struct, under the `Sharing`.

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
    /// Pipelines to prepare: others run them as yet.
    pub prepare: Vec<String>,
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

    /// True for a pipeline that this instance runs or prepares.
    pub fn has(&self, name: &str) -> bool {
        self.about.held.contains_key(name) || self.about.coming.contains(name)
    }

    /// True for a pipeline that another instance still runs.
    pub fn is_coming(&self, name: &str) -> bool {
        self.about.coming.contains(name)
    }

    /// Number of pipelines that this instance runs.
    pub fn count(&self) -> usize {
        self.about.held.len()
    }

    /// True if nothing is being stopped.
    pub fn is_settled(&self) -> bool {
        self.about.ending.is_empty()
    }

    /// True if it has no pipelines at all, and none is being stopped.
    pub fn is_empty(&self) -> bool {
        self.about.held.is_empty() && self.about.coming.is_empty() && self.is_settled()
    }

    /// Takes up an assignment, but for pipelines that are not `known` any more. One that is still
    /// being stopped starts with its end. An instance that leaves takes nothing new.
    pub fn assigned(
        &mut self,
        assignment: &InstanceAssignment,
        known: impl Fn(&str) -> bool,
    ) -> Changes {
        let about = &mut self.about;
        about.round = assignment.round;
        let takes = |name: &str, held: &BTreeMap<String, u64>| match about.leaving {
            true => held.contains_key(name),
            false => known(name),
        };
        let assigned = assignment.pipelines.iter().filter(|(name, _)| takes(name, &about.held));
        let held: BTreeMap<_, _> = assigned.map(|(name, since)| (name.clone(), *since)).collect();
        let coming = assignment.coming.iter().filter(|name| takes(name, &BTreeMap::new()));
        let coming: BTreeSet<_> = coming.cloned().collect();
        let held_before = std::mem::replace(&mut about.held, held);
        let coming_before = std::mem::replace(&mut about.coming, coming);
        about.ready.retain(|name| about.coming.contains(name));
        // What is being stopped before it starts again is in neither list of changes.
        let before: BTreeSet<_> = held_before
            .into_keys()
            .chain(coming_before)
            .filter(|name| !about.ending.contains(name))
            .collect();
        let is_new = |name: &&String| !before.contains(*name) && !about.ending.contains(*name);
        let start = about.held.keys().filter(is_new).cloned().collect();
        let prepare = about.coming.iter().filter(is_new).cloned().collect();
        let is_gone =
            |name: &String| !about.held.contains_key(name) && !about.coming.contains(name);
        let stop: Vec<_> = before.iter().filter(|name| is_gone(name)).cloned().collect();
        about.ending.extend(stop.iter().cloned());
        Changes { start, prepare, stop }
    }

    /// Notes that a pipeline waits for nothing but its slot; returns true if that is news.
    pub fn is_ready(&mut self, name: &str) -> bool {
        self.about.coming.contains(name) && self.about.ready.insert(name.to_owned())
    }

    /// Notes that a pipeline is prepared anew.
    pub fn is_not_ready(&mut self, name: &str) {
        self.about.ready.remove(name);
    }

    /// Lets go of a pipeline; returns true if it has to be stopped.
    pub fn drop_one(&mut self, name: &str) -> bool {
        let had = self.about.held.remove(name).is_some() | self.about.coming.remove(name);
        self.about.ready.remove(name);
        had && self.about.ending.insert(name.to_owned())
    }

    /// Lets go of all pipelines; returns those to stop.
    pub fn drop_all(&mut self) -> Vec<String> {
        let held = std::mem::take(&mut self.about.held).into_keys();
        held.chain(self.drop_coming())
            .filter(|name| self.about.ending.insert(name.clone()))
            .collect()
    }

    /// Takes no more pipelines, and runs those that it has until others are ready for them; returns
    /// those to stop.
    pub fn leave(&mut self) -> Vec<String> {
        self.about.leaving = true;
        let coming = self.drop_coming();
        coming.into_iter().filter(|name| self.about.ending.insert(name.clone())).collect()
    }

    fn drop_coming(&mut self) -> BTreeSet<String> {
        self.about.ready.clear();
        std::mem::take(&mut self.about.coming)
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
        Changes { start: owned(start), stop: owned(stop), ..Changes::default() }
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
    fn what_is_coming_is_prepared_and_runs_on_when_it_is_assigned() {
        let mut holdings = Holdings::new("a".into(), None);
        let coming = |names: &[&str]| {
            let coming = names.iter().map(|name| (*name).to_owned()).collect();
            InstanceAssignment { coming, ..InstanceAssignment::default() }
        };
        let changed = holdings.assigned(&coming(&["x", "y"]), |_| true);
        assert_eq!(changed.prepare, ["x", "y"]);
        assert!(changed.start.is_empty() && holdings.has("x") && holdings.count() == 0);
        assert!(holdings.is_ready("x") && !holdings.is_ready("x"), "no news");
        let metadata = holdings.metadata([].into_iter());
        assert_eq!((metadata.coming.len(), metadata.ready), (2, ["x".to_owned()].into()));
        assert_eq!(holdings.assigned(&assignment(&["x"]), |_| true), changes(&[], &["y"]));
        assert!(!holdings.is_ready("x"), "it runs");
        assert!(!holdings.ended("y"));
        assert_eq!(holdings.assigned(&coming(&["x"]), |_| true), Changes::default());
    }

    #[test]
    fn what_leaves_runs_on_until_others_have_it() {
        let mut holdings = Holdings::new("a".into(), Some(3));
        let mut all = assignment(&["x", "y", "z"]);
        all.coming = ["q".to_owned()].into();
        holdings.assigned(&all, |_| true);
        assert!(holdings.drop_one("x") && !holdings.drop_one("x"));
        assert_eq!(holdings.leave(), ["q"]);
        let metadata = holdings.metadata(["x".to_owned()].into_iter());
        assert!(metadata.leaving && metadata.held.len() == 2);
        assert_eq!(metadata.ending, ["q".to_owned(), "x".into()].into());
        assert_eq!(metadata.known, ["x".to_owned()].into());
        assert_eq!(
            holdings.assigned(&assignment(&["x", "y", "new"]), |_| true),
            changes(&[], &["z"])
        );
        assert_eq!(holdings.drop_all(), ["y"]);
        for name in ["x", "y", "z", "q"] {
            assert!(!holdings.is_empty() && !holdings.ended(name));
        }
        assert!(holdings.is_empty());
    }
}
