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
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(room());
            encoder.write_all(&records).and_then(|()| encoder.finish().map_err(io::Error::other))
        }
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
