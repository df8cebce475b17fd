//! What can be wrong with an event in a topic.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FaultKind {
    /// No record has the row's event.
    Lost,
    /// A record has the event that an earlier record of the topic has.
    Repeated,
    /// A record comes after one of a later event of its aggregate.
    OutOfOrder,
    /// The key is not the one that the relay makes.
    ChangedKey,
    /// The value is not the one that the relay makes.
    ChangedValue,
    /// The headers are not those that the relay makes.
    ChangedHeaders,
    /// The record is in another partition than its key or its route says.
    WrongPartition,
    /// The record is in a topic that no route names for its event.
    WrongTopic,
    /// A record has an event that no row has.
    Unknown,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 9] = [
        FaultKind::Lost,
        FaultKind::Repeated,
        FaultKind::OutOfOrder,
        FaultKind::ChangedKey,
        FaultKind::ChangedValue,
        FaultKind::ChangedHeaders,
        FaultKind::WrongPartition,
        FaultKind::WrongTopic,
        FaultKind::Unknown,
    ];

    /// Returns the name, as in options and output.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Lost => "lost",
            FaultKind::Repeated => "repeated",
            FaultKind::OutOfOrder => "out-of-order",
            FaultKind::ChangedKey => "changed-key",
            FaultKind::ChangedValue => "changed-value",
            FaultKind::ChangedHeaders => "changed-headers",
            FaultKind::WrongPartition => "wrong-partition",
            FaultKind::WrongTopic => "wrong-topic",
            FaultKind::Unknown => "unknown",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = FaultKind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let names = FaultKind::ALL.map(FaultKind::name).join(", ");
            format!("expected one of {names}")
        })
    }
}

/// A fault of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The event's id.
    pub event_id: String,
    /// The topic.
    pub topic: String,
    /// The record's partition; none if there is no record.
    pub partition: Option<i32>,
    /// The record's offset; none if there is no record.
    pub offset: Option<i64>,
    /// What was expected or found, in a few words.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, event_id, topic, partition, offset, detail } = self;
        write!(f, "{kind:15}  {event_id:36}  {topic}")?;
        if let Some((partition, offset)) = partition.zip(*offset) {
            write!(f, " {partition}:{offset}")?;
        }
        if detail.is_empty() { Ok(()) } else { write!(f, "  {detail}") }
    }
}
