//! The array of tables `[[outbox]]`.

use serde::{Deserialize, Serialize};

use super::{ConnectRecords, TableName, TablePattern};

/// One `[[outbox]]`: a table whose new rows are events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxTable {
    /// `schema.table`, spelled as in the catalog; the schema is `public` when left out. A `*` stands
    /// for any characters: `tenant_*.outbox` is all such tables, also those that are created later.
    /// What is in double quotes is taken literally.
    pub table: String,
    /// Convention that the other settings of the table default to.
    #[serde(default)]
    pub preset: OutboxPreset,
    /// Columns whose names differ from the preset's.
    #[serde(default)]
    pub columns: OutboxColumns,
    /// Unit of `columns.created_at` if that is a number.
    #[serde(default)]
    pub created_at_unit: TimeUnit,
    /// Further columns that become headers, each `column` or `column:header`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Further columns that become metadata of the envelope, each `column` or `column:key`. With
    /// the preset `debezium`, they and the payload become fields of the value.
    #[serde(default)]
    pub envelope: Vec<String>,
    /// Column with the number of the record's partition; chosen by the key if not set, or null.
    #[serde(default)]
    pub partition: Option<String>,
    /// Column with the trace of an event, as lines `traceparent=…`; each line becomes a header.
    #[serde(default)]
    pub trace_context: Option<String>,
    /// Leave out those columns of `headers` and `envelope` that the table does not have.
    #[serde(default)]
    pub ignore_missing: bool,
    /// Converters of Kafka Connect, which make the records equal to Debezium's to the byte; for
    /// the preset `debezium`.
    #[serde(default)]
    pub connect: Option<ConnectRecords>,
    /// Prefix of the topic `{topic_prefix}.{aggregate_type}`. When not set, `kafka.topic_prefix`
    /// with the preset `factlib`, `outbox.event` with the preset `debezium`.
    #[serde(default)]
    pub topic_prefix: Option<String>,
    /// Reaction to an UPDATE of a row, which never sends anything.
    #[serde(default = "warn")]
    pub on_update: ChangePolicy,
    /// Reaction to a DELETE or a TRUNCATE, which never sends anything.
    #[serde(default)]
    pub on_delete: ChangePolicy,
}

/// Convention for the columns of a table and the shape of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OutboxPreset {
    /// The table `outbox_events`; the record's value is the `OutboxEvent` protobuf.
    #[default]
    Factlib,
    /// Debezium's outbox event router; the record's value is the payload itself.
    Debezium,
}

/// Column names of an outbox table; each defaults to the preset's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxColumns {
    /// Id of the event.
    pub id: Option<String>,
    /// Aggregate type, which decides the topic.
    pub aggregate_type: Option<String>,
    /// Aggregate id, which is the record's key.
    pub aggregate_id: Option<String>,
    /// Type of the event.
    pub event_type: Option<String>,
    /// Payload: `bytea`, or any other type, whose text is sent.
    pub payload: Option<String>,
    /// Time of the event: a timestamp, or a number since 1970 in `created_at_unit`.
    pub created_at: Option<String>,
    /// Metadata: a `jsonb` or `json` object.
    pub metadata: Option<String>,
}

/// Unit of a time that is a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    pub(crate) const ALL: [TimeUnit; 4] = [TimeUnit::S, TimeUnit::Ms, TimeUnit::Us, TimeUnit::Ns];

    /// Number of units per second.
    pub(crate) fn per_second(self) -> u32 {
        match self {
            TimeUnit::S => 1,
            TimeUnit::Ms => 1_000,
            TimeUnit::Us => 1_000_000,
            TimeUnit::Ns => 1_000_000_000,
        }
    }

    pub(crate) fn nanoseconds(self) -> i64 {
        1_000_000_000 / i64::from(self.per_second())
    }

    /// Name of the unit in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TimeUnit::S => "s",
            TimeUnit::Ms => "ms",
            TimeUnit::Us => "us",
            TimeUnit::Ns => "ns",
        }
    }
}

/// Reaction to a change that an outbox table should not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangePolicy {
    /// Ignores it.
    #[default]
    Ignore,
    /// Logs one line per table, and no more until the relay reconnects.
    Warn,
    /// Logs one error per table, and no more until the relay reconnects.
    Error,
    /// Stops the relay.
    Stop,
}

fn warn() -> ChangePolicy {
    ChangePolicy::Warn
}

impl OutboxTable {
    /// A table that follows the preset in everything.
    pub fn new(table: impl Into<String>, preset: OutboxPreset) -> Self {
        OutboxTable {
            table: table.into(),
            preset,
            columns: OutboxColumns::default(),
            created_at_unit: TimeUnit::default(),
            headers: Vec::new(),
            envelope: Vec::new(),
            partition: None,
            trace_context: None,
            ignore_missing: false,
            connect: None,
            topic_prefix: None,
            on_update: warn(),
            on_delete: ChangePolicy::default(),
        }
    }

    /// The tables that it stands for.
    pub(crate) fn pattern(&self) -> TablePattern {
        // A configuration that was not validated may have no valid name.
        TablePattern::parse(&self.table).unwrap_or_else(|_| TablePattern::literal(&self.as_it_is()))
    }

    /// True if it stands for any number of tables.
    pub(crate) fn is_pattern(&self) -> bool {
        self.name().is_none()
    }

    /// The schema and the name of the table; none of a pattern.
    pub(crate) fn name(&self) -> Option<TableName> {
        self.pattern().exact()
    }

    /// The schema and the name of an entry that is no pattern.
    pub(crate) fn qualified(&self) -> TableName {
        self.name().unwrap_or_else(|| self.as_it_is())
    }

    fn as_it_is(&self) -> TableName {
        TableName::new("public", &*self.table)
    }

    /// The entry for a table: the one that names it, or else the first whose pattern matches, as an
    /// entry of this table alone.
    pub(crate) fn of_name(entries: &[OutboxTable], name: &TableName) -> Option<OutboxTable> {
        let named = entries.iter().find(|entry| entry.name().as_ref() == Some(name));
        let matching = || entries.iter().find(|entry| entry.pattern().matches(name));
        let alone = |entry: &OutboxTable| OutboxTable { table: name.to_string(), ..entry.clone() };
        named.cloned().or_else(|| matching().map(alone))
    }

    /// The table's own topic prefix; `None` to use the pipeline's.
    pub(crate) fn topic_prefix(&self) -> Option<&str> {
        let preset = (self.preset == OutboxPreset::Debezium).then_some("outbox.event");
        self.topic_prefix.as_deref().or(preset)
    }

    /// Columns of `headers`, each with its header's name.
    pub(crate) fn header_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|entry| aliased(entry))
    }

    /// Columns of `envelope`, each with its metadata key.
    pub(crate) fn envelope_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.envelope.iter().map(|entry| aliased(entry))
    }
}

/// Splits `column:alias`; a column without alias keeps its name.
fn aliased(entry: &str) -> (&str, &str) {
    entry.split_once(':').unwrap_or((entry, entry))
}
