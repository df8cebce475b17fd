//! Validates `[[outbox]]` and `[retention]`.

use super::{Check, humantime, kafka::check_topic_prefix, positive, quoted, text, wrong};
use crate::config::{
    ChangePolicy, Config, Converter, OutboxPreset, OutboxTable, Source, TablePattern,
};

pub(super) fn check(source: Option<Source>, tables: &[OutboxTable]) -> Check {
    if source == Some(Source::Messages) && !tables.is_empty() {
        let problem = "the tables of [[outbox]] would not be read; leave one of the two out";
        return wrong("postgres.source", "\"messages\"", problem);
    }
    for (index, table) in tables.iter().enumerate() {
        let setting = |name: &str| format!("outbox[{index}].{name}");
        let pattern = match TablePattern::parse(&table.table) {
            Ok(pattern) => pattern,
            Err(problem) => return wrong(setting("table"), quoted(&table.table), problem),
        };
        let mut earlier = tables.iter().take(index);
        if earlier.any(|other| other.pattern() == pattern) {
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
        check_debezium(table, &setting)?;
        for (name, column) in
            [("partition", &table.partition), ("trace_context", &table.trace_context)]
        {
            text(&setting(name), column.as_deref().unwrap_or("not set"))?;
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

/// Checks what depends on the preset `debezium`.
fn check_debezium(table: &OutboxTable, setting: &impl Fn(&str) -> String) -> Check {
    let Some(connect) = &table.connect else {
        let debezium = table.preset == OutboxPreset::Debezium;
        if debezium && (table.columns.metadata.is_some() || !table.envelope.is_empty()) {
            let has_metadata = table.columns.metadata.is_some();
            let name = if has_metadata { "columns.metadata" } else { "envelope" };
            let problem = "the preset debezium sends the payload as it is, without an envelope; \
                           use outbox.headers, or outbox.connect with an envelope in JSON";
            return wrong(setting(name), "given", problem);
        }
        return Ok(());
    };
    if table.preset != OutboxPreset::Debezium {
        let problem = "converters of Kafka Connect are for the preset debezium";
        return wrong(setting("connect"), "given", problem);
    }
    if table.columns.metadata.is_some() {
        let problem = "the preset debezium has no metadata; use outbox.headers";
        return wrong(setting("columns.metadata"), "given", problem);
    }
    for (name, converter) in [("key", connect.key), ("value", connect.value)] {
        if converter == Converter::Simple {
            let problem = "is a converter for headers alone";
            return wrong(setting(&format!("connect.{name}")), converter.as_str(), problem);
        }
    }
    if connect.headers == Converter::Bytes {
        let problem = "is a converter for keys and values alone";
        return wrong(setting("connect.headers"), connect.headers.as_str(), problem);
    }
    if !connect.value.is_json() && (connect.expand_json || !table.envelope.is_empty()) {
        let problem = "can't send a payload that is expanded, or in an envelope: use json";
        return wrong(setting("connect.value"), connect.value.as_str(), problem);
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
        if let Err(problem) = TablePattern::parse(name) {
            return wrong("retention.tables", quoted(name), problem);
        }
    }
    let read = config.outbox_tables();
    let reacts_to_deletes = |table: &&OutboxTable| {
        let (pattern, name) = (table.pattern(), table.name());
        let is_same = |read: &OutboxTable| read.pattern() == pattern;
        let covers =
            |read: &OutboxTable| name.as_ref().is_some_and(|name| read.pattern().matches(name));
        table.on_delete != ChangePolicy::Ignore
            && read.iter().any(|read| is_same(read) || covers(read))
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
