//! Names of the headers that a dead letter has after those of the refused record.

/// Error for which the event was refused.
pub const ERROR: &str = "dead_letter_error";
/// Topic for which it was meant; empty if unknown.
pub const TOPIC: &str = "dead_letter_topic";
/// Time of parking, Unix milliseconds.
pub const TIME_MS: &str = "dead_letter_time_ms";
/// Aggregate type of the handler that had the event; absent if a topic refused it.
pub const HANDLER: &str = "dead_letter_handler";
/// Table that has the event's bytes under its LSN; the record's value is then empty.
pub const TABLE: &str = "dead_letter_table";
/// Event id, for a record without the header `event_id` because its value is a bare payload.
pub const EVENT_ID: &str = "dead_letter_event_id";
pub const AGGREGATE_TYPE: &str = "dead_letter_aggregate_type";
pub const EVENT_TYPE: &str = "dead_letter_event_type";
pub const LSN: &str = "dead_letter_lsn";
/// Topic prefix of the outbox table that the event came from.
pub const TOPIC_PREFIX: &str = "dead_letter_topic_prefix";
/// Table, commit time and column types of a row, which is the record's value as JSON.
pub const ROW: &str = "dead_letter_row";
/// Timestamp of the refused record, Unix milliseconds; the letter's own is the time of parking.
pub const RECORD_TIME_MS: &str = "dead_letter_record_time_ms";
/// All these names.
pub const ALL: [&str; 12] = [
    ERROR,
    TOPIC,
    TIME_MS,
    HANDLER,
    TABLE,
    EVENT_ID,
    AGGREGATE_TYPE,
    EVENT_TYPE,
    LSN,
    TOPIC_PREFIX,
    ROW,
    RECORD_TIME_MS,
];
