//! The settings that determine how the server writes values as text.
//!
//! They are set after the login: a pooler such as PgBouncer refuses start-up parameters that it does
//! not track. PostgreSQL's own subscriber sets the first five (`libpqrcv_connect`); it does not need
//! the others, because it knows the types of its columns.

/// Names and values; they override the defaults of server, database and role.
pub const TEXT_SETTINGS: [(&str, &str); 7] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    // Enough digits for numbers to round-trip.
    ("extra_float_digits", "3"),
    // Names of tables, types and functions are written with their schemas.
    ("search_path", ""),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
];
