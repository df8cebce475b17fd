//! Facts as one statement: its SQL, and parameters that every driver can bind.

use std::{borrow::Cow, collections::BTreeMap};

use prost::Message;

use crate::{
    Error, ErrorKind, Result,
    proto::{OutboxEvent, TraceInfo},
    reserved,
};

const MESSAGE: &str = "SELECT pg_logical_emit_message(true, $1, $2)";

/// The order of the array is the order in the WAL.
const MESSAGES: &str = "\
SELECT pg_logical_emit_message(true, $1, message)
FROM unnest($2) WITH ORDINALITY AS facts (message, n) ORDER BY n";

/// Columns of the outbox table, as [`Rows`] gives them. Microseconds are exact: up to
/// 2^53 of them, the year 2255, the product is.
const INSERT: &str =
    " (id, aggregate_type, aggregate_id, event_type, payload, created_at, metadata)
SELECT id::uuid, aggregate_type, aggregate_id, event_type, payload,
       timestamptz 'epoch' + created_us * interval '1 microsecond', metadata::jsonb
FROM ";

/// One statement and its parameters; it is sent in one round trip.
#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "tokio-postgres", feature = "sqlx", feature = "diesel-async")),
    allow(dead_code) // Only drivers read it.
)]
pub struct Statement {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) parameters: Vec<Parameter>,
}

/// A parameter. The types are these few because all drivers bind them without more features.
#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "tokio-postgres", feature = "sqlx", feature = "diesel-async")),
    allow(dead_code)
)]
pub(crate) enum Parameter {
    Text(String),
    Bytes(Vec<u8>),
    Texts(Vec<String>),
    ByteStrings(Vec<Vec<u8>>),
    Integers(Vec<i64>),
}

impl Statement {
    /// Emits the events as logical messages.
    pub(crate) fn messages(prefix: &str, events: &[OutboxEvent]) -> Self {
        let prefix = Parameter::Text(prefix.into());
        let (sql, messages) = match events {
            [event] => (MESSAGE, Parameter::Bytes(event.encode_to_vec())),
            events => (MESSAGES, encoded(events)),
        };
        Statement { sql: sql.into(), parameters: vec![prefix, messages] }
    }

    /// Inserts the events into a table, whose name is quoted already.
    pub(crate) fn rows(table: &str, events: Vec<OutboxEvent>) -> Result<Self> {
        let sql = format!(
            "INSERT INTO {table}{INSERT}unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY
AS facts (id, aggregate_type, aggregate_id, event_type, payload, created_us, metadata, n)
ORDER BY n"
        );
        Ok(Statement { sql: sql.into(), parameters: Rows::new(events)?.parameters() })
    }

    /// Inserts the events into a table and emits them as messages as well.
    pub(crate) fn rows_and_messages(
        table: &str,
        prefix: &str,
        events: Vec<OutboxEvent>,
    ) -> Result<Self> {
        let sql = format!(
            "WITH facts AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $9) WITH ORDINALITY
    AS facts (id, aggregate_type, aggregate_id, event_type, payload, created_us, metadata, message, n)
), kept AS (
    INSERT INTO {table}{INSERT}facts ORDER BY n
)
SELECT pg_logical_emit_message(true, $8, message) FROM facts ORDER BY n"
        );
        let messages = encoded(&events);
        let mut parameters = Rows::new(events)?.parameters();
        parameters.extend([Parameter::Text(prefix.into()), messages]);
        Ok(Statement { sql: sql.into(), parameters })
    }
}

fn encoded(events: &[OutboxEvent]) -> Parameter {
    Parameter::ByteStrings(events.iter().map(Message::encode_to_vec).collect())
}

/// Events by column.
#[derive(Default)]
struct Rows {
    ids: Vec<String>,
    aggregate_types: Vec<String>,
    aggregate_ids: Vec<String>,
    event_types: Vec<String>,
    payloads: Vec<Vec<u8>>,
    created_us: Vec<i64>,
    metadata: Vec<String>,
}

impl Rows {
    fn new(events: Vec<OutboxEvent>) -> Result<Self> {
        let mut rows = Rows::default();
        for event in events {
            let metadata = with_trace(event.metadata, event.trace_info);
            let texts = [&event.aggregate_type, &event.aggregate_id, &event.event_type];
            let texts = texts.into_iter().chain(metadata.iter().flat_map(|(k, v)| [k, v]));
            if texts.into_iter().any(|text| text.contains('\0')) {
                let what = format!("the fact {} has a NUL, which no row can have", event.id);
                return Err(Error::new(ErrorKind::InvalidFact, what));
            }
            rows.ids.push(event.id);
            rows.aggregate_types.push(event.aggregate_type);
            rows.aggregate_ids.push(event.aggregate_id);
            rows.event_types.push(event.event_type);
            rows.payloads.push(event.payload.into());
            rows.created_us.push(event.created_at.div_euclid(1_000));
            rows.metadata.push(serde_json::Value::from_iter(metadata).to_string());
        }
        Ok(rows)
    }

    fn parameters(self) -> Vec<Parameter> {
        use Parameter::*;
        vec![
            Texts(self.ids),
            Texts(self.aggregate_types),
            Texts(self.aggregate_ids),
            Texts(self.event_types),
            ByteStrings(self.payloads),
            Integers(self.created_us),
            Texts(self.metadata),
        ]
    }
}

/// A row has no column for the trace: it goes with the metadata, and the relay finds it there.
fn with_trace(
    mut metadata: BTreeMap<String, String>,
    trace: Option<TraceInfo>,
) -> BTreeMap<String, String> {
    if let Some(trace) = trace {
        metadata.insert(reserved::TRACE_ID.into(), trace.trace_id);
        metadata.insert(reserved::SPAN_ID.into(), trace.span_id);
        let headers = trace.metadata.into_iter();
        metadata.extend(headers.map(|(key, value)| (reserved::trace_header(&key), value)));
    }
    metadata
}

/// The name of a table as SQL has it: `schema.table` in quotes, part by part.
pub(crate) fn quoted(table: &str) -> Result<String> {
    let parts: Vec<&str> = table.split('.').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty() || part.contains('\0')) {
        let what = format!("{table:?} is no name of a table");
        return Err(Error::new(ErrorKind::Config, what).remedy("give `table` or `schema.table`"));
    }
    let quote = |part: &&str| format!("\"{}\"", part.replace('"', "\"\""));
    Ok(parts.iter().map(quote).collect::<Vec<_>>().join("."))
}
