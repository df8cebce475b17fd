//! Reads the header of a record batch and checks it as a broker does; also makes control batches,
//! which end transactions. The records themselves stay compressed.
//!
//! The format is version 2, in Kafka's documentation under "Record Batch".

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Code;

/// Size of the header, which precedes the records.
const HEADER_BYTES: usize = 61;
/// End of the length field; the length counts the bytes behind it.
const LENGTH_END: usize = 12;
/// End of the checksum field; the checksum covers all bytes behind it.
const CRC_END: usize = 21;

const IS_TRANSACTIONAL: i16 = 1 << 4;
const IS_CONTROL: i16 = 1 << 5;

/// A record batch without an offset.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    bytes: BytesMut,
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    pub max_timestamp_ms: i64,
    attributes: i16,
}

impl Batch {
    /// Reads the one batch of a Produce request.
    ///
    /// # Errors
    /// Returns the code with which a broker refuses the bytes.
    pub fn parse(records: &Bytes) -> Result<Self, Code> {
        if records.len() < HEADER_BYTES {
            return Err(Code::CorruptMessage);
        }
        if records[16] != 2 {
            return Err(Code::UnsupportedForMessageFormat);
        }
        let length = (&records[LENGTH_END - 4..]).get_i32();
        let checksum = (&records[CRC_END - 4..]).get_u32();
        let is_whole = usize::try_from(length).is_ok_and(|l| l + LENGTH_END == records.len());
        if !is_whole || crc32c::crc32c(&records[CRC_END..]) != checksum {
            return Err(Code::CorruptMessage);
        }
        let mut header = &records[CRC_END..];
        let attributes = header.get_i16();
        let last_delta = header.get_i32();
        // The first timestamp.
        header.advance(8);
        let max_timestamp_ms = header.get_i64();
        let (producer_id, epoch) = (header.get_i64(), header.get_i16());
        let (base_sequence, count) = (header.get_i32(), header.get_i32());
        if count < 1 || last_delta != count - 1 || attributes & IS_CONTROL != 0 {
            return Err(Code::InvalidRecord);
        }
        let bytes = BytesMut::from(&records[..]);
        Ok(Batch { bytes, producer_id, epoch, base_sequence, count, max_timestamp_ms, attributes })
    }

    /// Makes the control batch that commits or aborts a producer's transaction.
    pub fn marker(producer_id: i64, epoch: i16, is_committed: bool, now_ms: i64) -> Self {
        // The key has a version and the type, the value a version and the coordinator's epoch.
        let (key, value) = ([0, 0, 0, u8::from(is_committed)], [0_u8; 6]);
        let mut record = vec![0, 0, 0];
        // Lengths are zigzag numbers: twice the length.
        record.push(key.len() as u8 * 2);
        record.extend(key);
        record.push(value.len() as u8 * 2);
        record.extend(value);
        // There are no headers.
        record.push(0);
        let attributes = IS_TRANSACTIONAL | IS_CONTROL;
        let mut tail = BytesMut::new();
        tail.put_i16(attributes);
        tail.put_i32(0);
        tail.put_i64(now_ms);
        tail.put_i64(now_ms);
        tail.put_i64(producer_id);
        tail.put_i16(epoch);
        tail.put_i32(-1);
        tail.put_i32(1);
        tail.put_u8(record.len() as u8 * 2);
        tail.put_slice(&record);
        let mut bytes = BytesMut::new();
        bytes.put_i64(0);
        bytes.put_i32((CRC_END - LENGTH_END + tail.len()) as i32);
        bytes.put_i32(0);
        bytes.put_u8(2);
        bytes.put_u32(crc32c::crc32c(&tail));
        bytes.put_slice(&tail);
        let (base_sequence, count, max_timestamp_ms) = (-1, 1, now_ms);
        Batch { bytes, producer_id, epoch, base_sequence, count, max_timestamp_ms, attributes }
    }

    /// Turns a marker into a batch with records, for tests that look only at the header.
    #[cfg(test)]
    pub fn into_data(mut self) -> Self {
        self.attributes &= !IS_CONTROL;
        self
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & IS_TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & IS_CONTROL != 0
    }

    /// Bytes of the batch, including its header.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sequence number of the last record; numbers start at 0 again behind the largest.
    pub fn last_sequence(&self) -> i32 {
        advanced(self.base_sequence, self.count - 1)
    }

    /// Returns the bytes to store: offset and leader epoch are set, which no checksum covers.
    pub fn at(mut self, offset: i64, leader_epoch: i32) -> Bytes {
        self.bytes[..8].copy_from_slice(&offset.to_be_bytes());
        self.bytes[LENGTH_END..LENGTH_END + 4].copy_from_slice(&leader_epoch.to_be_bytes());
        self.bytes.freeze()
    }
}

/// Advances a sequence number.
pub(super) fn advanced(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}
