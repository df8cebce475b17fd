//! Reserved metadata keys: those that mean something to the relay.
//!
//! The `OutboxEvent` is the Go library's and has no fields for these; as metadata they
//! go through tables, SQL and every other client's messages alike.
//!
//! | key | meaning |
//! | --- | --- |
//! | `content_type` | what the payload is; the relay leaves it to consumers |
//! | `factlib.key` | the record's key, in place of the aggregate id |
//! | `factlib.partition` | the record's partition, in place of the key's |
//! | `factlib.timestamp_ms` | the record's time, Unix milliseconds, in place of the time of sending |
//! | `traceparent`, `tracestate` | headers of the same name |
//! | `factlib.trace_id`, `factlib.span_id` | `trace_info`'s, where there is no such field: in a table |
//! | `factlib.trace.NAME` | `trace_info.metadata`'s entry `NAME`, likewise: the header `NAME` |

/// The payload's media type.
pub const CONTENT_TYPE: &str = "content_type";
/// The record's key.
pub const KEY: &str = "factlib.key";
/// The record's partition.
pub const PARTITION: &str = "factlib.partition";
/// The record's time, Unix milliseconds.
pub const TIMESTAMP_MS: &str = "factlib.timestamp_ms";
/// W3C trace context: the header of the same name.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context: the header of the same name.
pub const TRACESTATE: &str = "tracestate";
/// The trace's id.
pub const TRACE_ID: &str = "factlib.trace_id";
/// The span's id.
pub const SPAN_ID: &str = "factlib.span_id";
/// The prefix of the keys of other headers.
pub const TRACE_PREFIX: &str = "factlib.trace.";

/// The key that becomes the header `name`.
pub(crate) fn trace_header(name: &str) -> String {
    match name {
        TRACEPARENT | TRACESTATE => name.into(),
        name => format!("{TRACE_PREFIX}{name}"),
    }
}
