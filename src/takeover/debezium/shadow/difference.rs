//! Differences between the record that factlib makes of a row and that of Debezium. Pure.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value as Json;

use crate::record::Record;

/// Bytes that are shown before and after the first that differs.
const CONTEXT_BYTES: usize = 20;

/// Begins the names of headers that Debezium adds about itself.
const CONTEXT_HEADERS: &str = "__debezium.context.";

/// Kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DifferenceKind {
    /// Debezium did not send the event.
    Missing,
    /// Debezium sent an event that factlib does not have.
    Unexpected,
    /// Factlib would park the row as a dead letter.
    Refused,
    /// Debezium sent the event to another topic.
    Topic,
    /// The keys differ.
    Key,
    /// The partitions differ.
    Partition,
    /// Names, values or order of the headers differ.
    Headers,
    /// The values differ.
    Value,
    /// The timestamps differ.
    Timestamp,
    /// Debezium sent the event twice.
    Repeated,
}

impl DifferenceKind {
    /// Returns the name, as in the output.
    pub fn name(self) -> &'static str {
        match self {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Unexpected => "unexpected",
            DifferenceKind::Refused => "refused",
            DifferenceKind::Topic => "topic",
            DifferenceKind::Key => "key",
            DifferenceKind::Partition => "partition",
            DifferenceKind::Headers => "headers",
            DifferenceKind::Value => "value",
            DifferenceKind::Timestamp => "timestamp",
            DifferenceKind::Repeated => "repeated",
        }
    }
}

/// Differences that are deliberate, or that depend on Debezium's run; docs/debezium.md explains
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KnownDifference {
    /// The same JSON with its fields in another order.
    FieldOrder,
    /// The same content behind a schema with another name.
    SchemaName,
    /// Debezium adds headers about itself, from version 3.2 on.
    ContextHeaders,
    /// Debezium repeats events after a restart.
    RepeatedByDebezium,
}

impl KnownDifference {
    /// All of them.
    pub const ALL: [KnownDifference; 4] = [
        KnownDifference::FieldOrder,
        KnownDifference::SchemaName,
        KnownDifference::ContextHeaders,
        KnownDifference::RepeatedByDebezium,
    ];

    /// Returns the name, as in the output and the documentation.
    pub fn name(self) -> &'static str {
        match self {
            KnownDifference::FieldOrder => "field-order",
            KnownDifference::SchemaName => "schema-name",
            KnownDifference::ContextHeaders => "context-headers",
            KnownDifference::RepeatedByDebezium => "repeated-by-debezium",
        }
    }
}

/// A difference in one event's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub kind: DifferenceKind,
    /// Set if it is a known one.
    pub known: Option<KnownDifference>,
    /// The event's id.
    pub event_id: String,
    /// The topic that factlib sends the event to.
    pub topic: String,
    /// Both sides.
    pub detail: String,
}

/// A record that Debezium sent.
#[derive(Clone, Debug)]
pub(super) struct SentRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Compares two records, of which factlib's goes to `partition`.
pub(super) fn differences(
    ours: &Record,
    partition: i32,
    theirs: &SentRecord,
) -> Vec<(DifferenceKind, Option<KnownDifference>, String)> {
    let mut found = Vec::new();
    let their_key = theirs.key.as_deref().unwrap_or_default();
    if ours.key != their_key {
        let detail = apart(Some(&ours.key), theirs.key.as_ref());
        found.push((DifferenceKind::Key, None, detail));
    }
    if partition != theirs.partition {
        let detail = format!("factlib {partition}, Debezium {}", theirs.partition);
        found.push((DifferenceKind::Partition, None, detail));
    }
    let our_headers: Vec<_> = ours.headers.iter().map(|(name, value)| (&**name, value)).collect();
    let their_headers = theirs.headers.iter().map(|(name, value)| (&**name, value));
    let (context, their_headers): (Vec<_>, Vec<_>) =
        their_headers.partition(|(name, _)| name.starts_with(CONTEXT_HEADERS));
    if !context.is_empty() {
        let names: Vec<_> = context.iter().map(|(name, _)| *name).collect();
        let detail = format!("Debezium adds {}", names.join(", "));
        found.push((DifferenceKind::Headers, Some(KnownDifference::ContextHeaders), detail));
    }
    if our_headers != their_headers {
        let (ours, theirs) = (our_headers, their_headers);
        let detail = match ours.iter().zip(&theirs).find(|(one, other)| one != other) {
            Some(((name, one), (other, another))) if name == other => {
                format!("{name}: {}", apart(one.as_ref(), another.as_ref()))
            }
            _ => {
                let names = |of: &[(&str, &Option<Bytes>)]| {
                    of.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                };
                format!("factlib {}; Debezium {}", names(&ours), names(&theirs))
            }
        };
        found.push((DifferenceKind::Headers, None, detail));
    }
    if ours.value != theirs.value {
        let known = known_difference(ours.value.as_deref(), theirs.value.as_deref());
        let detail = apart(ours.value.as_ref(), theirs.value.as_ref());
        found.push((DifferenceKind::Value, known, detail));
    }
    // Without a time of its own, a record has that of sending.
    if let Some(time) = ours.timestamp_ms
        && time != theirs.timestamp_ms
    {
        let detail = format!("factlib {time}, Debezium {}", theirs.timestamp_ms);
        found.push((DifferenceKind::Timestamp, None, detail));
    }
    found
}

fn known_difference(ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Option<KnownDifference> {
    let bytes = |value: Option<&[u8]>| {
        let mut bytes = value.unwrap_or_default().to_vec();
        bytes.sort_unstable();
        bytes
    };
    let has_same_bytes = bytes(ours) == bytes(theirs);
    let read = |value: Option<&[u8]>| serde_json::from_slice::<Json>(value?).ok();
    let (ours, theirs) = (read(ours)?, read(theirs)?);
    if ours == theirs {
        // Otherwise a number or an escape is written in another way.
        return has_same_bytes.then_some(KnownDifference::FieldOrder);
    }
    let named = |of: &Json| {
        let schema = of.get("schema")?.get("name")?.as_str()?.to_owned();
        Some((schema, of.get("payload")?.clone()))
    };
    let ((our_name, ours), (their_name, theirs)) = (named(&ours)?, named(&theirs)?);
    (our_name != their_name && ours == theirs).then_some(KnownDifference::SchemaName)
}

/// Shows both sides from shortly before the first byte that differs.
fn apart(ours: Option<&Bytes>, theirs: Option<&Bytes>) -> String {
    let empty = Bytes::new();
    let (one, other) = (ours.unwrap_or(&empty), theirs.unwrap_or(&empty));
    let same = one.iter().zip(other.iter()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(CONTEXT_BYTES);
    let shown = |bytes: Option<&Bytes>| match bytes {
        None => "none".to_owned(),
        Some(bytes) => {
            let to = bytes.len().min(same + CONTEXT_BYTES);
            let part = String::from_utf8_lossy(bytes.get(from..to).unwrap_or_default());
            let (before, behind) =
                (if from > 0 { "…" } else { "" }, if to < bytes.len() { "…" } else { "" });
            format!("{before}{part:?}{behind}")
        }
    };
    format!("from byte {same} on: factlib {}, Debezium {}", shown(ours), shown(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &'static str) -> Record {
        Record {
            key: "k".into(),
            value: Some(value.into()),
            headers: vec![("id".into(), Some("1".into())), ("n".into(), None)],
            timestamp_ms: Some(7),
            ..Record::default()
        }
    }

    fn sent(record: &Record) -> SentRecord {
        let headers = record.headers.iter().map(|(name, value)| (name.to_string(), value.clone()));
        SentRecord {
            partition: 1,
            offset: 0,
            timestamp_ms: record.timestamp_ms.unwrap_or_default(),
            key: Some(record.key.clone()),
            value: record.value.clone(),
            headers: headers.collect(),
        }
    }

    #[test]
    fn equal_records_have_no_difference() {
        assert_eq!(differences(&record("v"), 1, &sent(&record("v"))), []);
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let (ours, mut theirs) = (record("abc"), sent(&record("abd")));
        theirs.key = Some("x".into());
        theirs.headers.pop();
        theirs.timestamp_ms = 8;
        let found = differences(&ours, 2, &theirs);
        let kinds: Vec<_> = found.iter().map(|(kind, known, _)| (kind.name(), *known)).collect();
        let expected = ["key", "partition", "headers", "value", "timestamp"];
        assert_eq!(kinds, expected.map(|name| (name, None)));
        assert_eq!(found[2].2, "factlib id, n; Debezium id");
        assert_eq!(found[3].2, "from byte 2 on: factlib \"abc\", Debezium \"abd\"");
    }

    #[test]
    fn known_differences_are_told_apart() {
        let of = |ours, theirs| {
            differences(&record(ours), 1, &sent(&record(theirs))).first().map(|of| of.1)
        };
        let field_order = Some(KnownDifference::FieldOrder);
        assert_eq!(of(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#), Some(field_order));
        let schema = Some(KnownDifference::SchemaName);
        let (ours, theirs) =
            (r#"{"schema":{"name":"a"},"payload":1}"#, r#"{"schema":{"name":"b"},"payload":1}"#);
        assert_eq!(of(ours, theirs), Some(schema));
        assert_eq!(of(r#"{"a":1}"#, r#"{"a":2}"#), Some(None));
        assert_eq!(of(r#"{"a":1.0}"#, r#"{"a":1.00}"#), Some(None));
        let mut theirs = sent(&record("v"));
        theirs.headers.insert(0, ("__debezium.context.runId".into(), Some("x".into())));
        let context = KnownDifference::ContextHeaders;
        let detail = "Debezium adds __debezium.context.runId".to_owned();
        let expected = [(DifferenceKind::Headers, Some(context), detail)];
        assert_eq!(differences(&record("v"), 1, &theirs), expected);
    }
}
