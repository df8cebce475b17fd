//! Compresses and decompresses the records of a batch in the formats that Kafka's consumers
//! expect.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Codec for the records of a batch. The numbers match the attributes of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i16)]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    #[default]
    Lz4 = 3,
    /// Needs Kafka 2.1 or later.
    Zstd = 4,
}

impl Compression {
    /// All codecs.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// Reads the codec from the attributes of a batch.
    pub(crate) fn of(attributes: i16) -> Option<Self> {
        Compression::ALL.into_iter().find(|codec| *codec as i16 == attributes & 7)
    }
}

/// Compresses the records of a batch.
pub(crate) fn compress(compression: Compression, level: Option<i32>, records: Vec<u8>) -> Bytes {
    let room = || Vec::with_capacity(records.len() / 2 + 64);
    let packed = match compression {
        Compression::None => return records.into(),
        Compression::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |level| {
                flate2::Compression::new(level.clamp(1, 9).unsigned_abs())
            });
            let mut encoder = flate2::write::GzEncoder::new(room(), level);
            encoder.write_all(&records).and_then(|()| encoder.finish())
        }
        Compression::Snappy => Ok(snappy::framed(&records)),
        Compression::Lz4 => Ok(lz4::framed(&records, room())),
        Compression::Zstd => zstd::bulk::compress(&records, level.unwrap_or(0)),
    };
    packed.expect("compressing in memory does not fail").into()
}

/// Decompresses the records of a batch.
pub(crate) fn decompress(compression: Compression, packed: &Bytes) -> io::Result<Bytes> {
    let mut out = Vec::new();
    match compression {
        Compression::None => return Ok(packed.clone()),
        Compression::Gzip => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out)?,
        Compression::Snappy => return snappy::unframed(packed),
        Compression::Lz4 => {
            lz4_flex::frame::FrameDecoder::new(&packed[..]).read_to_end(&mut out)?
        }
        Compression::Zstd => {
            zstd::stream::read::Decoder::new(&packed[..])?.read_to_end(&mut out)?
        }
    };
    Ok(out.into())
}

/// LZ4 in frames of blocks of 64 KiB, as Java's client writes them: a consumer reserves a buffer of
/// a block's size. The encoder of `lz4_flex` would copy the records first.
///
/// The format is defined by the LZ4 Frame Format Description 1.6.
mod lz4 {
    use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

    /// Magic number; version 1 and independent blocks; blocks of at most 64 KiB; the checksum of
    /// these two bytes.
    const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    /// A little less than the most, for a table with entries of 16 bits.
    const BLOCK_BYTES: usize = (64 << 10) - 2;
    /// Marks the length of a block that is stored as it is.
    const UNCOMPRESSED: u32 = 1 << 31;

    /// Appends the frame to `out`.
    pub fn framed(bytes: &[u8], mut out: Vec<u8>) -> Vec<u8> {
        let mut table = CompressTable::small();
        let mut packed = vec![0; get_maximum_output_size(bytes.len().min(BLOCK_BYTES))];
        out.extend_from_slice(&HEADER);
        for block in bytes.chunks(BLOCK_BYTES) {
            let length = compress_into_with_table(block, &mut packed, &mut table);
            let length = length.expect("the buffer has the maximum size");
            let (mark, content) = match packed.get(..length) {
                Some(packed) if length < block.len() => (0, packed),
                _ => (UNCOMPRESSED, block),
            };
            out.extend_from_slice(&(content.len() as u32 | mark).to_le_bytes());
            out.extend_from_slice(content);
        }
        // The end mark.
        out.extend_from_slice(&[0; 4]);
        out
    }
}

/// Snappy in the frames of the library snappy-java, which Java's client reads and writes.
mod snappy {
    use super::{Bytes, io};

    const MAGIC: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    /// Size of a block of snappy-java.
    const BLOCK_BYTES: usize = 32 << 10;

    pub fn framed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = snap::raw::Encoder::new();
        let mut out = MAGIC.to_vec();
        for block in bytes.chunks(BLOCK_BYTES) {
            let packed = encoder.compress_vec(block).expect("a block of 32 KiB can be compressed");
            out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
            out.extend_from_slice(&packed);
        }
        out
    }

    pub fn unframed(bytes: &[u8]) -> io::Result<Bytes> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut left = bytes.strip_prefix(MAGIC).ok_or_else(broken)?;
        let mut out = Vec::new();
        while !left.is_empty() {
            let (length, rest) = left.split_first_chunk::<4>().ok_or_else(broken)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
            out.extend(snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)?);
            left = rest;
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_is_read_again() {
        for length in [0, 1, 60, 65_534, 65_535, 65_536, 300_000] {
            let same = vec![7; length];
            let mut noise = same.clone();
            getrandom::fill(&mut noise).expect("the system has randomness");
            for (compression, records) in
                Compression::ALL.into_iter().flat_map(|codec| [(codec, &same), (codec, &noise)])
            {
                let packed = compress(compression, None, records.clone());
                let read = decompress(compression, &packed).expect("compressed here");
                assert_eq!(&read, records, "{compression:?}, {length}");
            }
        }
    }
}
