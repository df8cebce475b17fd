//! `kafka.properties`: properties by librdkafka's names, from files that were written for it.
//!
//! Each property sets the setting of factlib's that it stands for, or is refused with a reason
//! ([`table`]). Secrets among them are redacted.

mod table;
mod values;

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Serialize, Serializer};

use self::table::{Effect, effect, is_known};
use super::{KafkaConfig, Mistake, secret::REDACTED, validate::quoted};
use crate::kafka::is_secret;

/// A property's value, and the file that it came from, if it has its own.
#[derive(Clone, Copy)]
struct Property<'a> {
    value: &'a str,
    file: Option<&'a Path>,
}

/// The configuration with each property in its setting, except those that [`check`] refuses.
pub(super) fn with_properties(kafka: &KafkaConfig) -> KafkaConfig {
    let mut config = kafka.clone();
    for (name, value) in &kafka.properties {
        if let Effect::Sets(_, set) = effect(name) {
            // A refusal is reported by `check`.
            let _ = set(&mut config, property(kafka, name, value));
        }
    }
    config
}

/// Refuses properties that have no equivalent, and values that have none.
pub(super) fn check(kafka: &KafkaConfig) -> Result<(), Mistake> {
    let mut config = kafka.clone();
    for (name, value) in &kafka.properties {
        let problem = match effect(name) {
            Effect::Refused(why) => Err(why),
            Effect::Sets(_, set) => set(&mut config, property(kafka, name, value)),
        };
        problem.map_err(|problem| mistake(name, value, problem))?;
    }
    if let Some(protocol) = kafka.properties.get("security.protocol") {
        let has_login = config.username.is_some() || config.has_token_login();
        let problem = match (values::has_sasl(protocol), has_login) {
            (true, false) => "needs kafka.username, or another login",
            (false, true) => "connects without a login, but one is set: leave one of the two out",
            _ => return Ok(()),
        };
        return Err(mistake("security.protocol", protocol, problem));
    }
    Ok(())
}

fn property<'a>(kafka: &'a KafkaConfig, name: &str, value: &'a str) -> Property<'a> {
    Property { value, file: kafka.property_files.get(name).map(|path| &**path) }
}

/// True if the value is not to be shown: a name that is mistyped may be that of a secret.
pub(super) fn hides(name: &str) -> bool {
    is_secret(name) || !is_known(name)
}

fn mistake(name: &str, value: &str, problem: &str) -> Mistake {
    let value = if hides(name) { REDACTED.into() } else { quoted(value) };
    let setting = format!("kafka.properties.{name}");
    Mistake { setting, value: Some(value), problem: problem.into() }
}

/// Properties with secrets redacted.
pub(super) struct Shown<'a>(pub &'a BTreeMap<String, String>);

impl<'a> Shown<'a> {
    fn pairs(&self) -> impl Iterator<Item = (&'a String, &'a str)> {
        self.0.iter().map(|(k, v)| (k, if hides(k) { REDACTED } else { v.as_str() }))
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

pub(super) fn serialize<S: Serializer>(
    properties: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Shown(properties).pairs().collect::<BTreeMap<_, _>>().serialize(serializer)
}
