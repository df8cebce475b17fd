//! Reads the fields of an `OutboxEvent` that the relay needs, in one pass and without copies.

use bytes::Bytes;
use bytestring::ByteString;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, int64, message, skip_field,
};

use super::overrides::{METADATA, Overrides};
use crate::proto::TraceInfo;

pub(super) const ID: u32 = 1;
pub(super) const AGGREGATE_TYPE: u32 = 2;
pub(super) const AGGREGATE_ID: u32 = 3;
pub(super) const EVENT_TYPE: u32 = 4;
pub(super) const CREATED_AT: u32 = 6;
const TRACE: u32 = 8;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The fields of `OutboxEvent` that decide an event's topic and headers. The others (payload,
/// metadata that is not reserved, unknown fields) are skipped.
#[derive(Clone, Default)]
pub(super) struct Head {
    pub id: ByteString,
    pub aggregate_type: ByteString,
    pub aggregate_id: ByteString,
    pub event_type: ByteString,
    pub created_at_ns: i64,
    pub trace: Option<Box<TraceInfo>>,
    pub overrides: Option<Box<Overrides>>,
}

impl Head {
    /// Reads all but the overrides. Its texts are slices of `raw`. The second value is true if the
    /// event has metadata, where the overrides are.
    ///
    /// # Errors
    /// The reason why the bytes are not an `OutboxEvent`.
    pub fn read(raw: &Bytes) -> Result<(Self, bool), Error> {
        let (mut head, mut has_metadata) = (Head::default(), false);
        let mut rest = &raw[..];
        while !rest.is_empty() {
            let (field, wire_type) = decode_key(&mut rest)?;
            let context = DecodeContext::default();
            match field {
                ID => head.id = text(raw, wire_type, &mut rest)?,
                AGGREGATE_TYPE => head.aggregate_type = text(raw, wire_type, &mut rest)?,
                AGGREGATE_ID => head.aggregate_id = text(raw, wire_type, &mut rest)?,
                EVENT_TYPE => head.event_type = text(raw, wire_type, &mut rest)?,
                CREATED_AT => {
                    int64::merge(wire_type, &mut head.created_at_ns, &mut rest, context)?;
                }
                TRACE => {
                    let trace = head.trace.get_or_insert_default();
                    message::merge(wire_type, &mut **trace, &mut rest, context)?;
                }
                _ => {
                    has_metadata |= field == METADATA;
                    skip_field(wire_type, field, &mut rest, context)?;
                }
            }
        }
        Ok((head, has_metadata))
    }
}

fn text(raw: &Bytes, wire_type: WireType, rest: &mut &[u8]) -> Result<ByteString, Error> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let length = usize::try_from(decode_varint(rest)?)?;
    let (text, behind) = rest.split_at_checked(length).ok_or("it ends inside a text")?;
    *rest = behind;
    Ok(ByteString::try_from(raw.slice_ref(text))?)
}
