//! Builds the errors of loading a configuration: each names the setting and its source, none shows
//! a secret.

use std::path::Path;

use figment::value::Value;

use super::{
    Mistake,
    reference::{Setting, nearest, settings},
    secret::REDACTED,
};
use crate::{Error, ErrorKind};

/// The error for an unknown setting; it does not show the value.
pub(crate) fn unknown(name: &str, source: &str) -> Error {
    let failure = format!("unknown setting {name} in {source}");
    let names = settings().iter().map(|setting| setting.name);
    let sections = settings().iter().filter_map(|s| Some(s.name.rsplit_once('.')?.0));
    Error::new(ErrorKind::Config, failure).remedy(match nearest(name, names.chain(sections)) {
        Some(name) => format!("did you mean {name}?"),
        None => "`factlib config --reference` lists all settings".into(),
    })
}

/// The error for a value of the wrong type.
pub(crate) fn wrong_type(
    setting: &Setting,
    key: Option<&str>,
    value: &Value,
    source: &str,
) -> Error {
    let shown = if setting.is_secret(key) { REDACTED.into() } else { shown(value) };
    let expected = if key.is_some() { "a text".into() } else { setting.kind.expected() };
    let key = key.map(|key| format!(".{key}")).unwrap_or_default();
    let setting = format!("{}{key}", setting.name);
    Mistake { setting, value: Some(shown), problem: format!("expected {expected}") }
        .error(Some(source))
}

/// The error for a file that can't be read.
pub(crate) fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let failure = format!("cannot read the configuration file {}", path.display());
    Error::new(ErrorKind::Config, failure).caused_by(error)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, switch) => switch.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => "a number".into(),
        },
        Value::Array(_, values) => {
            format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        _ => "a table".into(),
    }
}
