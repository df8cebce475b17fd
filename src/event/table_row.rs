//! Builds the event of an outbox table's row from its columns.

use std::{collections::BTreeMap, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use prost::encoding::{WireType, btree_map, encode_key, encode_varint, int64, string};

use super::{
    Event, RowRecord,
    head::{self, Head},
    overrides::METADATA,
    texts::Texts,
};
use crate::{Lsn, Result};

const PAYLOAD: u32 = 5;

/// Bytes of a value beside its texts and its payload, without metadata: keys, lengths, a time.
const ROOM: usize = 64;

/// The parts of a row that decide its event's topic and headers.
#[derive(Debug)]
pub(crate) struct RowFields {
    pub id: ByteString,
    pub aggregate_type: ByteString,
    pub aggregate_id: ByteString,
    pub event_type: ByteString,
    pub created_at_ns: i64,
}

impl RowFields {
    fn head(&self, texts: Texts) -> Head {
        Head { texts, created_at_ns: self.created_at_ns, trace: None, overrides: None }
    }

    /// Returns the event whose value is the payload alone.
    pub fn with_payload_as_value(self, payload: Bytes, row: RowRecord, lsn: Lsn) -> Event {
        let texts = [&*self.id, &self.aggregate_type, &self.aggregate_id, &self.event_type];
        let head = self.head(Texts::copied(texts));
        let row = Some(Box::new(row));
        Event { raw: payload, head, lsn, transaction: None, refusal: None, row }
    }

    /// Returns the event whose value is an `OutboxEvent` of these parts. The value is written to
    /// `to`.
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn with_event_as_value(
        self,
        payload: &[u8],
        metadata: &BTreeMap<String, String>,
        row: RowRecord,
        lsn: Lsn,
        to: &mut BytesMut,
    ) -> Result<Event> {
        let texts = [&self.id, &self.aggregate_type, &self.aggregate_id, &self.event_type];
        to.reserve(texts.iter().map(|text| text.len()).sum::<usize>() + payload.len() + ROOM);
        let id = put_bytes(to, head::ID, self.id.as_bytes());
        let aggregate_type = put_bytes(to, head::AGGREGATE_TYPE, self.aggregate_type.as_bytes());
        let aggregate_id = put_bytes(to, head::AGGREGATE_ID, self.aggregate_id.as_bytes());
        let event_type = put_bytes(to, head::EVENT_TYPE, self.event_type.as_bytes());
        put_bytes(to, PAYLOAD, payload);
        if self.created_at_ns != 0 {
            int64::encode(head::CREATED_AT, &self.created_at_ns, to);
        }
        let (encode, length) = (string::encode, string::encoded_len);
        btree_map::encode(encode, length, encode, length, METADATA, metadata, to);
        let raw = to.split().freeze();
        if !metadata.is_empty() {
            // Some of it may be reserved.
            let event = Event::parse(raw, lsn)?;
            return Ok(Event { row: boxed(row), ..event });
        }
        // Its texts are slices of the value, so that the bytes of the stream can be freed.
        let places = [id, aggregate_type, aggregate_id, event_type];
        let head = self.head(Texts::of_places(&raw, places).unwrap_or_default());
        Ok(Event { raw, head, lsn, transaction: None, refusal: None, row: boxed(row) })
    }
}

/// None for a row that changes nothing of its event's record.
fn boxed(row: RowRecord) -> Option<Box<RowRecord>> {
    (row != RowRecord::default()).then(|| Box::new(row))
}

/// Writes a field unless it is empty, and returns where its content is.
fn put_bytes(to: &mut BytesMut, field: u32, bytes: &[u8]) -> Range<usize> {
    if !bytes.is_empty() {
        encode_key(field, WireType::LengthDelimited, to);
        encode_varint(bytes.len() as u64, to);
        to.put_slice(bytes);
    }
    to.len() - bytes.len()..to.len()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

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
        let mut values = BytesMut::new();
        let event = fields().with_event_as_value(&payload, &metadata, row, Lsn::ZERO, &mut values);
        assert_eq!(event.expect("well formed").raw(), &expected.encode_to_vec());
        let row = RowRecord::default();
        let event =
            fields().with_event_as_value(&payload, &BTreeMap::new(), row, Lsn::ZERO, &mut values);
        let event = event.expect("well formed");
        let expected = OutboxEvent { metadata: BTreeMap::new(), ..expected };
        assert_eq!(event.raw(), &expected.encode_to_vec());
        let parsed = Event::parse(event.raw().clone(), Lsn::ZERO).expect("well formed");
        let texts = |event: &Event| {
            [event.id(), event.aggregate_type(), event.aggregate_id(), event.event_type()]
                .map(str::to_owned)
        };
        assert_eq!(texts(&event), texts(&parsed));
        assert_eq!(event.created_at_ns(), parsed.created_at_ns());
        let row = RowRecord { payload_is_value: true, ..RowRecord::default() };
        let event = fields().with_payload_as_value(payload.clone(), row, Lsn::ZERO);
        assert_eq!((event.raw(), event.aggregate_id()), (&payload, "u1"));
    }
}
