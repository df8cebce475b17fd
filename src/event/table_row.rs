//! Builds the event of an outbox table's row from its columns.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message;

use super::{Event, Head, RowRecord};
use crate::{Lsn, Result};

/// The parts of a row that decide its event's topic and headers.
#[derive(Debug)]
pub(crate) struct RowFields {
    pub id: ByteString,
    pub aggregate_type: ByteString,
    pub aggregate_id: ByteString,
    pub event_type: ByteString,
    pub created_at_ns: i64,
}

/// `OutboxEvent` with `bytes` in place of `string`, so that nothing is copied before it is encoded.
#[derive(Clone, PartialEq, Message)]
struct WireEvent {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    aggregate_type: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    aggregate_id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    event_type: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    payload: Bytes,
    #[prost(int64, tag = "6")]
    created_at_ns: i64,
    #[prost(btree_map = "string, string", tag = "7")]
    metadata: BTreeMap<String, String>,
}

impl RowFields {
    /// Returns the event whose value is the payload alone.
    pub fn with_payload_as_value(self, payload: Bytes, row: RowRecord, lsn: Lsn) -> Event {
        let head = Head {
            id: self.id,
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            event_type: self.event_type,
            created_at_ns: self.created_at_ns,
            trace: None,
            overrides: None,
        };
        let row = Some(Box::new(row));
        Event { raw: payload, head, lsn, transaction: None, refusal: None, row }
    }

    /// Returns the event whose value is an `OutboxEvent` of these parts.
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn with_event_as_value(
        self,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
        row: RowRecord,
        lsn: Lsn,
    ) -> Result<Event> {
        let event = WireEvent {
            id: self.id.into_bytes(),
            aggregate_type: self.aggregate_type.into_bytes(),
            aggregate_id: self.aggregate_id.into_bytes(),
            event_type: self.event_type.into_bytes(),
            payload,
            created_at_ns: self.created_at_ns,
            metadata,
        };
        // Its texts are slices of the value, so that the bytes of the stream can be freed.
        let event = Event::parse(event.encode_to_vec().into(), lsn)?;
        Ok(Event { row: Some(Box::new(row)), ..event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::OutboxEvent;

    #[test]
    fn the_value_is_the_event_as_a_client_encodes_it() {
        let fields = || RowFields {
            id: "i".into(),
            aggregate_type: "user".into(),
            aggregate_id: "u1".into(),
            event_type: ByteString::new(),
            created_at_ns: 7,
        };
        let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let payload = Bytes::from_static(b"payload");
        let expected = OutboxEvent {
            id: "i".into(),
            aggregate_type: "user".into(),
            aggregate_id: "u1".into(),
            payload: payload.clone(),
            created_at: 7,
            metadata: metadata.clone(),
            ..Default::default()
        };
        let row = RowRecord::default();
        let event = fields().with_event_as_value(payload.clone(), metadata, row, Lsn::ZERO);
        assert_eq!(event.expect("well formed").raw(), &expected.encode_to_vec());
        let row = RowRecord { payload_is_value: true, ..RowRecord::default() };
        let event = fields().with_payload_as_value(payload.clone(), row, Lsn::ZERO);
        assert_eq!((event.raw(), event.aggregate_id()), (&payload, "u1"));
    }
}
