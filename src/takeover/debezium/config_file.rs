//! Reads a connector's keys and values from the text of its file, with the line of each.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    connector::{Entry, Runtime},
    server_names::as_connect,
};
use crate::java_properties;

/// The content of a file.
#[derive(Debug)]
pub(super) struct FileContent {
    pub runtime: Runtime,
    /// The name beside `config`, which Kafka Connect takes over that within.
    pub name: Option<String>,
    pub entries: BTreeMap<String, Entry>,
}

/// Reads a connector's file: JSON if it begins with a brace, else properties. A property that
/// begins with `debezium.` makes it a file of Debezium Server.
///
/// # Errors
/// The reason why the text is neither.
pub(super) fn parse(text: &str) -> Result<FileContent, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') { json(text) } else { of_properties(text) }
}

fn of_properties(text: &str) -> Result<FileContent, String> {
    let properties = java_properties::parse(text);
    let is_server = |key: &str| key.starts_with("debezium.") || key.starts_with("DEBEZIUM_");
    let runtime = match properties.iter().any(|property| is_server(&property.key)) {
        true => Runtime::DebeziumServer,
        false => Runtime::KafkaConnect,
    };
    let mut entries = BTreeMap::new();
    for java_properties::Property { key: original, value, line } in properties {
        let (key, value) = match runtime {
            Runtime::DebeziumServer => as_connect(&original, &value),
            Runtime::KafkaConnect => (original.clone(), value),
        };
        entries.insert(key, Entry { value: value.trim().to_owned(), original, line });
    }
    if entries.is_empty() {
        Err("it has no property".into())
    } else {
        Ok(FileContent { runtime, name: None, entries })
    }
}

fn json(text: &str) -> Result<FileContent, String> {
    let document: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (name, config) = match (document.get("name"), document.get("config")) {
        (name, Some(config)) => (name.and_then(Json::as_str).map(str::to_owned), config),
        (_, None) => (None, &document),
    };
    let Json::Object(config) = config else { return Err("its \"config\" is not an object".into()) };
    let mut entries = BTreeMap::new();
    for (key, value) in config {
        let value = match value {
            Json::String(text) => text.trim().to_owned(),
            Json::Null => continue,
            Json::Bool(_) | Json::Number(_) => value.to_string(),
            Json::Array(_) | Json::Object(_) => return Err(format!("its {key:?} is not a text")),
        };
        let entry = Entry { value, original: key.clone(), line: line_of(text, key) };
        entries.insert(key.clone(), entry);
    }
    Ok(FileContent { runtime: Runtime::KafkaConnect, name, entries })
}

/// Finds the line of a key; 0 if the file writes it with escapes.
fn line_of(text: &str, key: &str) -> usize {
    let quoted = Json::from(key).to_string();
    let is_key = |line: &str| {
        line.match_indices(&quoted).any(|(at, found)| {
            let behind = line.get(at + found.len()..).unwrap_or_default().trim_start();
            behind.starts_with(':')
        })
    };
    text.lines().position(is_key).map_or(0, |at| at + 1)
}
