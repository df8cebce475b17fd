//! The size of a comparison: FACTS, SECONDS and PEERS.

use std::{fmt::Display, str::FromStr};

use super::peer::Peer;
use crate::support::Result;

/// The size of a comparison.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Events of the backlog.
    pub facts: u64,
    /// Length of each load: one at each distance, one with each fault.
    pub seconds: u64,
    pub peers: Vec<Peer>,
}

impl Scale {
    /// Reads the environment's variables; one that is empty counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|text| !text.is_empty());
        Ok(Scale {
            facts: number("FACTS", set("FACTS"), 500_000)?,
            seconds: number("SECONDS", set("SECONDS"), 10)?,
            peers: match set("PEERS") {
                None => Peer::ALL.to_vec(),
                Some(names) => names.split(',').map(Peer::named).collect::<Result<_>>()?,
            },
        })
    }
}

fn number<T: FromStr<Err: Display>>(name: &str, text: Option<String>, default: T) -> Result<T> {
    text.map_or(Ok(default), |text| {
        text.parse().map_err(|error| format!("{name}={text}: {error}").into())
    })
}
