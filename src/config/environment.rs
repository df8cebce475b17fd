//! Environment variables: `FACTLIB_SECTION__KEY`, and the Go worker's own names.

use std::{collections::BTreeMap, env, path::Path};

use super::{
    explain::unreadable,
    load::Given,
    reference::{Kind, find, nearest, settings},
};
use crate::{Error, ErrorKind, Result, faults};

/// Names the configuration file.
pub(crate) const CONFIG_FILE: &str = "FACTLIB_CONFIG";

const PREFIX: &str = "FACTLIB_";

/// The variables of this process that can be read.
pub(crate) fn process() -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => _ = variables.insert(name, value),
            Err(_) if is_ours(&name) => {
                let what = format!("environment variable {name} is not UTF-8");
                return Err(Error::new(ErrorKind::Config, what));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// The variables in a `.env` file; none when it is not there.
pub(crate) fn dotenv(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    dotenvy::from_read_iter(text.as_slice()).collect::<Result<_, _>>().map_err(|error| {
        // The error's own text shows the line itself, in which a secret may be.
        let line = match &error {
            dotenvy::Error::LineParse(line, _) => {
                let text = String::from_utf8_lossy(&text);
                let first = line.lines().next().unwrap_or_default();
                text.lines().position(|other| other == first)
            }
            _ => None,
        };
        let line = line.map(|line| format!(" line {}", line + 1)).unwrap_or_default();
        let what = format!("{}{line} is not NAME=value", path.display());
        Error::new(ErrorKind::Config, what).remedy("quote a value that has blanks or `$`")
    })
}

/// What `variables` set, in rising order; `place` follows a variable's name in messages.
pub(crate) fn read(variables: &BTreeMap<String, String>, place: &str) -> Result<Vec<Given>> {
    let mut given = Vec::new();
    let source = |name: &str| format!("environment variable {name}{place}");
    for setting in settings() {
        for alias in setting.aliases {
            if let Some(text) = variables.get(*alias).filter(|text| !text.is_empty()) {
                given.push(Given::text(setting, None, text, source(alias)));
            }
        }
    }
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        // In production, a fault is as unknown as anything else.
        let is_fault = cfg!(feature = "test-util") && name == faults::VARIABLE;
        if name == CONFIG_FILE || is_fault {
            continue;
        }
        let path = path.to_lowercase().replace("__", ".");
        let (setting, key) = match find(&path) {
            Some((setting, None)) if setting.kind == Kind::Table => {
                return Err(unknown(name, place));
            }
            Some(found) => found,
            None => return Err(unknown(name, place)),
        };
        if !text.is_empty() {
            // A variable's name can't have the dots of Kafka's names, which have no underscores.
            let key = key.map(|key| key.replace('_', "."));
            given.push(Given::text(setting, key, text, source(name)));
        }
    }
    Ok(given)
}

fn is_ours(name: &str) -> bool {
    let is_alias = || settings().iter().any(|setting| setting.aliases.contains(&name));
    name.starts_with(PREFIX) || is_alias()
}

fn unknown(name: &str, place: &str) -> Error {
    let names: Vec<_> = settings().iter().map(|setting| setting.env()).collect();
    let what = format!("environment variable {name}{place} is no setting");
    Error::new(ErrorKind::Config, what).remedy(match nearest(name, names.iter().map(|n| &**n)) {
        Some(name) => format!("did you mean {name}?"),
        None => "`factlib config --reference` lists all settings".into(),
    })
}
