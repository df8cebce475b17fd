//! Reads reserved metadata (see [`reserved`]) that overrides key, partition, time or trace of an
//! event's record.
//!
//! Hardly any event has it, so the metadata is not decoded as a whole: the walk over the fields
//! skips everything else and allocates nothing.

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use factlib_emit::{reserved, traceparent_ids};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::proto::TraceInfo;

/// The number of the field `metadata`.
pub(super) const METADATA: u32 = 7;

/// Values for the record that replace those derived from the event.
#[derive(Clone, Default, Debug, PartialEq)]
pub(super) struct Overrides {
    pub key: Option<ByteString>,
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
    pub trace: Option<Box<TraceInfo>>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl Overrides {
    /// Reads the overrides of an `OutboxEvent` whose other fields have been decoded already.
    ///
    /// # Errors
    /// The reason why the value of a reserved key is invalid.
    pub fn read(raw: &Bytes) -> Result<Option<Box<Self>>, String> {
        let mut found: Option<Box<Self>> = None;
        let mut rest = &raw[..];
        while let Ok((field, wire_type)) = decode_key(&mut rest) {
            if (field, wire_type) != (METADATA, WireType::LengthDelimited) {
                if skip_field(wire_type, field, &mut rest, DecodeContext::default()).is_err() {
                    break;
                }
                continue;
            }
            let length = decode_varint(&mut rest).ok().and_then(|n| usize::try_from(n).ok());
            let Some(entry) = length.and_then(|length| rest.get(..length)) else { break };
            if may_be_reserved(entry)
                && let Ok(entry) = Entry::decode(raw.slice_ref(entry))
            {
                let text = |bytes: Bytes| {
                    ByteString::try_from(bytes).map_err(|_| "metadata is no UTF-8".to_owned())
                };
                let (key, value) = (text(entry.key)?, text(entry.value)?);
                found.get_or_insert_default().set(&key, value)?;
            }
            rest.advance(entry.len());
        }
        Ok(found)
    }

    fn set(&mut self, key: &str, value: ByteString) -> Result<(), String> {
        match key {
            reserved::KEY => self.key = Some(value),
            reserved::PARTITION => self.partition = Some(number(key, &value)?),
            reserved::TIMESTAMP_MS => self.timestamp_ms = Some(number(key, &value)?),
            reserved::TRACE_ID => self.trace().trace_id = value.to_string(),
            reserved::SPAN_ID => self.trace().span_id = value.to_string(),
            key => {
                let header = match key {
                    reserved::TRACEPARENT | reserved::TRACESTATE => Some(key),
                    key => key.strip_prefix(reserved::TRACE_PREFIX),
                };
                if key == reserved::TRACEPARENT
                    && let Some((trace_id, span_id)) = traceparent_ids(&value)
                {
                    let trace = self.trace();
                    for (id, given) in
                        [(&mut trace.trace_id, trace_id), (&mut trace.span_id, span_id)]
                    {
                        if id.is_empty() {
                            *id = given.into();
                        }
                    }
                }
                if let Some(header) = header {
                    self.trace().metadata.insert(header.into(), value.to_string());
                }
            }
        }
        Ok(())
    }

    fn trace(&mut self) -> &mut TraceInfo {
        self.trace.get_or_insert_default()
    }
}

/// Rules out nearly all entries by the first bytes of their key, which every library writes first.
fn may_be_reserved(entry: &[u8]) -> bool {
    match entry {
        [0x0a, length, key @ ..] if *length < 0x80 => {
            key.starts_with(b"factlib.") || key.starts_with(b"trace")
        }
        _ => true,
    }
}

fn number<N: std::str::FromStr + PartialOrd + Default>(
    key: &str,
    value: &str,
) -> Result<N, String> {
    let number = value.parse().ok().filter(|number| *number >= N::default());
    number.ok_or_else(|| format!("its metadata {key} is {value:?} and no number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::Fact;

    fn read(fact: Fact) -> Result<Option<Overrides>, String> {
        let raw = fact.to_event().expect("valid").encode_to_vec().into();
        Overrides::read(&raw).map(|found| found.map(|found| *found))
    }

    #[test]
    fn reserved_metadata_is_found_among_other() {
        let fact = Fact::new("a", "1", "e").payload("factlib.key").metadata("factlib", "x");
        assert_eq!(read(fact.clone().metadata("tenant", "factlib.key")), Ok(None));
        let fact = fact.key("k").partition(3).timestamp_ms(7).metadata("tracestate", "s");
        let found = read(fact.metadata("factlib.trace.tenant", "t")).expect("valid").expect("some");
        assert_eq!(found.key.as_deref(), Some("k"));
        assert_eq!((found.partition, found.timestamp_ms), (Some(3), Some(7)));
        let headers = found.trace.expect("headers").metadata;
        assert_eq!(
            headers,
            [("tenant", "t"), ("tracestate", "s")].map(|(k, v)| (k.into(), v.into())).into()
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for (key, value) in [("factlib.partition", "-1"), ("factlib.timestamp_ms", "now")] {
            let error = read(Fact::new("a", "1", "e").metadata(key, value)).unwrap_err();
            let text = format!("its metadata {key} is {value:?} and no number that fits");
            assert_eq!(error, text);
        }
    }

    #[test]
    fn a_reserved_key_has_text() {
        let raw = Bytes::from_static(b"\x3a\x10\x0a\x0bfactlib.key\x12\x01\xff");
        assert_eq!(Overrides::read(&raw).expect_err("no text"), "metadata is no UTF-8");
    }

    #[test]
    fn an_entry_may_begin_with_its_value() {
        let raw = Bytes::from_static(b"\x12\x01a\x3a\x10\x12\x01k\x0a\x0bfactlib.key");
        let found = Overrides::read(&raw).expect("valid").expect("some");
        assert_eq!(found.key.as_deref(), Some("k"));
    }

    #[test]
    fn broken_bytes_end_it() {
        for bytes in [&b"\x3a\x7f"[..], b"\x3a", b"\xff", b"\x3a\x02\x0a\x7f"] {
            assert_eq!(Overrides::read(&Bytes::from_static(bytes)), Ok(None));
        }
    }
}
