//! The metadata field of JoinGroup: the caller's metadata, and the assignment received last.
//!
//! Layout: version (one byte, 0), length of the metadata (four bytes, big-endian), metadata,
//! assignment.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 0;

/// Packs the metadata and the assignment into one field.
pub(crate) fn pack(metadata: &Bytes, assigned: &Bytes) -> Bytes {
    let mut packed = BytesMut::with_capacity(5 + metadata.len() + assigned.len());
    packed.put_u8(VERSION);
    // The broker refuses fields that come near this limit.
    packed.put_u32(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
    packed.put_slice(metadata);
    packed.put_slice(assigned);
    packed.freeze()
}

/// Returns the metadata and the assignment of a field. A field of another layout is all metadata.
pub(crate) fn unpack(packed: &Bytes) -> (Bytes, Bytes) {
    let mut rest = packed.clone();
    if rest.len() >= 5 && rest.get_u8() == VERSION {
        let length = rest.get_u32() as usize;
        if length <= rest.len() {
            let metadata = rest.split_to(length);
            return (metadata, rest);
        }
    }
    (packed.clone(), Bytes::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(metadata: Vec<u8>, assigned: Vec<u8>) {
            let (metadata, assigned) = (Bytes::from(metadata), Bytes::from(assigned));
            prop_assert_eq!(unpack(&pack(&metadata, &assigned)), (metadata, assigned));
        }

        #[test]
        fn any_bytes_can_be_unpacked(bytes: Vec<u8>) {
            let (metadata, assigned) = unpack(&bytes.clone().into());
            prop_assert!(metadata.len() + assigned.len() <= bytes.len());
        }
    }

    #[test]
    fn a_field_of_another_layout_is_metadata() {
        for other in [&b""[..], b"{}", b"\x01\0\0\0\0", b"\0\0\0\0\x09short"] {
            let other = Bytes::copy_from_slice(other);
            assert_eq!(unpack(&other), (other.clone(), Bytes::new()));
        }
    }
}
