//! Validates `[[outbox]]` and `[retention]`.

use super::{Check, humantime, kafka::check_topic_prefix, positive, quoted, text, wrong};
use crate::config::{ChangePolicy, Config, OutboxPreset, OutboxTable, Source};

pub(super) fn check(source: Option<Source>, tables: &[OutboxTable]) -> Check {
    if source == Some(Source::Messages) && !tables.is_empty() {
        let problem = "the tables of [[outbox]] would not be read; leave one of the two out";
        return wrong("postgres.source", "\"messages\"", problem);
    }
    for (index, table) in tables.iter().enumerate() {
        let setting = |name: &str| format!("outbox[{index}].{name}");
        let (schema, name) = table.qualified();
        if schema.trim().is_empty() || name.trim().is_empty() {
            return wrong(setting("table"), quoted(&table.table), "expected schema.table");
        }
        let earlier = tables.iter().take(index);
        if earlier.into_iter().any(|other| other.qualified() == table.qualified()) {
            return wrong(setting("table"), quoted(&table.table), "is listed twice");
        }
        let columns = &table.columns;
        for (name, column) in [
            ("id", &columns.id),
            ("aggregate_type", &columns.aggregate_type),
            ("aggregate_id", &columns.aggregate_id),
            ("event_type", &columns.event_type),
            ("payload", &columns.payload),
            ("created_at", &columns.created_at),
            ("metadata", &columns.metadata),
        ] {
            let column = column.as_deref().unwrap_or("named by the preset");
            text(&setting(&format!("columns.{name}")), column)?;
        }
        let debezium = table.preset == OutboxPreset::Debezium;
        if debezium && (columns.metadata.is_some() || !table.envelope.is_empty()) {
            let name = if columns.metadata.is_some() { "columns.metadata" } else { "envelope" };
            let problem = "the preset debezium sends the payload as it is, without an envelope; \
                           use outbox.headers";
            return wrong(setting(name), "given", problem);
        }
        for (list, entries) in [("headers", &table.headers), ("envelope", &table.envelope)] {
            // Kafka's client takes header names as C strings.
            let blank = |entry: &String| {
                entry.contains('\0') || entry.split(':').any(|part| part.trim().is_empty())
            };
            if let Some(entry) = entries.iter().find(|entry| blank(entry)) {
                return wrong(setting(list), quoted(entry), "expected column or column:name");
            }
        }
        if let Some(prefix) = &table.topic_prefix {
            check_topic_prefix(&setting("topic_prefix"), prefix)?;
        }
    }
    Ok(())
}

pub(super) fn check_retention(config: &Config) -> Check {
    let retention = &config.retention;
    if let Some(after) = retention.after {
        positive("retention.after", after)?;
    }
    if retention.batch == 0 {
        return wrong("retention.batch", 0, "must be above zero");
    }
    positive("retention.interval", retention.interval)?;
    for name in &retention.tables {
        text("retention.tables", name)?;
    }
    let read = config.outbox_tables();
    let reacts_to_deletes = |table: &&OutboxTable| {
        table.on_delete != ChangePolicy::Ignore
            && read.iter().any(|read| read.qualified() == table.qualified())
    };
    if let Some(table) = config.retention_tables().iter().find(reacts_to_deletes) {
        let problem = format!(
            "the relay removes rows of {} itself: its outbox.on_delete has to be \"ignore\"",
            table.table
        );
        let after = retention.after.map(humantime).unwrap_or_default();
        return wrong("retention.after", after, problem);
    }
    Ok(())
}
