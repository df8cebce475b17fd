//! Schema prefixes: the bytes before a value that name its schema in the registry.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::SchemaRef;
use crate::{Error, ErrorKind, Result, record::Record};

/// The prefix for values of each schema, or the reason why there is none.
#[derive(Clone, Default)]
pub(crate) struct Prefixes(HashMap<SchemaRef, Result<Bytes>>);

impl Prefixes {
    /// True if the prefix of this schema, or its refusal, is known.
    pub fn has(&self, schema_ref: &SchemaRef) -> bool {
        self.0.contains_key(schema_ref)
    }

    /// Adds the prefix of a schema, or the reason why there is none.
    pub fn insert(&mut self, schema_ref: SchemaRef, prefix: Result<Bytes>) {
        self.0.insert(schema_ref, prefix);
    }

    /// Puts the schema's prefix before the record's value, if it has a schema and a value.
    ///
    /// # Errors
    /// The reason why there is no prefix.
    pub fn framed(&self, mut record: Record, schema_ref: Option<&SchemaRef>) -> Result<Record> {
        let (Some(schema_ref), Some(value)) = (schema_ref, &record.value) else {
            return Ok(record);
        };
        let prefix = self.0.get(schema_ref).cloned().unwrap_or_else(|| {
            let what = format!("the schema of subject {} was not asked for", schema_ref.subject);
            Err(Error::new(ErrorKind::RecordRefused, what))
        })?;
        let mut framed = BytesMut::with_capacity(prefix.len() + value.len());
        framed.put(prefix);
        framed.put_slice(value);
        record.value = Some(framed.freeze());
        Ok(record)
    }
}
