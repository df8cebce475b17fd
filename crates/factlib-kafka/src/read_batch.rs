//! Decodes the record batches of a Fetch response, and leaves out aborted transactions.
//!
//! Only format 2 is supported: Kafka has stored it since 0.11, whatever format producers send.

use bytes::{Buf, Bytes};

use crate::{
    client::{FetchedRecord, TransactionEnd},
    compression::{Compression, decompress},
    record_batch::{HEADER_BYTES, take_varint},
};

/// End of the length field; the length counts the bytes behind it.
const LENGTH_END: usize = 12;

const IS_TRANSACTIONAL: i16 = 1 << 4;
const IS_CONTROL: i16 = 1 << 5;

/// Types of the control records that end a transaction (`ControlRecordType`).
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// An aborted transaction: all records of the producer from offset `from` to the end of the
/// transaction.
pub(crate) struct AbortedTransaction {
    pub producer_id: i64,
    pub from: i64,
}

/// The decoded records, and the offset to continue from.
pub(crate) struct ReadBatches {
    pub records: Vec<FetchedRecord>,
    pub ends: Vec<TransactionEnd>,
    pub next_offset: i64,
}

struct Header {
    base_offset: i64,
    attributes: i16,
    last_offset: i64,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer_id: i64,
    count: i32,
}

/// Reads complete batches from `offset` on; the last batch in the bytes may be incomplete.
///
/// # Errors
/// Returns a description of what is wrong with the bytes.
pub(crate) fn read_batches(
    mut bytes: Bytes,
    offset: i64,
    mut aborted: Vec<AbortedTransaction>,
) -> Result<ReadBatches, String> {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.from));
    let (mut records, mut ends, mut next_offset) = (Vec::new(), Vec::new(), offset);
    // Producers whose transaction at this point of the log was aborted.
    let mut aborting_producers = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let length = (&bytes[LENGTH_END - 4..]).get_i32();
        let length = usize::try_from(length).map_err(|_| "a batch of a negative length")?;
        if bytes[16] != 2 {
            return Err(format!("a batch of the old format {}", bytes[16]));
        }
        if length + LENGTH_END < HEADER_BYTES {
            return Err("a batch that is shorter than its header".into());
        }
        if bytes.len() < LENGTH_END + length {
            break;
        }
        let batch = bytes.split_to(LENGTH_END + length);
        let header = Header::of(&batch);
        while aborted.last().is_some_and(|transaction| transaction.from <= header.last_offset) {
            aborting_producers.extend(aborted.pop().map(|transaction| transaction.producer_id));
        }
        next_offset = next_offset.max(header.last_offset.saturating_add(1));
        let is_aborted = header.attributes & IS_TRANSACTIONAL != 0
            && aborting_producers.contains(&header.producer_id);
        let is_control = header.attributes & IS_CONTROL != 0;
        if is_aborted && !is_control {
            continue;
        }
        let codec = Compression::of(header.attributes).ok_or("a batch of an unknown codec")?;
        let packed = batch.slice(HEADER_BYTES..);
        let mut left = decompress(codec, &packed).map_err(|error| error.to_string())?;
        for _ in 0..header.count {
            let record = read_record(&mut left, &header).ok_or("a record that is cut off")?;
            if is_control {
                let kind = record.key.as_deref().and_then(|key| key.get(2..4));
                let kind = kind.map(|mut kind| kind.get_i16());
                if kind == Some(ABORT) {
                    aborting_producers.retain(|producer| *producer != header.producer_id);
                }
                let is_end = matches!(kind, Some(ABORT | COMMIT)) && record.offset >= offset;
                ends.extend(is_end.then(|| TransactionEnd {
                    offset: record.offset,
                    producer_id: header.producer_id,
                    is_committed: kind == Some(COMMIT),
                }));
            } else if record.offset >= offset {
                records.push(record);
            }
        }
    }
    Ok(ReadBatches { records, ends, next_offset })
}

impl Header {
    fn of(mut batch: &[u8]) -> Self {
        let base_offset = batch.get_i64();
        // Length, leader epoch, format, checksum.
        batch.advance(4 + 4 + 1 + 4);
        let attributes = batch.get_i16();
        let last_offset = base_offset.saturating_add(i64::from(batch.get_i32()));
        let (base_timestamp_ms, max_timestamp_ms) = (batch.get_i64(), batch.get_i64());
        let producer_id = batch.get_i64();
        // Epoch and sequence.
        batch.advance(2 + 4);
        let count = batch.get_i32();
        Header {
            base_offset,
            attributes,
            last_offset,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id,
            count,
        }
    }
}

fn read_record(left: &mut Bytes, header: &Header) -> Option<FetchedRecord> {
    let length = usize::try_from(varint(left)?).ok()?;
    let mut record = (left.len() >= length).then(|| left.split_to(length))?;
    record.has_remaining().then(|| record.advance(1))?;
    let timestamp_delta = varint(&mut record)?;
    let offset = header.base_offset.checked_add(varint(&mut record)?)?;
    let (key, value) = (field(&mut record)?, field(&mut record)?);
    let mut headers = Vec::new();
    for _ in 0..varint(&mut record)? {
        let name = String::from_utf8(field(&mut record)??.to_vec()).ok()?;
        headers.push((name, field(&mut record)?));
    }
    // With `LogAppendTime`, all records have the time at which the broker appended the batch.
    let is_appended = header.attributes & 1 << 3 != 0;
    let timestamp_ms = match is_appended {
        true => header.max_timestamp_ms,
        false => header.base_timestamp_ms.checked_add(timestamp_delta)?,
    };
    let is_transactional = header.attributes & IS_TRANSACTIONAL != 0;
    let transaction_of = is_transactional.then_some(header.producer_id);
    Some(FetchedRecord { offset, timestamp_ms, key, value, headers, transaction_of })
}

fn varint(bytes: &mut Bytes) -> Option<i64> {
    let (value, rest) = take_varint(bytes)?;
    let read = bytes.len() - rest.len();
    bytes.advance(read);
    Some(value)
}

/// Reads an optional field; a length of -1 means that it is missing.
fn field(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match varint(bytes)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok()?;
            (bytes.len() >= length).then(|| Some(bytes.split_to(length)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record_batch::{BatchBuilder, Record, Stamp};

    /// A batch of records of these keys at an offset, of producer 7.
    fn batch(offset: i64, keys: &[&str], is_transactional: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for key in keys {
            builder.push(&Record {
                key: Some(key.as_bytes()),
                value: Some(b"v"),
                headers: &[("h", None)],
                timestamp_ms: 1_000 + offset,
            });
        }
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: 0, is_transactional };
        let mut bytes = builder.finish(Compression::Lz4, None).stamped(stamp).to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes
    }

    /// The end of producer 7's transaction.
    fn end(offset: i64, kind: i16) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        let key = [0_i16.to_be_bytes(), kind.to_be_bytes()].concat();
        builder.push(&Record {
            key: Some(&key),
            value: Some(&[0; 6]),
            headers: &[],
            timestamp_ms: 0,
        });
        let stamp = Stamp { producer_id: 7, epoch: 0, base_sequence: -1, is_transactional: true };
        let mut bytes = builder.finish(Compression::None, None).stamped(stamp).to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[22] |= IS_CONTROL as u8;
        bytes
    }

    fn keys(read: &ReadBatches) -> Vec<(i64, &[u8])> {
        read.records.iter().map(|r| (r.offset, r.key.as_deref().unwrap_or_default())).collect()
    }

    #[test]
    fn records_come_from_the_offset_on_and_what_is_cut_off_comes_later() {
        let mut bytes = batch(10, &["a", "b"], false);
        bytes.extend(batch(12, &["c"], false));
        bytes.extend(&batch(13, &["d"], false)[..70]);
        let read = read_batches(bytes.into(), 11, Vec::new()).expect("batches");
        assert_eq!(keys(&read), [(11, &b"b"[..]), (12, b"c")]);
        assert_eq!((read.next_offset, read.records[0].timestamp_ms), (13, 1_010));
        assert_eq!(read.records[0].headers, [("h".to_owned(), None)]);
    }

    #[test]
    fn what_was_undone_is_left_out_and_what_the_producer_committed_later_is_not() {
        let parts = [
            batch(0, &["aborted"], true),
            end(1, ABORT),
            batch(2, &["kept"], true),
            end(3, COMMIT),
        ];
        let aborted = || vec![AbortedTransaction { producer_id: 7, from: 0 }];
        let read = read_batches(parts.concat().into(), 0, aborted()).expect("batches");
        assert_eq!((keys(&read), read.next_offset), (vec![(2, &b"kept"[..])], 4));
        let all = read_batches(parts.concat().into(), 0, Vec::new()).expect("batches");
        assert_eq!(keys(&all), [(0, &b"aborted"[..]), (2, b"kept")]);
        let ends: Vec<_> = all.ends.iter().map(|end| (end.offset, end.is_committed)).collect();
        assert_eq!(ends, [(1, false), (3, true)]);
        assert!(all.ends.iter().all(|end| end.producer_id == 7));
        assert_eq!(all.records[0].transaction_of, Some(7));
        let later = read_batches(parts.concat().into(), 2, Vec::new()).expect("batches");
        assert_eq!((later.records.len(), later.ends.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 61..300),
            length in 0..300_i32,
            offset: i64,
        ) {
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            let _ = read_batches(bytes.into(), offset, Vec::new());
        }
    }
}
