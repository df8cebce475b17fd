//! Encodes record batches in Kafka's format 2. The records are encoded once; producer id, epoch
//! and sequence are set anew for each attempt to send.
//!
//! The format is defined by Kafka's documentation ("Record Batch") and
//! `org.apache.kafka.common.record.DefaultRecordBatch`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::compression::{Compression, compress, decompress};

/// Size of a batch's header, which precedes the records.
pub const HEADER_BYTES: usize = 61;

/// Batches with fewer bytes of records are sent uncompressed: little is saved, and each costs the reader
/// the buffers of a codec.
const COMPRESSED_FROM: usize = 512;

/// End of the checksum field; the checksum covers all bytes behind it.
const CRC_END: usize = 21;

const IS_TRANSACTIONAL: i16 = 1 << 4;

/// The parts of one record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Key; none for a record without a key.
    pub key: Option<&'a [u8]>,
    /// Value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order; a name may occur twice.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Time in Unix milliseconds.
    pub timestamp_ms: i64,
}

/// Collects records for a batch.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    records: Vec<u8>,
    count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// A finished batch, compressed.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    records: Bytes,
    count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    compression: Compression,
}

/// Producer fields of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Producer id, from `InitProducerId`.
    pub producer_id: i64,
    /// Epoch of the producer on the partition.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// True if the batch belongs to a transaction.
    pub is_transactional: bool,
}

impl BatchBuilder {
    /// Creates a builder with room for so many bytes of records.
    pub(crate) fn with_room(bytes: usize) -> Self {
        BatchBuilder { records: Vec::with_capacity(bytes), ..BatchBuilder::default() }
    }

    /// Returns true if there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the bytes of the records so far, uncompressed.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// Appends a record.
    pub fn push(&mut self, record: &Record<'_>) {
        let offset = self.begin(record.timestamp_ms);
        let delta = record.timestamp_ms - self.base_timestamp_ms;
        let fields = |length: usize, bytes: Option<&[u8]>| length + field_bytes(bytes);
        let headers = record
            .headers
            .iter()
            .fold(0, |length, (name, value)| fields(fields(length, Some(name.as_bytes())), *value));
        let length = 1
            + varint_bytes(delta)
            + varint_bytes(offset)
            + field_bytes(record.key)
            + field_bytes(record.value)
            + varint_bytes(record.headers.len() as i64)
            + headers;
        let out = &mut self.records;
        out.reserve(length + 5);
        put_varint(out, length as i64);
        out.push(0);
        put_varint(out, delta);
        put_varint(out, offset);
        put_field(out, record.key);
        put_field(out, record.value);
        put_varint(out, record.headers.len() as i64);
        for (name, value) in record.headers {
            put_field(out, Some(name.as_bytes()));
            put_field(out, *value);
        }
    }

    /// Compresses the records, unless they are few bytes. `level` applies only to gzip and zstd.
    pub fn finish(self, compression: Compression, level: Option<i32>) -> RecordBatch {
        let BatchBuilder { records, count, base_timestamp_ms, max_timestamp_ms } = self;
        let compression = match records.len() {
            ..COMPRESSED_FROM => Compression::None,
            _ => compression,
        };
        let records = compress(compression, level, records);
        RecordBatch { records, count, base_timestamp_ms, max_timestamp_ms, compression }
    }

    /// Counts a record and returns its index.
    fn begin(&mut self, timestamp_ms: i64) -> i64 {
        if self.count == 0 {
            (self.base_timestamp_ms, self.max_timestamp_ms) = (timestamp_ms, timestamp_ms);
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let offset = i64::from(self.count);
        self.count += 1;
        offset
    }

    /// Appends a record whose fields after timestamp and offset are already encoded.
    fn push_fields(&mut self, timestamp_ms: i64, attributes: u8, fields: &[u8]) {
        let offset = self.begin(timestamp_ms);
        let delta = timestamp_ms - self.base_timestamp_ms;
        let length = 1 + varint_bytes(delta) + varint_bytes(offset) + fields.len();
        put_varint(&mut self.records, length as i64);
        self.records.push(attributes);
        put_varint(&mut self.records, delta);
        put_varint(&mut self.records, offset);
        self.records.extend_from_slice(fields);
    }
}

impl RecordBatch {
    /// Returns the number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the size of the whole batch as it is sent.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Encodes the batch for a Produce request.
    pub fn stamped(&self, stamp: Stamp) -> Bytes {
        let Stamp { producer_id, epoch, base_sequence, is_transactional } = stamp;
        let transactional = if is_transactional { IS_TRANSACTIONAL } else { 0 };
        let mut out = BytesMut::with_capacity(self.bytes());
        out.put_i64(0);
        // Length of the batch behind this field.
        out.put_i32((self.bytes() - 12) as i32);
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(self.compression as i16 | transactional);
        out.put_i32(self.count.saturating_sub(1) as i32);
        out.put_i64(self.base_timestamp_ms);
        out.put_i64(self.max_timestamp_ms);
        out.put_i64(producer_id);
        out.put_i16(epoch);
        out.put_i32(base_sequence);
        out.put_i32(self.count as i32);
        out.put_slice(&self.records);
        let crc = crc32c::crc32c(&out[CRC_END..]);
        out[CRC_END - 4..CRC_END].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    /// Splits the batch into the first `at` records and the others; `0 < at < count`.
    ///
    /// A batch is split only after a broker refused it, so it is decompressed and compressed again
    /// rather than kept in pieces.
    pub fn split_at(self, at: u32) -> (Self, Self) {
        let mut parts = [BatchBuilder::default(), BatchBuilder::default()];
        let records = decompress(self.compression, &self.records);
        let records = records.expect("what was compressed here can be read");
        let mut left = &records[..];
        for index in 0..self.count {
            let (record, rest) = take_record(left).expect("what was written here can be read");
            left = rest;
            let part = &mut parts[usize::from(index >= at)];
            let timestamp_ms = self.base_timestamp_ms + record.timestamp_delta_ms;
            part.push_fields(timestamp_ms, record.attributes, record.fields);
        }
        let [first, second] = parts.map(|part| part.finish(self.compression, None));
        (first, second)
    }
}

struct Written<'a> {
    attributes: u8,
    timestamp_delta_ms: i64,
    /// Key, value and headers.
    fields: &'a [u8],
}

/// Splits off the first record, and returns it with the remaining bytes.
fn take_record(bytes: &[u8]) -> Option<(Written<'_>, &[u8])> {
    let (length, bytes) = take_varint(bytes)?;
    let (record, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    let (attributes, record) = record.split_first()?;
    let (timestamp_delta_ms, record) = take_varint(record)?;
    let (_, fields) = take_varint(record)?;
    Some((Written { attributes: *attributes, timestamp_delta_ms, fields }, rest))
}

/// Appends a zigzag varint, as in protobuf.
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn varint_bytes(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

pub(crate) fn take_varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut zigzag = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        zigzag |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn put_field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

fn field_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint_bytes(bytes.len() as i64) + bytes.len())
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::records::RecordBatchDecoder;
    use proptest::prelude::*;

    use super::*;

    type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>, i64);

    fn built(records: &[Owned], compression: Compression) -> RecordBatch {
        let mut builder = BatchBuilder::default();
        for (key, value, headers, timestamp_ms) in records {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            builder.push(&Record {
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
                timestamp_ms: *timestamp_ms,
            });
        }
        builder.finish(compression, None)
    }

    const STAMP: Stamp =
        Stamp { producer_id: 77, epoch: 3, base_sequence: 40, is_transactional: false };

    /// Reads the batch with another implementation.
    fn read(batch: &RecordBatch) -> Vec<Owned> {
        let mut bytes = batch.stamped(STAMP);
        assert_eq!(bytes.len(), batch.bytes());
        let set = RecordBatchDecoder::decode(&mut bytes).expect("a batch");
        assert!(!bytes.has_remaining());
        let read = set.records.into_iter().enumerate().map(|(n, record)| {
            assert_eq!((record.producer_id, record.producer_epoch), (77, 3));
            assert_eq!((record.sequence, record.offset), (40 + n as i32, n as i64));
            let headers = record.headers.into_iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.map(Into::into)));
            (
                record.key.map(Into::into),
                record.value.map(Into::into),
                headers.collect(),
                record.timestamp,
            )
        });
        read.collect()
    }

    fn records() -> impl Strategy<Value = Vec<Owned>> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
        // Of two headers of one name, the other implementation keeps one.
        let headers = prop::collection::btree_map("[a-z]{1,9}", bytes(), 0..4);
        let headers = headers.prop_map(|headers| headers.into_iter().collect::<Vec<_>>());
        prop::collection::vec((bytes(), bytes(), headers, 0..4_000_000_000_000_i64), 1..40)
    }

    proptest! {
        #[test]
        fn another_implementation_reads_what_was_written(records in records()) {
            prop_assert_eq!(read(&built(&records, Compression::None)), records);
        }

        #[test]
        fn a_batch_is_cut_wherever_asked(records in records(), at in any::<prop::sample::Index>()) {
            prop_assume!(records.len() > 1);
            let at = 1 + at.index(records.len() - 1);
            for compression in Compression::ALL {
                let (first, second) = built(&records, compression).split_at(at as u32);
                let plain = |batch: RecordBatch| RecordBatch {
                    records: decompress(batch.compression, &batch.records).expect("compressed"),
                    compression: Compression::None,
                    ..batch
                };
                prop_assert_eq!(read(&plain(first)), &records[..at]);
                prop_assert_eq!(read(&plain(second)), &records[at..]);
            }
        }

        #[test]
        fn few_bytes_are_sent_as_they_are(value in prop::collection::vec(b'a'..b'd', 0..2_000)) {
            let records = [(None, Some(value), Vec::new(), 0)];
            let (plain, packed) =
                (built(&records, Compression::None), built(&records, Compression::Lz4));
            let is_compressed = packed.compression == Compression::Lz4;
            prop_assert_eq!(is_compressed, plain.records.len() >= COMPRESSED_FROM);
            prop_assert!(packed.bytes() <= plain.bytes());
        }

        #[test]
        fn varints_are_as_long_as_was_said(value: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_bytes(value));
            prop_assert_eq!(take_varint(&out), Some((value, &[][..])));
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = take_record(&bytes);
        }
    }
}
