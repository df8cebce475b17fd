//! Parses messages of the output plugin pgoutput, protocol version 1.
//!
//! Takes bytes, returns borrowed messages. Nothing is allocated, and no input panics. The layouts are those of "Logical
//! Replication Message Formats" (`protocol-logicalrep-message-formats.html`).

mod convert;
mod cursor;
mod tuple;

pub use self::tuple::{Column, Columns, Relations, Tuple, Value};

use self::cursor::Cursor;
use crate::Lsn;

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// Tag, flags, commit_lsn, end_lsn, time.
const BEGIN_LENGTH: usize = 21;
const BEGIN_COMMIT_TIME_AT: usize = 9;
const BEGIN_XID_AT: usize = 17;
const COMMIT_LENGTH: usize = 26;
const COMMIT_END_LSN_AT: usize = 10;

/// A message of pgoutput.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A transaction that has committed begins.
    Begin {
        /// Position at which its commit record begins.
        final_lsn: Lsn,
        /// Commit time, in microseconds since 2000-01-01.
        commit_time_us: i64,
        /// Transaction id.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// Unused: 0.
        flags: u8,
        /// Position at which its commit record begins.
        commit_lsn: Lsn,
        /// Position at which its commit record ends: the one to confirm.
        end_lsn: Lsn,
        /// Commit time, in microseconds since 2000-01-01.
        commit_time_us: i64,
    },
    /// A message written by `pg_logical_emit_message`.
    Logical {
        /// True if it belongs to the transaction; otherwise it belongs to none.
        transactional: bool,
        /// Position at which its record ends.
        lsn: Lsn,
        /// The emitter's prefix.
        prefix: &'a str,
        /// Content, borrowed from the input.
        content: &'a [u8],
    },
    /// Origin of a transaction that was replicated to this server from another one.
    Origin {
        /// Position of its commit on the origin server.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: &'a str,
    },
    /// Description of a table, sent before the first change to it.
    Relation {
        /// OID.
        oid: u32,
        /// Schema; empty for `pg_catalog`.
        namespace: &'a str,
        /// Name.
        name: &'a str,
        /// `relreplident` of `pg_class`.
        replica_identity: u8,
        /// Columns.
        columns: Columns<'a>,
    },
    /// A type that is not built in.
    Type {
        /// OID.
        oid: u32,
        /// Schema; empty for `pg_catalog`.
        namespace: &'a str,
        /// Name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// The OID of the relation.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The OID of the relation.
        relation: u32,
        /// The old row or its key, if the replica identity has it sent.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The OID of the relation.
        relation: u32,
        /// The row, or its key.
        old: OldTuple<'a>,
    },
    /// Relations were truncated.
    Truncate {
        /// Bits: 1 for CASCADE, 2 for RESTART IDENTITY.
        options: u8,
        /// The relations.
        relations: Relations<'a>,
    },
}

/// A row before its change, as far as the server sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// All columns (`REPLICA IDENTITY FULL`).
    Full(Tuple<'a>),
}

/// Error for bytes that are not a message of pgoutput.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes at `offset` are not what was expected, or the message ends there.
    #[error("expected {expected} at byte {offset}")]
    Expected {
        /// Name of the expected element.
        expected: &'static str,
        /// Byte offset in the message.
        offset: usize,
    },
    /// The message type does not exist in protocol version 1.
    #[error("unknown message type {0:#04x}")]
    UnknownType(u8),
}

impl<'a> Message<'a> {
    /// Parses one whole message.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(bytes);
        let message = match cursor.u8("the message type")? {
            b'B' => Message::Begin {
                final_lsn: cursor.lsn("the final LSN")?,
                commit_time_us: cursor.i64("the commit time")?,
                xid: cursor.u32("the transaction's number")?,
            },
            b'C' => Message::Commit {
                flags: cursor.u8("the flags")?,
                commit_lsn: cursor.lsn("the commit's LSN")?,
                end_lsn: cursor.lsn("the end LSN")?,
                commit_time_us: cursor.i64("the commit time")?,
            },
            b'M' => Message::Logical {
                transactional: cursor.u8("the flags")? & 1 == 1,
                lsn: cursor.lsn("the message's LSN")?,
                prefix: cursor.text("the prefix")?,
                content: cursor.counted("the content")?,
            },
            other => Self::parse_change(other, &mut cursor)?,
        };
        cursor.end()?;
        Ok(message)
    }

    /// Parses the less frequent types, out of line.
    fn parse_change(tag: u8, cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        Ok(match tag {
            b'O' => Message::Origin {
                commit_lsn: cursor.lsn("the origin's LSN")?,
                name: cursor.text("the origin's name")?,
            },
            b'R' => Message::Relation {
                oid: cursor.u32("the relation's OID")?,
                namespace: cursor.text("the relation's schema")?,
                name: cursor.text("the relation's name")?,
                replica_identity: cursor.u8("the replica identity")?,
                columns: Columns::parse(cursor)?,
            },
            b'Y' => Message::Type {
                oid: cursor.u32("the type's OID")?,
                namespace: cursor.text("the type's schema")?,
                name: cursor.text("the type's name")?,
            },
            b'I' => {
                let relation = cursor.u32("the relation's OID")?;
                Message::Insert { relation, new: new_tuple(cursor)? }
            }
            b'U' => {
                let relation = cursor.u32("the relation's OID")?;
                let old = match cursor.rest().first() {
                    Some(b'K' | b'O') => Some(old_tuple(cursor)?),
                    _ => None,
                };
                Message::Update { relation, old, new: new_tuple(cursor)? }
            }
            b'D' => {
                let relation = cursor.u32("the relation's OID")?;
                Message::Delete { relation, old: old_tuple(cursor)? }
            }
            b'T' => {
                let count = cursor.u32("the number of relations")?;
                let options = cursor.u8("the options")?;
                Message::Truncate { options, relations: Relations::parse(count, cursor)? }
            }
            unknown => return Err(ParseError::UnknownType(unknown)),
        })
    }
}

fn new_tuple<'a>(cursor: &mut Cursor<'a>) -> Result<Tuple<'a>, ParseError> {
    let before = *cursor;
    match cursor.u8("the new row")? {
        b'N' => Tuple::parse(cursor),
        _ => Err(before.error("the new row, N")),
    }
}

fn old_tuple<'a>(cursor: &mut Cursor<'a>) -> Result<OldTuple<'a>, ParseError> {
    let before = *cursor;
    match cursor.u8("the old row")? {
        b'K' => Tuple::parse(cursor).map(OldTuple::Key),
        b'O' => Tuple::parse(cursor).map(OldTuple::Full),
        _ => Err(before.error("the old row, K or O")),
    }
}

/// Returns the end of the transaction if `data` is a Commit; cheaper than parsing it.
#[inline]
pub fn commit_end_lsn(data: &[u8]) -> Option<Lsn> {
    if data.len() != COMMIT_LENGTH || data.first() != Some(&b'C') {
        return None;
    }
    let end_lsn = data.get(COMMIT_END_LSN_AT..)?.first_chunk()?;
    Some(Lsn::new(u64::from_be_bytes(*end_lsn)))
}

/// Returns the commit time, in microseconds since 2000-01-01, if `data` is a Begin; cheaper than
/// parsing it.
#[inline]
pub fn begin_commit_time_us(data: &[u8]) -> Option<i64> {
    if data.len() != BEGIN_LENGTH || data.first() != Some(&b'B') {
        return None;
    }
    let time = data.get(BEGIN_COMMIT_TIME_AT..)?.first_chunk()?;
    Some(i64::from_be_bytes(*time))
}

/// Returns the transaction id if `data` is a Begin; cheaper than parsing it.
#[inline]
pub fn begin_xid(data: &[u8]) -> Option<u32> {
    if data.len() != BEGIN_LENGTH || data.first() != Some(&b'B') {
        return None;
    }
    let xid = data.get(BEGIN_XID_AT..)?.first_chunk()?;
    Some(u32::from_be_bytes(*xid))
}

/// Converts PostgreSQL's clock, microseconds since 2000-01-01, to nanoseconds since 1970-01-01.
#[inline]
pub fn unix_ns(pg_us: i64) -> i64 {
    pg_us.saturating_add(POSTGRES_EPOCH_US).saturating_mul(1_000)
}

#[cfg(test)]
mod tests;
