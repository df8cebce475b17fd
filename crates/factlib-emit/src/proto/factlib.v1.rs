// Generated from proto/factlib/v1/outbox.proto by `make proto`: do not edit.

use std::collections::BTreeMap;

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{self, DecodeContext, WireType},
};

/// A domain event, as it stands in the WAL and as a record's value in Kafka.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboxEvent {
    /// UUID, version 7 where factlib made it.
    pub id: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub payload: Bytes,
    /// Unix time in nanoseconds.
    pub created_at: i64,
    pub metadata: BTreeMap<String, String>,
    pub trace_info: Option<TraceInfo>,
}

impl Message for OutboxEvent {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.id.is_empty() {
            encoding::string::encode(1, &self.id, buf);
        }
        if !self.aggregate_type.is_empty() {
            encoding::string::encode(2, &self.aggregate_type, buf);
        }
        if !self.aggregate_id.is_empty() {
            encoding::string::encode(3, &self.aggregate_id, buf);
        }
        if !self.event_type.is_empty() {
            encoding::string::encode(4, &self.event_type, buf);
        }
        if !self.payload.is_empty() {
            encoding::bytes::encode(5, &self.payload, buf);
        }
        if self.created_at != 0 {
            encoding::int64::encode(6, &self.created_at, buf);
        }
        encoding::btree_map::encode(
            encoding::string::encode,
            encoding::string::encoded_len,
            encoding::string::encode,
            encoding::string::encoded_len,
            7,
            &self.metadata,
            buf,
        );
        if let Some(message) = &self.trace_info {
            encoding::message::encode(8, message, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (merged, field) = match tag {
            1 => (
                encoding::string::merge(wire_type, &mut self.id, buf, ctx),
                "id",
            ),
            2 => (
                encoding::string::merge(wire_type, &mut self.aggregate_type, buf, ctx),
                "aggregate_type",
            ),
            3 => (
                encoding::string::merge(wire_type, &mut self.aggregate_id, buf, ctx),
                "aggregate_id",
            ),
            4 => (
                encoding::string::merge(wire_type, &mut self.event_type, buf, ctx),
                "event_type",
            ),
            5 => (
                encoding::bytes::merge(wire_type, &mut self.payload, buf, ctx),
                "payload",
            ),
            6 => (
                encoding::int64::merge(wire_type, &mut self.created_at, buf, ctx),
                "created_at",
            ),
            7 => (
                encoding::btree_map::merge(
                    encoding::string::merge,
                    encoding::string::merge,
                    &mut self.metadata,
                    buf,
                    ctx,
                ),
                "metadata",
            ),
            8 => (
                encoding::message::merge(
                    wire_type,
                    self.trace_info.get_or_insert_default(),
                    buf,
                    ctx,
                ),
                "trace_info",
            ),
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|mut error| {
            error.push("OutboxEvent", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let mut length = 0;
        if !self.id.is_empty() {
            length += encoding::string::encoded_len(1, &self.id);
        }
        if !self.aggregate_type.is_empty() {
            length += encoding::string::encoded_len(2, &self.aggregate_type);
        }
        if !self.aggregate_id.is_empty() {
            length += encoding::string::encoded_len(3, &self.aggregate_id);
        }
        if !self.event_type.is_empty() {
            length += encoding::string::encoded_len(4, &self.event_type);
        }
        if !self.payload.is_empty() {
            length += encoding::bytes::encoded_len(5, &self.payload);
        }
        if self.created_at != 0 {
            length += encoding::int64::encoded_len(6, &self.created_at);
        }
        length += encoding::btree_map::encoded_len(
            encoding::string::encoded_len,
            encoding::string::encoded_len,
            7,
            &self.metadata,
        );
        if let Some(message) = &self.trace_info {
            length += encoding::message::encoded_len(8, message);
        }
        length
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The trace that the event was emitted in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceInfo {
    pub trace_id: String,
    pub span_id: String,
    pub metadata: BTreeMap<String, String>,
}

impl Message for TraceInfo {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.trace_id.is_empty() {
            encoding::string::encode(1, &self.trace_id, buf);
        }
        if !self.span_id.is_empty() {
            encoding::string::encode(2, &self.span_id, buf);
        }
        encoding::btree_map::encode(
            encoding::string::encode,
            encoding::string::encoded_len,
            encoding::string::encode,
            encoding::string::encoded_len,
            3,
            &self.metadata,
            buf,
        );
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (merged, field) = match tag {
            1 => (
                encoding::string::merge(wire_type, &mut self.trace_id, buf, ctx),
                "trace_id",
            ),
            2 => (
                encoding::string::merge(wire_type, &mut self.span_id, buf, ctx),
                "span_id",
            ),
            3 => (
                encoding::btree_map::merge(
                    encoding::string::merge,
                    encoding::string::merge,
                    &mut self.metadata,
                    buf,
                    ctx,
                ),
                "metadata",
            ),
            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        };
        merged.map_err(|mut error| {
            error.push("TraceInfo", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let mut length = 0;
        if !self.trace_id.is_empty() {
            length += encoding::string::encoded_len(1, &self.trace_id);
        }
        if !self.span_id.is_empty() {
            length += encoding::string::encoded_len(2, &self.span_id);
        }
        length += encoding::btree_map::encoded_len(
            encoding::string::encoded_len,
            encoding::string::encoded_len,
            3,
            &self.metadata,
        );
        length
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
