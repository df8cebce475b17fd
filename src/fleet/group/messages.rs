//! What the instances of a fleet tell each other through the group's coordinator: JSON, with a version.
//!
//! The coordinator keeps all of it in one record, at most `max.message.bytes` (1 MiB) of its topic.
//! That is enough for some ten thousand pipelines, counted once for each instance.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Raised with a change that older instances would misread; a field that they may ignore is none.
const VERSION: u32 = 1;

/// Metadata of an instance: what it knows, what it runs, and how much it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct InstanceMetadata {
    /// Name that people know it by.
    pub instance: String,
    /// Most pipelines that it runs; none: no limit.
    pub max: Option<usize>,
    /// True if it is about to end, and takes nothing.
    pub leaving: bool,
    /// Pipelines of its configuration.
    pub known: BTreeSet<String>,
    /// Pipelines that it runs and would keep, each with the Unix time (seconds) since when.
    pub held: BTreeMap<String, u64>,
    /// Pipelines that it is stopping: until they have ended, nobody else may have them.
    pub ending: BTreeSet<String>,
    /// Pipelines that it will run, and that others run until it is ready.
    pub coming: BTreeSet<String>,
    /// Those of them that wait for nothing but their slot.
    pub ready: BTreeSet<String>,
    /// The last assignment that it has taken up.
    pub round: u64,
}

impl InstanceMetadata {
    /// Adds what the instance was assigned last, if it had not taken that up yet: it will run it.
    pub fn with_assigned(mut self, assigned: InstanceAssignment) -> Self {
        if self.round != assigned.round {
            let InstanceAssignment { pipelines, coming, .. } = assigned;
            let is_new = |name: &String| !self.ending.contains(name);
            self.held.extend(pipelines.into_iter().filter(|(name, _)| is_new(name)));
            self.coming.extend(coming.into_iter().filter(is_new));
            self.coming.retain(|name| !self.held.contains_key(name));
        }
        self
    }
}

/// Assignment of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct InstanceAssignment {
    /// Pipelines that it runs now, each with the Unix time (seconds) since when.
    pub pipelines: BTreeMap<String, u64>,
    /// Pipelines that it prepares: another instance runs them until this one is ready.
    pub coming: BTreeSet<String>,
    /// Number of instances.
    pub instances: usize,
    /// Pipelines for which no instance has room.
    pub unassigned: BTreeSet<String>,
    /// Tells it from the assignment before: the leader's clock, in Unix milliseconds.
    pub round: u64,
}

#[derive(Deserialize, Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    message: T,
}

/// Encodes metadata or an assignment.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    let message = Versioned { version: VERSION, message };
    // Maps with text keys and numbers only: nothing in it can fail.
    serde_json::to_vec(&message).unwrap_or_default()
}

/// Decodes metadata or an assignment; none if another program or a later version has made it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message: Versioned<T> = serde_json::from_slice(bytes).ok()?;
    (message.version == VERSION).then_some(message.message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let metadata = InstanceMetadata {
            instance: "relay-0".into(),
            max: Some(7),
            leaving: true,
            known: ["acme".into(), "globex".into()].into(),
            held: [("acme".into(), 1_800_000_000)].into(),
            ending: ["globex".into()].into(),
            coming: ["initech".into(), "hooli".into()].into(),
            ready: ["hooli".into()].into(),
            round: 5,
        };
        assert_eq!(decode(&encode(&metadata)), Some(metadata));
        let assignment = InstanceAssignment {
            pipelines: [("acme".into(), 1_800_000_000)].into(),
            coming: ["initech".into()].into(),
            instances: 3,
            unassigned: ["globex".into()].into(),
            round: 5,
        };
        assert_eq!(decode(&encode(&assignment)), Some(assignment));
    }

    #[test]
    fn an_assignment_that_was_not_taken_up_counts() {
        let metadata = InstanceMetadata {
            held: [("old".into(), 1)].into(),
            ending: ["ending".into()].into(),
            round: 5,
            ..InstanceMetadata::default()
        };
        let assigned = |round| InstanceAssignment {
            pipelines: [("new".into(), 2), ("ending".into(), 1)].into(),
            round,
            ..InstanceAssignment::default()
        };
        assert_eq!(metadata.clone().with_assigned(assigned(5)), metadata, "it has let go since");
        let held = metadata.with_assigned(assigned(6)).held;
        assert_eq!(held, [("new".into(), 2), ("old".into(), 1)].into());
    }

    #[test]
    fn other_versions_are_told_apart_and_new_fields_are_not() {
        let read = |text: &str| decode::<InstanceMetadata>(text.as_bytes());
        assert_eq!(read(r#"{"version":2,"instance":"a"}"#), None);
        assert_eq!(read(r#"{"instance":"a"}"#), None);
        let newer = read(r#"{"version":1,"instance":"a","rack":"b"}"#).expect("it can be read");
        assert_eq!(newer.instance, "a");
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_no_message(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode::<InstanceMetadata>(&bytes), None);
        }
    }
}
