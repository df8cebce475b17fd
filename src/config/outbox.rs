use serde::{Deserialize, Serialize};

/// One `[[outbox]]`: a table whose new rows are events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxTable {
    /// `schema.table`, as the catalog has it; without a schema, `public` is meant.
    pub table: String,
    /// Names of columns and the shape of records, where nothing else is said.
    #[serde(default)]
    pub preset: OutboxPreset,
    /// Columns that are called otherwise than in the preset.
    #[serde(default)]
    pub columns: OutboxColumns,
    /// The unit of `columns.created_at` where that is a number.
    #[serde(default)]
    pub created_at_unit: TimeUnit,
    /// More columns that become headers, each `column` or `column:header`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// More columns that go into the envelope's metadata, each `column` or `column:key`.
    #[serde(default)]
    pub envelope: Vec<String>,
    /// `{topic_prefix}.{aggregate_type}` is the topic. When not set, `kafka.topic_prefix`
    /// with the preset `factlib`, `outbox.event` with the preset `debezium`.
    #[serde(default)]
    pub topic_prefix: Option<String>,
    /// What an UPDATE of a row does; it never sends anything.
    #[serde(default = "warn")]
    pub on_update: ChangePolicy,
    /// What a DELETE or a TRUNCATE does; it never sends anything.
    #[serde(default)]
    pub on_delete: ChangePolicy,
}

/// Which conventions a table and its records follow.
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

/// The columns of an outbox table; where one is not set, the preset's name is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutboxColumns {
    /// The event's id.
    pub id: Option<String>,
    /// What decides on the topic.
    pub aggregate_type: Option<String>,
    /// The record's key.
    pub aggregate_id: Option<String>,
    /// What happened.
    pub event_type: Option<String>,
    /// The payload: `bytea`, or any type whose text is sent.
    pub payload: Option<String>,
    /// When it happened: a time, or a number since 1970 in `created_at_unit`.
    pub created_at: Option<String>,
    /// `jsonb` or `json`, an object.
    pub metadata: Option<String>,
}

/// The unit of a number that is a time.
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

    /// How many of them a second has.
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

    /// As the setting has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TimeUnit::S => "s",
            TimeUnit::Ms => "ms",
            TimeUnit::Us => "us",
            TimeUnit::Ns => "ns",
        }
    }
}

/// What a change does that an outbox table should not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangePolicy {
    /// Nothing.
    #[default]
    Ignore,
    /// One line in the log for each table, and no more until the relay reconnects.
    Warn,
    /// The relay ends.
    Stop,
}

fn warn() -> ChangePolicy {
    ChangePolicy::Warn
}

impl OutboxTable {
    /// A table with all that the preset says.
    pub fn new(table: impl Into<String>, preset: OutboxPreset) -> Self {
        OutboxTable {
            table: table.into(),
            preset,
            columns: OutboxColumns::default(),
            created_at_unit: TimeUnit::default(),
            headers: Vec::new(),
            envelope: Vec::new(),
            topic_prefix: None,
            on_update: warn(),
            on_delete: ChangePolicy::default(),
        }
    }

    /// Schema and name.
    pub(crate) fn qualified(&self) -> (&str, &str) {
        self.table.split_once('.').unwrap_or(("public", &self.table))
    }

    /// What comes before the dot in a topic's name; none for the pipeline's own.
    pub(crate) fn topic_prefix(&self) -> Option<&str> {
        let usual = (self.preset == OutboxPreset::Debezium).then_some("outbox.event");
        self.topic_prefix.as_deref().or(usual)
    }

    /// `headers`, as columns and the names that they get.
    pub(crate) fn header_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|entry| aliased(entry))
    }

    /// `envelope`, as columns and the names that they get.
    pub(crate) fn envelope_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.envelope.iter().map(|entry| aliased(entry))
    }
}

/// `column:alias`, or a column that keeps its name.
fn aliased(entry: &str) -> (&str, &str) {
    entry.split_once(':').unwrap_or((entry, entry))
}
