//! Maps the configuration of Debezium's connector to factlib's, setting by setting.
//!
//! | file | idea |
//! | --- | --- |
//! | `source` | connection, slot, publication and tables |
//! | `router` | options of the outbox event router |
//! | `topics` | pure: topics by regular expression, as routes |
//! | `java_regex` | pure: Java's regular expressions as Rust's |
//! | `converters` | converters of key, value and headers |
//! | `kafka` | brokers, security and producer |
//! | `harmless` | settings that need no equivalent |
//! | `draft` | the configuration file in the making |

mod converters;
mod draft;
mod harmless;
mod java_regex;
mod kafka;
mod router;
mod source;
mod topics;

use secrecy::SecretString;
use serde::Serialize;

use self::draft::Draft;
use super::connector::{ConnectorConfig, Entry};

/// The text that is shown in place of a secret.
const REDACTED: &str = "[redacted]";

/// The way a setting of Debezium is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Equivalence {
    /// Factlib does the same.
    Maps,
    /// Factlib does something else, which may be as good.
    Differs,
    /// Factlib can't do it.
    Missing,
    /// It needs no equivalent.
    Harmless,
    /// It is not a setting of Debezium or Kafka Connect that factlib knows.
    Unknown,
}

/// A setting of Debezium, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MappedSetting {
    /// The key as its file has it.
    pub key: String,
    /// The value; secrets are redacted.
    pub value: String,
    /// The line in its file; none for a default, and for a setting of the worker.
    pub line: Option<usize>,
    /// The way it is treated.
    pub equivalence: Equivalence,
    /// The settings of factlib, the difference, or the remedy.
    pub note: String,
}

/// The configuration of factlib that takes a connector's place.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ConfigMapping {
    /// The text of the configuration file, without secrets.
    pub toml: String,
    /// Secrets by the names of the settings that they belong to.
    #[serde(skip)]
    pub secrets: Vec<(&'static str, SecretString)>,
    /// Each setting of Debezium, in the order of their keys.
    pub settings: Vec<MappedSetting>,
}

impl ConfigMapping {
    /// Maps a connector's configuration.
    pub fn of(connector: &ConnectorConfig) -> Self {
        let mut mapper = Mapper {
            connector,
            draft: Draft::default(),
            secrets: Vec::new(),
            settings: Vec::new(),
        };
        mapper.map();
        mapper.settings.sort_by(|one, other| one.key.cmp(&other.key));
        ConfigMapping {
            toml: mapper.draft.text(&connector.path().display().to_string()),
            secrets: mapper.secrets,
            settings: mapper.settings,
        }
    }

    /// Settings that are treated in this way.
    pub fn treated(&self, equivalence: Equivalence) -> impl Iterator<Item = &MappedSetting> {
        self.settings.iter().filter(move |setting| setting.equivalence == equivalence)
    }

    /// True if every setting has an equivalent, or needs none.
    pub fn is_complete(&self) -> bool {
        let mut settings = self.settings.iter();
        settings.all(|of| !matches!(of.equivalence, Equivalence::Missing | Equivalence::Unknown))
    }
}

/// Maps one connector.
struct Mapper<'a> {
    connector: &'a ConnectorConfig,
    draft: Draft,
    secrets: Vec<(&'static str, SecretString)>,
    settings: Vec<MappedSetting>,
}

impl Mapper<'_> {
    fn map(&mut self) {
        self.source();
        self.router();
        self.converters();
        self.kafka();
        for (key, entry) in self.connector.entries() {
            let is_mapped = self.settings.iter().any(|mapped| mapped.key == entry.original);
            if is_mapped {
                continue;
            }
            let (equivalence, note) = match harmless::why(key) {
                Some(why) => (Equivalence::Harmless, why),
                None => (
                    Equivalence::Unknown,
                    "factlib does not know it: look it up, and leave it out if it does not change records",
                ),
            };
            self.note(key, entry, equivalence, note);
        }
    }

    /// Says what became of a key, if it is set.
    fn say(&mut self, key: &str, equivalence: Equivalence, note: impl Into<String>) {
        match self.connector.entry(key) {
            Some(entry) => self.note(key, &entry.clone(), equivalence, note),
            None => {
                let value = self.connector.get_or_worker(key);
                let Some(value) = value else { return };
                let (equivalence, note) = of_reference(key, value, equivalence, note.into());
                let (key, value) = (key.to_owned(), shown(key, value));
                self.settings.push(MappedSetting { key, value, line: None, equivalence, note });
            }
        }
    }

    /// Says what a default of Debezium becomes.
    fn say_default(&mut self, key: &str, value: &str, equivalence: Equivalence, note: &str) {
        self.settings.push(MappedSetting {
            key: key.to_owned(),
            value: format!("{value} (default)"),
            line: None,
            equivalence,
            note: note.to_owned(),
        });
    }

    fn note(
        &mut self,
        key: &str,
        entry: &Entry,
        equivalence: Equivalence,
        note: impl Into<String>,
    ) {
        let (equivalence, note) = of_reference(key, &entry.value, equivalence, note.into());
        self.settings.push(MappedSetting {
            key: entry.original.clone(),
            value: shown(key, &entry.value),
            line: Some(entry.line).filter(|line| *line > 0),
            equivalence,
            note,
        });
    }
}

/// Corrects the equivalence of a value that is a reference: it can't be copied.
fn of_reference(
    key: &str,
    value: &str,
    equivalence: Equivalence,
    note: String,
) -> (Equivalence, String) {
    // The replacement has references of its own.
    let is_reference = super::connector::is_reference(value) && !key.ends_with("replacement");
    match is_reference && equivalence == Equivalence::Maps {
        true => (Equivalence::Differs, format!("not resolved here: set {note}")),
        false => (equivalence, note),
    }
}

/// True for a value with a URL that has a user or a password.
fn has_user_info(value: &str) -> bool {
    let authority = |rest: &str| rest.split(['/', ',']).next().unwrap_or_default().contains('@');
    value.split("://").skip(1).any(authority)
}

/// The value of a key, unless it may be a secret.
fn shown(key: &str, value: &str) -> String {
    let key = key.to_ascii_lowercase();
    let is_secret = [
        "password",
        "secret",
        "jaas",
        "token",
        "credential",
        "passphrase",
        "user.info",
        "key.pem",
        "ssl.keystore.key",
    ]
    .iter()
    .any(|word| key.contains(word));
    match (is_secret || has_user_info(value)) && !super::connector::is_reference(value) {
        true => REDACTED.to_owned(),
        false => value.to_owned(),
    }
}

#[cfg(test)]
mod tests;
