//! The settings that decide how the server writes values as text. They are set after the log-in:
//! as start-up parameters, a pooler such as PgBouncer refuses those that it does not track.
//!
//! PostgreSQL's own subscriber pins the first five (`libpqrcv_connect`); the others make up for
//! what it has no need of, because it knows the types of its columns.

/// Names and values, whatever the server's, the database's or the role's defaults are.
pub const TEXT_SETTINGS: [(&str, &str); 7] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    // So many digits that a number read again is the same.
    ("extra_float_digits", "3"),
    // Names of tables, types and functions are written with their schemas.
    ("search_path", ""),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
];
