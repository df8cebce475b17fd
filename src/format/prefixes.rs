//! What schema registries have values begin with.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::SchemaRef;
use crate::{Error, ErrorKind, Result, record::Record};

/// What values begin with, or why they can have none, by the schema they schema_ref.
#[derive(Clone, Default)]
pub(crate) struct Prefixes(HashMap<SchemaRef, Result<Bytes>>);

impl Prefixes {
    /// True where it is known what the values of this schema begin with.
    pub fn has(&self, schema_ref: &SchemaRef) -> bool {
        self.0.contains_key(schema_ref)
    }

    /// Adds what the values of this schema begin with, or why they can't be written.
    pub fn insert(&mut self, schema_ref: SchemaRef, prefix: Result<Bytes>) {
        self.0.insert(schema_ref, prefix);
    }

    /// The record with its prefix before its value, where it needs one.
    ///
    /// # Errors
    /// Why its schema was refused.
    pub fn framed(&self, mut record: Record, schema_ref: Option<&SchemaRef>) -> Result<Record> {
        let (Some(schema_ref), Some(value)) = (schema_ref, &record.value) else {
            return Ok(record);
        };
        let prefix = self.0.get(schema_ref).cloned().unwrap_or_else(|| {
            let what = format!("nobody asked for the schema of subject {}", schema_ref.subject);
            Err(Error::new(ErrorKind::RecordRefused, what))
        })?;
        let mut framed = BytesMut::with_capacity(prefix.len() + value.len());
        framed.put(prefix);
        framed.put_slice(value);
        record.value = Some(framed.freeze());
        Ok(record)
    }
}
