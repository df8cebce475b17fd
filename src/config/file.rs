//! Reads a TOML file: every value with the line that it is on.

use std::{collections::BTreeMap, path::Path};

use figment::value::{Dict, Value};
use toml_edit::{Document, Item, TableLike};

use super::{
    explain::{unknown, unreadable, wrong_type},
    load::Given,
    reference::{Kind, find, settings},
    secret_file::find_of_file,
};
use crate::{Error, ErrorKind, Result};

/// Reads the values in the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<Given>> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
    parse(path, &text)
}

/// Reads the values in a text, which messages name by `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Given>> {
    let file = File { name: path.display().to_string(), text };
    let document = Document::parse(text).map_err(|error| {
        // The error's own text shows the line, which may contain a secret.
        let line = file.line(error.span());
        Error::new(ErrorKind::Config, format!("{line} is not TOML: {}", error.message()))
    })?;
    let mut given = Vec::new();
    file.walk("", document.as_table(), &mut given)?;
    Ok(given)
}

struct File<'a> {
    name: String,
    text: &'a str,
}

impl File<'_> {
    fn walk(&self, path: &str, table: &dyn TableLike, given: &mut Vec<Given>) -> Result<()> {
        for (key, item) in table.iter() {
            let name = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            let key_span = table.get_key_value(key).and_then(|(key, _)| key.span());
            let source = self.line(item.span().or(key_span));
            if let (None, Some((setting, key))) = (item.as_table_like(), find_of_file(&name)) {
                let wrong = || wrong_type(setting, key, &Dict::new().into(), &source);
                let path = item.as_str().ok_or_else(wrong)?;
                given.push(Given::secret(setting, key.map(Into::into), path, source)?);
                continue;
            }
            match (item.as_table_like(), find(&name)) {
                (Some(inner), Some((setting, _))) if setting.kind == Kind::Table => {
                    self.walk(&name, inner, given)?;
                }
                (Some(inner), None) if is_section(&name) => self.walk(&name, inner, given)?,
                (_, Some((setting, key))) => {
                    let value = value(item, setting.kind, key.is_some())
                        .ok_or_else(|| wrong_type(setting, key, &Dict::new().into(), &source))?;
                    let mut locations = BTreeMap::new();
                    if setting.kind == Kind::Tables {
                        self.locate(&name, item, &mut locations);
                    }
                    let key = key.map(Into::into);
                    let (file, own_file) = (None, None);
                    given.push(Given { setting, key, value, source, locations, file, own_file });
                }
                (_, None) if is_section(&name) => {
                    let failure = format!("{name} in {source} is a section: expected [{name}]");
                    return Err(Error::new(ErrorKind::Config, failure));
                }
                (_, None) => return Err(unknown(&name, &source)),
            }
        }
        Ok(())
    }

    /// Adds the line of everything in an array of tables, by path: `name[1].match.event_type`.
    fn locate(&self, path: &str, item: &Item, to: &mut BTreeMap<String, String>) {
        let each = |inner: &dyn TableLike, path: &str, to: &mut BTreeMap<_, _>| {
            for (key, item) in inner.iter() {
                let path = format!("{path}.{key}");
                let key_span = inner.get_key_value(key).and_then(|(key, _)| key.span());
                to.insert(path.clone(), self.line(key_span.or(item.span())));
                self.locate(&path, item, to);
            }
        };
        if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                let path = format!("{path}[{index}]");
                to.insert(path.clone(), self.line(table.span()));
                each(table, &path, to);
            }
        } else if let Some(inner) = item.as_table_like() {
            each(inner, path, to);
        } else if let Some(values) = item.as_array() {
            for (index, value) in values.iter().enumerate() {
                let path = format!("{path}[{index}]");
                to.insert(path.clone(), self.line(value.span()));
                if let Some(inner) = value.as_inline_table() {
                    each(inner, &path, to);
                }
            }
        }
    }

    /// File and line of a span, for messages.
    fn line(&self, span: Option<std::ops::Range<usize>>) -> String {
        let before = span.and_then(|span| self.text.get(..span.start));
        match before {
            Some(before) => format!("{} line {}", self.name, before.matches('\n').count() + 1),
            None => self.name.clone(),
        }
    }
}

fn is_section(name: &str) -> bool {
    let within =
        |setting: &str| setting.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    settings().iter().any(|setting| within(setting.name))
}

/// Converts a value; its type is checked later. `None` for an array of tables where the setting
/// takes none.
fn value(item: &Item, kind: Kind, in_table: bool) -> Option<Value> {
    if let Some(text) = item.as_str() {
        let is_list = matches!(kind, Kind::List | Kind::CountOrList);
        return Some(if is_list { kind.read(text) } else { text.into() });
    }
    if let (Kind::Tables, Some(tables)) = (kind, item.as_array_of_tables()) {
        let all = tables.iter().map(|inner| table(inner));
        return Some(all.collect::<Option<Vec<_>>>()?.into());
    }
    let value = item.as_value()?;
    // `linger.ms = 5` equals `linger.ms = "5"`: properties are texts.
    if in_table && !value.is_array() && !value.is_inline_table() {
        return Some(scalar(value)?.into());
    }
    plain(value)
}

/// Parses a text as an inline TOML value.
pub(crate) fn inline(text: &str) -> Option<Value> {
    plain(&text.trim().parse().ok()?)
}

/// Converts one `[[name]]` with everything in it.
fn table(table: &dyn TableLike) -> Option<Value> {
    let entry = |(key, item): (&str, &Item)| {
        let value = match (item.as_table_like(), item.as_value()) {
            (Some(inner), _) => self::table(inner)?,
            (None, value) => plain(value?)?,
        };
        Some((key.to_owned(), value))
    };
    Some(table.iter().map(entry).collect::<Option<Dict>>()?.into())
}

fn plain(value: &toml_edit::Value) -> Option<Value> {
    use toml_edit::Value as Toml;
    Some(match value {
        Toml::String(text) => text.value().as_str().into(),
        Toml::Integer(number) => (*number.value()).into(),
        Toml::Float(number) => (*number.value()).into(),
        Toml::Boolean(switch) => (*switch.value()).into(),
        Toml::Datetime(time) => time.value().to_string().into(),
        Toml::Array(values) => values.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        Toml::InlineTable(inner) => table(inner)?,
    })
}

fn scalar(value: &toml_edit::Value) -> Option<String> {
    use toml_edit::Value as Toml;
    Some(match value {
        Toml::String(text) => text.value().clone(),
        Toml::Integer(number) => number.value().to_string(),
        Toml::Float(number) => number.value().to_string(),
        Toml::Boolean(switch) => switch.value().to_string(),
        Toml::Datetime(time) => time.value().to_string(),
        Toml::Array(_) | Toml::InlineTable(_) => return None,
    })
}
