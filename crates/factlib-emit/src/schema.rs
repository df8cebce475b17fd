//! SQL for the database: the outbox table, and functions that emit facts from any language.

use crate::{Result, statement::quoted};

/// Functions in the schema `factlib` that emit facts from SQL, such as
/// `factlib.emit(aggregate_type, aggregate_id, event_type, payload)`.
///
/// They can be installed again over an earlier version.
pub const FUNCTIONS: &str = include_str!("functions.sql");

/// The outbox table that [`Emitter::table`](crate::Emitter::table) writes, and its schema.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for a name that is no table's.
pub fn outbox_table(table: &str) -> Result<String> {
    let quoted = quoted(table)?;
    let schema = quoted.rsplit_once("\".\"").map(|(schema, _)| format!("{schema}\""));
    let schema = schema.map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {schema};\n"));
    Ok(format!(
        "{}CREATE TABLE IF NOT EXISTS {quoted} (
    id uuid PRIMARY KEY,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    event_type text NOT NULL,
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    metadata jsonb NOT NULL DEFAULT '{{}}',
    processed boolean NOT NULL DEFAULT false,
    processed_at timestamptz
);
",
        schema.filter(|_| !table.starts_with("public.")).unwrap_or_default()
    ))
}
