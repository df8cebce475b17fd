//! Headers of a dead letter, behind those of the record that it could not be.

/// Why it was refused.
pub const ERROR: &str = "dead_letter_error";
/// Where it should have gone; empty where that could not be told.
pub const TOPIC: &str = "dead_letter_topic";
/// When it was parked, in Unix milliseconds.
pub const TIME_MS: &str = "dead_letter_time_ms";
/// The aggregate type of the handler that had it; only where no topic refused it.
pub const HANDLER: &str = "dead_letter_handler";
/// The table that has its bytes, under its LSN; the record's value is empty.
pub const TABLE: &str = "dead_letter_table";
/// What the headers `event_id`, `event_type` and `LSN` would say, where the record has
/// none of these because its value is a payload by itself.
pub const EVENT_ID: &str = "dead_letter_event_id";
pub const AGGREGATE_TYPE: &str = "dead_letter_aggregate_type";
pub const EVENT_TYPE: &str = "dead_letter_event_type";
pub const LSN: &str = "dead_letter_lsn";
/// What a table says comes before the dot in a topic's name.
pub const TOPIC_PREFIX: &str = "dead_letter_topic_prefix";
/// How to read the value, which is a table's row as JSON: its table, its commit's time and the
/// types of its columns.
pub const ROW: &str = "dead_letter_row";
/// The time that its record asked for, in Unix milliseconds: the letter has that of parking.
pub const RECORD_TIME_MS: &str = "dead_letter_record_time_ms";
/// All of these.
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
