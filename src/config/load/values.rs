//! What was given, and where: for messages and for `factlib config`.

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
        explain::unfit,
        reference::{Kind, find, settings},
    },
};

/// What was given, and where.
pub(super) struct Values {
    figment: Figment,
    /// Of an array of tables, with the source of the whole: `route[1].topic`.
    places: BTreeMap<String, (String, String)>,
}

impl Values {
    pub fn new(given: Vec<Given>) -> Self {
        let mut places = BTreeMap::new();
        for given in &given {
            let whole = || given.source.clone();
            let inner = given.places.iter();
            places.extend(inner.map(|(path, source)| (path.clone(), (whole(), source.clone()))));
        }
        let figment = given.into_iter().fold(Figment::new(), Figment::merge);
        Values { figment, places }
    }

    /// The configuration that was given.
    pub fn config(&self) -> Result<Config> {
        self.figment.extract().map_err(|error| refused(self, error))
    }

    /// What was given for a setting.
    fn value(&self, name: &str) -> Option<Value> {
        let (setting, key) = find(name)?;
        let value = self.figment.find_value(setting.name).ok()?;
        match key {
            // Names within tables have dots of their own.
            Some(key) => value.into_dict()?.remove(key),
            None => Some(value),
        }
    }

    /// Where a setting comes from, or a part of an array of tables.
    pub fn source(&self, name: &str) -> Option<String> {
        let Some((array, _)) = name.split_once('[') else {
            return self.source_of(self.value(name)?.tag());
        };
        let whole = self.source(array)?;
        // The nearest thing around it that stands there by itself.
        let mut path = name;
        loop {
            if let Some((_, place)) = self.places.get(path).filter(|(of, _)| *of == whole) {
                return Some(place.clone());
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

/// What serde said, in terms of the setting.
fn refused(values: &Values, error: figment::Error) -> Error {
    // What is wrong within one of several tables, its own words say.
    if let [name, index, rest @ ..] = &error.path[..]
        && let Some((setting, None)) = find(name)
        && setting.kind == Kind::Tables
    {
        let place = [&[format!("{name}[{index}]")], rest].concat().join(".");
        let source = values.source(&place).unwrap_or_default();
        return Error::new(ErrorKind::Config, format!("{place} from {source}: {}", error.kind));
    }
    // An element of a list has its index at the end of the path.
    let paths = (1..=error.path.len()).rev().filter_map(|length| error.path.get(..length));
    let names = paths.map(|path| path.join("."));
    for name in names {
        if let (Some((setting, key)), Some(value)) = (find(&name), values.value(&name)) {
            let source = values.source(&name).unwrap_or_default();
            return unfit(setting, key, &value, &source);
        }
    }
    let what = format!("cannot read setting {}", error.path.join("."));
    Error::new(ErrorKind::Config, what)
}

pub(super) fn sourced(values: &Values, config: &Config) -> Result<Vec<Sourced>> {
    let what = "cannot show the configuration";
    let config = serde_json::to_value(config)
        .map_err(|error| Error::new(ErrorKind::Config, what).caused_by(error))?;
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
