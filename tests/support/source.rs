//! From where the relay under test reads.

/// True if it reads an outbox table in place of logical messages: `CHAOS_SOURCE=tables`.
pub fn reads_tables() -> bool {
    std::env::var("CHAOS_SOURCE").is_ok_and(|source| source == "tables")
}
