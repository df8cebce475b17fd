//! Writes sizes as text that parses back to the same number; `ByteSize`'s own text is rounded.

use bytesize::ByteSize;
use serde::Serializer;

pub(crate) fn size_text(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

pub(crate) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&size_text(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_as_the_same_number() {
        for bytes in [0, 1, 1000, 1024, 1_000_001, 16 << 20, 3 << 30, u64::MAX] {
            let text = size_text(ByteSize(bytes));
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }
}
