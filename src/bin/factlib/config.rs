//! `factlib config`: prints the configuration in effect, the settings reference or an example file.

use factlib::{
    Error, ErrorKind, Result,
    binary::{Loaded, Sourced, example, markdown},
};
use serde_json::json;

use crate::args::ConfigArgs;

/// The reference or the example file if one was asked for; neither needs a configuration.
pub fn reference(args: &ConfigArgs) -> Option<String> {
    match (args.reference, args.example) {
        (true, _) => Some(markdown()),
        (_, true) => Some(example()),
        _ => None,
    }
}

/// The configuration in effect, as TOML with each value's source in a comment, or as JSON.
pub fn effective(args: &ConfigArgs, loaded: &Loaded) -> Result<String> {
    if args.json {
        let entry = |v: &Sourced| json!({"name": v.name, "value": v.value, "source": v.source});
        let entries: Vec<_> = loaded.values.iter().map(entry).collect();
        let what = "cannot write the configuration as JSON";
        let text = serde_json::to_string_pretty(&entries)
            .map_err(|error| Error::new(ErrorKind::Config, what).caused_by(error))?;
        return Ok(text + "\n");
    }
    let lines: Vec<_> = loaded.values.iter().map(|v| (line(v), v.source.as_str())).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    Ok(lines.iter().map(|(line, source)| format!("{line:width$}  # {source}\n")).collect())
}

/// The line that sets this value in a file; a comment if it is unset or redacted.
fn line(value: &Sourced) -> String {
    match &value.value {
        serde_json::Value::Null => format!("# {} is not set", value.name),
        shown if shown == "[redacted]" => format!("# {} = {shown}", value.name),
        shown => format!("{} = {}", value.name, toml(shown)),
    }
}

/// Writes the value as TOML on one line.
fn toml(value: &serde_json::Value) -> String {
    use serde_json::Value::{Array, Object};
    let separated = |parts: Vec<String>| parts.join(", ");
    match value {
        Array(values) => format!("[{}]", separated(values.iter().map(toml).collect())),
        Object(table) => {
            // TOML has no null: an unset key is left out.
            let set = table.iter().filter(|(_, value)| !value.is_null());
            let entries = set.map(|(key, value)| format!("{} = {}", name(key), toml(value)));
            let entries = entries.collect();
            format!("{{ {} }}", separated(entries))
        }
        // TOML writes scalars as JSON does.
        scalar => scalar.to_string(),
    }
}

/// Writes a TOML key, quoted unless it is a legal bare key.
fn name(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => serde_json::Value::from(key).to_string(),
    }
}
