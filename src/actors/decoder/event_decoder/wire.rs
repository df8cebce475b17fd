//! Replication messages, for tests.

use prost::Message as _;

use crate::{Event, proto::OutboxEvent};

/// The checkpoint of these tests.
pub const START: u64 = 1_000;

/// A pgoutput message as it comes off the socket: XLogData in CopyData.
pub fn frame(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + 1 + 24 + data.len()).expect("small");
    [&b"d"[..], &length.to_be_bytes(), b"w", &[0; 24], data].concat()
}

pub fn begin(final_lsn: u64, xid: u32) -> Vec<u8> {
    let head = [&b"B"[..], &final_lsn.to_be_bytes(), &5_i64.to_be_bytes()];
    frame(&[&head.concat()[..], &xid.to_be_bytes()].concat())
}

pub fn commit(commit_lsn: u64) -> Vec<u8> {
    let (at, end) = (commit_lsn.to_be_bytes(), (commit_lsn + 8).to_be_bytes());
    frame(&[&b"C\0"[..], &at, &end, &5_i64.to_be_bytes()].concat())
}

pub fn logical(transactional: bool, lsn: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("small").to_be_bytes();
    let head = [&[b'M', u8::from(transactional)][..], &lsn.to_be_bytes(), prefix.as_bytes()];
    frame(&[&head.concat()[..], b"\0", &length, content].concat())
}

pub fn fact(id: &str) -> Vec<u8> {
    OutboxEvent { id: id.into(), aggregate_type: "user".into(), ..Default::default() }
        .encode_to_vec()
}

/// A fact of the transaction that is open.
pub fn emitted(id: &str) -> Vec<u8> {
    logical(true, START + 1, "shop", &fact(id))
}

pub fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}
