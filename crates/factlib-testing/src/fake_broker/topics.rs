//! Topics: their partitions, leaders and settings.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    FirstSequence,
    log::{AppendRules, Log},
};

/// Settings that every topic has, with the defaults of Apache Kafka 4.
pub(super) const DEFAULTS: [(&str, &str); 8] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.type", "CreateTime"),
    ("min.insync.replicas", "1"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub id: Uuid,
    /// Settings of its own.
    pub settings: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
    pub replicas: usize,
}

/// A partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub leader: i32,
    pub leader_epoch: i32,
    pub log: Log,
}

impl Topic {
    /// Creates a topic whose leaders are the brokers in turn.
    pub fn new(
        partitions: usize,
        replicas: usize,
        settings: BTreeMap<String, String>,
        brokers: &[i32],
    ) -> Self {
        let mut topic = Topic { id: Uuid::now_v7(), settings, partitions: Vec::new(), replicas };
        topic.grow(partitions, brokers);
        topic
    }

    /// Adds partitions up to this number.
    pub fn grow(&mut self, count: usize, brokers: &[i32]) {
        let mut leaders = brokers.iter().copied().cycle().skip(self.partitions.len());
        self.partitions.resize_with(count, || Partition {
            leader: leaders.next().unwrap_or(-1),
            leader_epoch: 0,
            log: Log::default(),
        });
    }

    /// Returns the value of a setting, and true if it is the topic's own.
    pub fn setting(&self, name: &str) -> Option<(&str, bool)> {
        let own = self.settings.get(name).map(|value| (value.as_str(), true));
        let default = || DEFAULTS.iter().find(|(known, _)| *known == name);
        own.or_else(|| default().map(|(_, value)| (*value, false)))
    }

    /// Returns the rules for appending to one of the partitions.
    pub fn rules(&self, first_sequence: FirstSequence, leader_epoch: i32) -> AppendRules {
        let bytes = |name| self.setting(name).and_then(|(value, _)| value.parse().ok());
        AppendRules {
            first_sequence,
            max_batch_bytes: bytes("max.message.bytes").unwrap_or(usize::MAX),
            // -1 means no limit.
            retained_bytes: bytes("retention.bytes"),
            leader_epoch,
        }
    }
}
