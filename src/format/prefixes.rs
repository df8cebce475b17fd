//! What schema registries have values begin with.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::Need;
use crate::{Error, ErrorKind, Result, record::Record};

/// What values begin with, or why they can have none, by the schema they need.
#[derive(Clone, Default)]
pub(crate) struct Prefixes(HashMap<Need, Result<Bytes>>);

impl Prefixes {
    /// True where it is known what the values of this schema begin with.
    pub fn has(&self, need: &Need) -> bool {
        self.0.contains_key(need)
    }

    /// Adds what the values of this schema begin with, or why they can't be written.
    pub fn insert(&mut self, need: Need, prefix: Result<Bytes>) {
        self.0.insert(need, prefix);
    }

    /// The record with its prefix before its value, where it needs one.
    ///
    /// # Errors
    /// Why its schema was refused.
    pub fn framed(&self, mut record: Record, need: Option<&Need>) -> Result<Record> {
        let (Some(need), Some(value)) = (need, &record.value) else { return Ok(record) };
        let prefix = self.0.get(need).cloned().unwrap_or_else(|| {
            let what = format!("nobody asked for the schema of subject {}", need.subject);
            Err(Error::new(ErrorKind::RecordRefused, what))
        })?;
        let mut framed = BytesMut::with_capacity(prefix.len() + value.len());
        framed.put(prefix);
        framed.put_slice(value);
        record.value = Some(framed.freeze());
        Ok(record)
    }
}
