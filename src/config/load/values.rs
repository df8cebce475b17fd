//! Merges the given values and answers where each came from, for messages and `factlib config`.

use std::collections::BTreeMap;

use figment::{
    Figment,
    value::{Tag, Value},
};

use super::{Given, Sourced};
use crate::{
    Error, ErrorKind, Result,
    config::{
        Config,
        explain::wrong_type,
        reference::{Kind, find, settings},
    },
};

/// The given values, merged, with their sources.
pub(super) struct Values {
    figment: Figment,
    /// Source of the whole array and location, by path within an array of tables (`route[1].topic`).
    locations: BTreeMap<String, (String, String)>,
}

impl Values {
    pub fn new(given: Vec<Given>) -> Self {
        let mut locations = BTreeMap::new();
        for given in &given {
            let whole = || given.source.clone();
            let inner = given.locations.iter();
            locations.extend(inner.map(|(path, source)| (path.clone(), (whole(), source.clone()))));
        }
        let figment = given.into_iter().fold(Figment::new(), Figment::merge);
        Values { figment, locations }
    }

    /// The configuration that the values make.
    pub fn config(&self) -> Result<Config> {
        self.figment.extract().map_err(|error| refused(self, error))
    }

    /// The value given for a setting.
    fn value(&self, name: &str) -> Option<Value> {
        let (setting, key) = find(name)?;
        let value = self.figment.find_value(setting.name).ok()?;
        match key {
            // Names within tables may contain dots.
            Some(key) => value.into_dict()?.remove(key),
            None => Some(value),
        }
    }

    /// The source of a setting, or of a path within an array of tables.
    pub fn source(&self, name: &str) -> Option<String> {
        let Some((array, _)) = name.split_once('[') else {
            return self.source_of(self.value(name)?.tag());
        };
        let whole = self.source(array)?;
        // The innermost enclosing path that has a location.
        let mut path = name;
        loop {
            let location = self.locations.get(path);
            if let Some((_, location)) = location.filter(|(source, _)| *source == whole) {
                return Some(location.clone());
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return Some(whole),
            }
        }
    }

    fn source_of(&self, tag: Tag) -> Option<String> {
        Some(self.figment.get_metadata(tag)?.name.to_string())
    }
}

/// Translates serde's error into one about a setting.
fn refused(values: &Values, error: figment::Error) -> Error {
    // Within an array of tables, serde's own text says what is wrong.
    if let [name, index, rest @ ..] = &error.path[..]
        && let Some((setting, None)) = find(name)
        && setting.kind == Kind::Tables
    {
        let path = [&[format!("{name}[{index}]")], rest].concat().join(".");
        let source = values.source(&path).unwrap_or_default();
        return Error::new(ErrorKind::Config, format!("{path} from {source}: {}", error.kind));
    }
    // An element of a list has its index at the end of the path.
    let paths = (1..=error.path.len()).rev().filter_map(|length| error.path.get(..length));
    let names = paths.map(|path| path.join("."));
    for name in names {
        if let (Some((setting, key)), Some(value)) = (find(&name), values.value(&name)) {
            let source = values.source(&name).unwrap_or_default();
            return wrong_type(setting, key, &value, &source);
        }
    }
    let failure = format!("cannot read setting {}", error.path.join("."));
    Error::new(ErrorKind::Config, failure)
}

/// Every setting with its value and source.
pub(super) fn sourced(values: &Values, config: &Config) -> Result<Vec<Sourced>> {
    let failure = "cannot show the configuration";
    let config = serde_json::to_value(config)
        .map_err(|error| Error::new(ErrorKind::Config, failure).caused_by(error))?;
    let mut all = Vec::new();
    let mut add = |name: &str, shown: String, value: &serde_json::Value| {
        let source = values.source(name).unwrap_or_else(|| "default".into());
        all.push(Sourced { name: shown, value: value.clone(), source });
    };
    for setting in settings() {
        let pointer = format!("/{}", setting.name.replace('.', "/"));
        match config.pointer(&pointer) {
            Some(serde_json::Value::Object(table)) => {
                for (key, value) in table {
                    let name = format!("{}.{key}", setting.name);
                    add(&name, format!("{}.{key:?}", setting.name), value);
                }
            }
            Some(value) => add(setting.name, setting.name.into(), value),
            None => {}
        }
    }
    Ok(all)
}
