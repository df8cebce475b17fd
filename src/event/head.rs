//! Reads the fields of an `OutboxEvent` that the relay needs, in one pass and without copies.

use bytes::Bytes;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, int64, message, skip_field,
};

use super::{
    overrides::{METADATA, Overrides},
    texts::{TEXTS, Texts},
};
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
    pub texts: Texts,
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
        let (mut created_at_ns, mut trace, mut has_metadata) = (0, None, false);
        let mut places = [const { 0..0 }; TEXTS];
        let mut rest = &raw[..];
        while !rest.is_empty() {
            let (field, wire_type) = decode_key(&mut rest)?;
            let context = DecodeContext::default();
            match field {
                ID..=EVENT_TYPE => {
                    let end_of = |rest: &[u8]| raw.len() - rest.len();
                    let length = text_length(wire_type, &mut rest)?;
                    let start = end_of(rest);
                    rest = rest.get(length..).ok_or("it ends inside a text")?;
                    places[(field - ID) as usize] = start..end_of(rest);
                }
                CREATED_AT => int64::merge(wire_type, &mut created_at_ns, &mut rest, context)?,
                TRACE => {
                    let trace: &mut Box<TraceInfo> = trace.get_or_insert_default();
                    message::merge(wire_type, &mut **trace, &mut rest, context)?;
                }
                _ => {
                    has_metadata |= field == METADATA;
                    skip_field(wire_type, field, &mut rest, context)?;
                }
            }
        }
        let texts = Texts::of_places(raw, places)?;
        Ok((Head { texts, created_at_ns, trace, overrides: None }, has_metadata))
    }
}

fn text_length(wire_type: WireType, rest: &mut &[u8]) -> Result<usize, Error> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    Ok(usize::try_from(decode_varint(rest)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &'static [u8]) -> Result<[String; TEXTS], Error> {
        Head::read(&Bytes::from_static(raw)).map(|(head, _)| {
            let texts = &head.texts;
            [texts.id(), texts.aggregate_type(), texts.aggregate_id(), texts.event_type()]
                .map(str::to_owned)
        })
    }

    #[test]
    fn texts_are_read_whatever_stands_between_them() {
        for raw in [
            &b"\x0a\x01i\x12\x01a\x1a\x011\x22\x01e"[..],
            b"\x22\x01e\x1a\x011\x12\x01a\x0a\x01i",
            // A payload that is not UTF-8 is between them; a text comes twice.
            b"\x0a\x01x\x0a\x01i\x12\x01a\x2a\x02\xff\xfe\x1a\x011\x22\x01e",
        ] {
            assert_eq!(read(raw).expect("well formed"), ["i", "a", "1", "e"]);
        }
        assert_eq!(read(b"\x12\x02\xc3\xa9").expect("well formed"), ["", "\u{e9}", "", ""]);
        assert_eq!(read(b"").expect("well formed"), [""; TEXTS]);
    }

    #[test]
    fn halves_of_a_character_are_no_texts() {
        assert!(read(b"\x0a\x01\xc3\x12\x01\xa9").is_err());
    }
}
