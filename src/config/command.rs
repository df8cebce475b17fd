//! A command in the configuration: a text for a shell, or a program with its arguments.

use std::{env, ffi::OsString};

use serde::{Deserialize, Serialize};

/// Variables with other names than ours that set secrets.
const SECRET_ALIASES: [&str; 2] = ["MASTER_DATABASE_URL", "KAFKA_PASSWORD"];

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum CommandLine {
    /// A text that `sh -c` runs.
    Shell(String),
    /// A program and its arguments, which are run without a shell.
    Program(Vec<String>),
}

impl CommandLine {
    /// True if it names nothing to run.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            CommandLine::Shell(script) => script.trim().is_empty(),
            CommandLine::Program(words) => words.first().is_none_or(String::is_empty),
        }
    }
}

/// The variables of the environment that a command does not get: all settings, because some of them
/// are secrets.
pub(crate) fn hidden_variables() -> impl Iterator<Item = OsString> {
    let ours = env::vars_os().map(|(name, _)| name);
    let ours = ours.filter(|name| name.to_string_lossy().starts_with("FACTLIB_"));
    ours.chain(SECRET_ALIASES.map(OsString::from))
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::config::reference::{Kind, settings};

    #[test]
    fn every_other_name_of_a_secret_is_hidden() {
        let secrets = settings().iter().filter(|setting| setting.kind == Kind::Secret);
        let aliases: Vec<_> = secrets.flat_map(|setting| setting.aliases).copied().collect();
        assert_eq!(aliases, SECRET_ALIASES);
    }
}
