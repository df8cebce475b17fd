//! Hashes of a record's parts.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::replay::REPLAY_HEADER;

/// Headers that two deliveries of an event may differ in: its position in the WAL, which a row does
/// not know, and the marks of what was sent again.
const VARYING: [&str; 3] = ["LSN", REPLAY_HEADER, "redriven_from"];

/// A record, remembered by hashes of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub key: u64,
    pub value: u64,
    pub headers: u64,
}

impl Digest {
    /// Hashes a record. A missing key counts as an empty one, as in a record of the relay.
    pub fn of<'a>(
        key: &[u8],
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Self {
        let compared = headers.filter(|(name, _)| !VARYING.contains(name));
        let compared: Vec<_> = compared.collect();
        Digest { key: hash(key), value: hash(value), headers: hash(compared) }
    }
}

fn hash(part: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    part.hash(&mut hasher);
    hasher.finish()
}
