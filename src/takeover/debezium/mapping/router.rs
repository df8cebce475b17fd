//! Maps the options of the outbox event router, and other transformations.

use super::{
    Equivalence, Mapper,
    draft::setting,
    topics::{Topics, topics},
};
use crate::takeover::debezium::Runtime;

/// The class of the outbox event router.
const EVENT_ROUTER: &str = "io.debezium.transforms.outbox.EventRouter";
/// The topics of Debezium's default.
const DEFAULT_REGEX: &str = "(?<routedByValue>.*)";
const DEFAULT_REPLACEMENT: &str = "outbox.event.${routedByValue}";

/// Columns by the router's options.
const COLUMNS: [(&str, &str); 5] = [
    ("table.field.event.id", "id"),
    ("route.by.field", "aggregate_type"),
    ("table.field.event.key", "aggregate_id"),
    ("table.field.event.type", "event_type"),
    ("table.field.event.payload", "payload"),
];

impl Mapper<'_> {
    pub(super) fn router(&mut self) {
        let names = self.connector.get("transforms").unwrap_or_default().to_owned();
        let mut names: Vec<&str> = names.split(',').map(str::trim).collect();
        names.retain(|name| !name.is_empty());
        let class = |name: &str| self.connector.get(&format!("transforms.{name}.type"));
        let router = names.iter().find(|name| class(name) == Some(EVENT_ROUTER)).copied();
        match router {
            Some(_) => self.say("transforms", Equivalence::Maps, "preset = \"debezium\""),
            None => {
                let note = format!(
                    "{EVENT_ROUTER} is not among them: factlib takes over its records, and not those of plain change events"
                );
                match names.is_empty() {
                    true => self.say_default("transforms", "none", Equivalence::Missing, &note),
                    false => self.say("transforms", Equivalence::Missing, note),
                }
            }
        }
        for name in names.iter().filter(|name| Some(**name) != router) {
            self.other_transformation(name);
        }
        if let Some(name) = router {
            self.say(
                &format!("transforms.{name}.type"),
                Equivalence::Maps,
                "preset = \"debezium\"",
            );
            self.columns(name);
            self.topics(name);
            self.placement(name);
            self.payload(name);
            self.policies(name);
        }
    }

    fn other_transformation(&mut self, name: &str) {
        let prefix = format!("transforms.{name}.");
        let keys = self.connector.entries().map(|(key, _)| key.to_owned());
        let keys: Vec<_> = keys.filter(|key| key.starts_with(&prefix)).collect();
        for key in keys {
            let note = "factlib has no other transformations: a [[route]] can change topic, key and headers, a handler everything";
            self.say(&key, Equivalence::Missing, note);
        }
    }

    fn option(&self, name: &str, option: &str) -> (String, Option<String>) {
        let key = format!("transforms.{name}.{option}");
        let value = self.connector.get(&key).map(str::to_owned);
        (key, value)
    }

    /// An option that is a boolean or one of some words, in lower case: Debezium ignores the case.
    fn word(&self, name: &str, option: &str) -> (String, Option<String>) {
        let (key, value) = self.option(name, option);
        (key, value.map(|value| value.trim().to_ascii_lowercase()))
    }

    fn columns(&mut self, name: &str) {
        for (option, column) in COLUMNS {
            let (key, Some(value)) = self.option(name, option) else { continue };
            self.draft.outbox.push(setting(&format!("columns.{column}"), value));
            self.say(&key, Equivalence::Maps, format!("outbox.columns.{column}"));
        }
        if let (key, Some(value)) = self.option(name, "table.field.event.timestamp") {
            if self.connector.runtime() == Runtime::DebeziumServer {
                let note =
                    "Debezium Server does not send it; factlib does with outbox.columns.created_at";
                self.say(&key, Equivalence::Differs, note);
            } else {
                self.draft.outbox.push(setting("columns.created_at", value));
                self.say(&key, Equivalence::Maps, "outbox.columns.created_at");
            }
        }
        let (key, version) = self.option(name, "table.field.event.schema.version");
        if version.is_some() {
            let note =
                "records have no version of a schema: it is in the schema of an envelope only";
            self.say(&key, Equivalence::Differs, note);
        }
        let (key, _) = self.option(name, "table.field.event.payload.id");
        self.say(&key, Equivalence::Harmless, "Debezium ignores it too");
    }

    fn topics(&mut self, name: &str) {
        let (regex_key, regex) = self.option(name, "route.topic.regex");
        let (replacement_key, replacement) = self.option(name, "route.topic.replacement");
        let regex = regex.unwrap_or_else(|| DEFAULT_REGEX.into());
        let replacement = replacement.unwrap_or_else(|| DEFAULT_REPLACEMENT.into());
        let note = match topics(&regex, &replacement) {
            Ok(Topics::Prefix(prefix)) => {
                if prefix != "outbox.event" {
                    self.draft.outbox.push(setting("topic_prefix", prefix));
                }
                "outbox.topic_prefix"
            }
            Ok(Topics::Template(template)) => {
                self.draft.routes.push(vec![setting("topic", template)]);
                "a [[route]] for every event"
            }
            Ok(Topics::Matching { pattern, template }) => {
                self.draft.routes.push(vec![
                    setting("match.aggregate_type", pattern),
                    setting("topic", template),
                ]);
                // Debezium does not touch what does not match.
                self.draft.routes.push(vec![setting("topic", "{aggregate_type}")]);
                "a [[route]] for the aggregate types that match, and one for the others"
            }
            Err(why) => {
                self.say(&regex_key, Equivalence::Missing, why.clone());
                return self.say(&replacement_key, Equivalence::Missing, why);
            }
        };
        self.say(&regex_key, Equivalence::Maps, note);
        self.say(&replacement_key, Equivalence::Maps, note);
    }

    fn placement(&mut self, name: &str) {
        let (key, placement) = self.option(name, "table.fields.additional.placement");
        let Some(placement) = placement else { return };
        let (mut headers, mut envelope) = (Vec::<String>::new(), Vec::<String>::new());
        let (mut is_read, mut unused) = (true, None);
        for entry in placement.split(',') {
            let parts: Vec<&str> = entry.split(':').map(str::trim).collect();
            let (column, place, alias) = match parts[..] {
                [column, place] => (column, place, column),
                [column, place, alias] => (column, place, alias),
                _ => ("", "", ""),
            };
            let named = match column == alias {
                true => column.to_owned(),
                false => format!("{column}:{alias}"),
            };
            match place.to_ascii_lowercase().as_str() {
                "header" => headers.push(named),
                "envelope" => envelope.push(named),
                "partition" if self.connector.runtime() == Runtime::DebeziumServer => {
                    unused = Some(column.to_owned());
                }
                "partition" => self.draft.outbox.push(setting("partition", column)),
                _ => is_read = false,
            }
        }
        if !headers.is_empty() {
            self.draft.outbox.push(setting("headers", headers));
        }
        if !envelope.is_empty() {
            self.draft.outbox.push(setting("envelope", envelope));
            if let Some(prefix) = self.connector.topic_prefix() {
                self.draft.connect.push(setting("topic_prefix", prefix));
            }
        }
        match is_read {
            true if unused.is_some() => {
                let column = unused.unwrap_or_default();
                let note = format!("Debezium Server does not send to the partition of {column}, nor does factlib");
                self.say(&key, Equivalence::Differs, note);
            }
            true => self.say(&key, Equivalence::Maps, "outbox.headers, outbox.envelope and outbox.partition"),
            false => self.say(&key, Equivalence::Missing, "expected column:placement or column:placement:alias, with header, envelope or partition"),
        }
    }

    fn payload(&mut self, name: &str) {
        let (key, expand) = self.word(name, "table.expand.json.payload");
        let expands = expand.as_deref() == Some("true");
        if expands {
            self.draft.connect.push(setting("expand_json", true));
        }
        self.say(&key, Equivalence::Maps, "outbox.connect.expand_json");
        for (option, kept, name_here) in [
            ("table.json.payload.null.behavior", "optional_bytes", "keep_nulls"),
            ("table.json.payload.empty.array.behavior", "optional_string", "keep_empty_arrays"),
        ] {
            let (key, value) = self.word(name, option);
            if expands && value.as_deref() == Some(kept) {
                self.draft.connect.push(setting(name_here, true));
            }
            self.say(&key, Equivalence::Maps, format!("outbox.connect.{name_here}"));
        }
        let (key, tombstone) = self.word(name, "route.tombstone.on.empty.payload");
        if tombstone.as_deref() == Some("true") {
            self.draft.connect.push(setting("tombstone_on_empty", true));
        }
        self.say(&key, Equivalence::Maps, "outbox.connect.tombstone_on_empty");
    }

    fn policies(&mut self, name: &str) {
        let (key, behavior) = self.word(name, "table.op.invalid.behavior");
        let policy = match behavior.as_deref() {
            Some("error") => "error",
            Some("fatal") => "stop",
            _ => "warn",
        };
        if policy != "warn" {
            self.draft.outbox.push(setting("on_update", policy));
        }
        self.say(&key, Equivalence::Maps, "outbox.on_update");
        for option in ["table.fields.additional.error.on.missing", "table.field.additional.missing"]
        {
            let (key, value) = self.word(name, option);
            if matches!(value.as_deref(), Some("false" | "ignore")) {
                self.draft.outbox.push(setting("ignore_missing", true));
            }
            self.say(&key, Equivalence::Maps, "outbox.ignore_missing");
        }
        let spans = "factlib makes no span of its own";
        for (option, note) in [
            (
                "tracing.span.context.field",
                format!("{spans}; outbox.trace_context sends the trace that the column holds"),
            ),
            ("tracing.operation.name", spans.to_owned()),
            ("tracing.with.context.field.only", spans.to_owned()),
        ] {
            let (key, value) = self.option(name, option);
            if option == "tracing.span.context.field"
                && let Some(column) = value
            {
                self.draft.outbox.push(setting("trace_context", column));
            }
            self.say(&key, Equivalence::Differs, note);
        }
        let (key, predicate) = self.option(name, "predicate");
        if predicate.is_some() {
            self.say(
                &key,
                Equivalence::Differs,
                "the tables of [[outbox]] decide which rows are events",
            );
        }
        let (key, _) = self.option(name, "negate");
        self.say(
            &key,
            Equivalence::Differs,
            "the tables of [[outbox]] decide which rows are events",
        );
    }
}
