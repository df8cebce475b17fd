//! Reads settings from environment variables, `FACTLIB_SECTION__KEY` and the Go worker's names.

use std::{collections::BTreeMap, env, path::Path};

use super::{
    explain::unreadable,
    kubernetes,
    load::Given,
    reference::{Kind, find, nearest, settings},
    secret_file::find_of_file,
};
use crate::{Error, ErrorKind, Result};

/// Variable that names the configuration file.
pub(crate) const CONFIG_FILE: &str = "FACTLIB_CONFIG";

const PREFIX: &str = "FACTLIB_";

/// The variables of this process that are UTF-8.
pub(crate) fn process() -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => _ = variables.insert(name, value),
            Err(_) if is_ours(&name) => {
                let failure = format!("environment variable {name} is not UTF-8");
                return Err(Error::new(ErrorKind::Config, failure));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// The variables in a `.env` file; none if it does not exist.
pub(crate) fn dotenv(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    dotenvy::from_read_iter(text.as_slice()).collect::<Result<_, _>>().map_err(|error| {
        // The error's own text shows the line, which may contain a secret.
        let line = match &error {
            dotenvy::Error::LineParse(line, _) => {
                let text = String::from_utf8_lossy(&text);
                let first = line.lines().next().unwrap_or_default();
                text.lines().position(|other| other == first)
            }
            _ => None,
        };
        let line = line.map(|line| format!(" line {}", line + 1)).unwrap_or_default();
        let failure = format!("{}{line} is not NAME=value", path.display());
        Error::new(ErrorKind::Config, failure).remedy("quote a value that has blanks or `$`")
    })
}

/// The values that `variables` set, later ones overriding earlier ones; `location` follows a
/// variable's name in messages.
pub(crate) fn read(variables: &BTreeMap<String, String>, location: &str) -> Result<Vec<Given>> {
    let mut variables = variables.clone();
    variables.retain(|name, value| !kubernetes::is_injected(name, value));
    let mut given = Vec::new();
    let source = |name: &str| format!("environment variable {name}{location}");
    for setting in settings() {
        for alias in setting.aliases {
            if let Some(text) = variables.get(*alias).filter(|text| !text.is_empty()) {
                given.push(Given::text(setting, None, text, source(alias)));
            }
            let file = format!("{alias}_FILE");
            let path = variables.get(&file).filter(|path| !path.is_empty());
            if let Some(path) = path.filter(|_| setting.is_secret(None)) {
                given.push(Given::secret(setting, None, path, source(&file))?);
            }
        }
    }
    for (name, text) in &variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        if name == CONFIG_FILE || is_fault(name) {
            continue;
        }
        let path = path.to_lowercase().replace("__", ".");
        let (setting, key, of_file) = match find(&path) {
            Some((setting, None)) if setting.kind == Kind::Table => {
                return Err(unknown(name, location));
            }
            Some((setting, Some(key))) => {
                // A variable's name can't contain dots; Kafka's names contain no underscores.
                let key = key.replace('_', ".");
                match key.strip_suffix(".file").filter(|key| setting.is_secret(Some(key))) {
                    Some(secret) => (setting, Some(secret.to_owned()), true),
                    None => (setting, Some(key), false),
                }
            }
            Some((setting, None)) => (setting, None, false),
            None => match find_of_file(&path) {
                Some((setting, _)) => (setting, None, true),
                None => return Err(unknown(name, location)),
            },
        };
        match text.as_str() {
            "" => {}
            path if of_file => given.push(Given::secret(setting, key, path, source(name))?),
            text => given.push(Given::text(setting, key, text, source(name))),
        }
    }
    Ok(given)
}

/// True for the variable that configures faults, in a build that has them.
fn is_fault(name: &str) -> bool {
    #[cfg(feature = "faults")]
    return name == crate::faults::VARIABLE;
    #[cfg(not(feature = "faults"))]
    {
        let _ = name;
        false
    }
}

fn is_ours(name: &str) -> bool {
    let alias = name.strip_suffix("_FILE").unwrap_or(name);
    let is_alias = || settings().iter().any(|setting| setting.aliases.contains(&alias));
    name.starts_with(PREFIX) || is_alias()
}

fn unknown(name: &str, location: &str) -> Error {
    let names: Vec<_> = settings().iter().map(|setting| setting.env()).collect();
    let failure = format!("environment variable {name}{location} is not a setting");
    Error::new(ErrorKind::Config, failure).remedy(match nearest(name, names.iter().map(|n| &**n)) {
        Some(name) => format!("did you mean {name}?"),
        None => "`factlib config --reference` lists all settings".into(),
    })
}
