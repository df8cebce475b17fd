//! Splits the bytes of a replication stream into frames, the messages of the server.
//!
//! On the hot path: frames borrow from the input, nothing is copied or allocated. The layouts are
//! those of "Message Formats" and "Streaming Replication Protocol" in
//! PostgreSQL's documentation.

pub use crate::ErrorFields;
use crate::{Error, ErrorKind, Lsn, Result};

/// Bytes of the type and the length.
const HEADER: usize = 5;
/// The server builds a message in one allocation, and none exceeds 1 GiB (`MaxAllocSize`).
const MAX_DATA: usize = 1 << 30;
/// Maximum for errors, notices and other text; libpq allows 30,000 bytes.
const MAX_OTHER: usize = 1 << 20;

/// A message of the server during replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Output of the plugin.
    XLogData(XLogData<'a>),
    /// A sign of life, sent when there is nothing else to send.
    Keepalive {
        /// Position up to which the server has sent everything.
        wal_end: Lsn,
        /// Time of the server's clock, in microseconds since 2000-01-01.
        server_time_us: i64,
        /// True if the server ends the connection unless it gets a status soon.
        reply_requested: bool,
    },
    /// The server ends the replication with this error.
    Error(ErrorFields<'a>),
    /// A notice; replication goes on.
    Notice(ErrorFields<'a>),
    /// The server sends no more changes.
    CopyDone,
    /// The command has ended.
    CommandComplete,
    /// The server waits for the next command.
    ReadyForQuery,
    /// A setting has changed; replication goes on.
    ParameterStatus,
    /// A message of another type, which is given.
    Other(u8),
}

impl Frame<'_> {
    /// Fails if the server ends the replication with this frame.
    ///
    /// # Errors
    /// The error that the server sent, or `Unavailable` if it sent none.
    pub fn ensure_streaming(self) -> Result<()> {
        const ENDED: &str = "PostgreSQL ended the replication";
        match self {
            Frame::Error(fields) => Err(fields.into_error(ENDED)),
            Frame::CopyDone => Err(Error::new(ErrorKind::Unavailable, ENDED)),
            _ => Ok(()),
        }
    }
}

/// Output of the plugin; with pgoutput, one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XLogData<'a> {
    /// Position of the output in the WAL; zero for some messages.
    pub wal_start: Lsn,
    /// End of the server's WAL.
    pub wal_end: Lsn,
    /// Time of the server's clock, in microseconds since 2000-01-01.
    pub server_time_us: i64,
    /// Bytes that the plugin wrote.
    pub data: &'a [u8],
}

/// Returns the first frame in `bytes` and its length; `None` if it is not complete.
///
/// # Errors
/// `Protocol` for a type, a length or a layout that the protocol does not allow.
#[inline]
pub fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>> {
    let Some((kind, total)) = header(bytes)? else { return Ok(None) };
    let Some(body) = bytes.get(HEADER..total) else { return Ok(None) };
    let frame = match kind {
        b'd' => copy_data(body).ok_or_else(|| malformed("CopyData"))?,
        b'E' => Frame::Error(ErrorFields(body)),
        b'N' => Frame::Notice(ErrorFields(body)),
        b'c' => Frame::CopyDone,
        b'C' => Frame::CommandComplete,
        b'Z' => Frame::ReadyForQuery,
        b'S' => Frame::ParameterStatus,
        other => Frame::Other(other),
    };
    Ok(Some((frame, total)))
}

/// Returns the length of the first frame in `bytes`; 0 if its header is incomplete or not allowed.
///
/// It is at most 1 GiB and the header, so a buffer of this size may be reserved.
#[inline]
pub fn first_frame_length(bytes: &[u8]) -> usize {
    header(bytes).ok().flatten().map_or(0, |(_, total)| total)
}

/// Reads the type, and the length including the header.
#[inline]
fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>> {
    let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    // The length counts itself but not the type.
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let limit = if kind == b'd' { MAX_DATA } else { MAX_OTHER };
    if !kind.is_ascii_alphanumeric() || length < 4 || length > limit {
        return Err(not_a_message(kind, length));
    }
    Ok(Some((kind, length + 1)))
}

#[inline]
fn copy_data(body: &[u8]) -> Option<Frame<'_>> {
    match body.split_first()? {
        (b'w', rest) => {
            let (wal_start, rest) = take_u64(rest)?;
            let (wal_end, rest) = take_u64(rest)?;
            let (time, data) = take_u64(rest)?;
            Some(Frame::XLogData(XLogData {
                wal_start: Lsn::new(wal_start),
                wal_end: Lsn::new(wal_end),
                server_time_us: time.cast_signed(),
                data,
            }))
        }
        (b'k', rest) => {
            let (wal_end, rest) = take_u64(rest)?;
            let (time, rest) = take_u64(rest)?;
            let &[reply] = rest else { return None };
            Some(Frame::Keepalive {
                wal_end: Lsn::new(wal_end),
                server_time_us: time.cast_signed(),
                reply_requested: reply != 0,
            })
        }
        _ => None,
    }
}

#[inline]
fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

#[cold]
fn malformed(name: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("PostgreSQL sent a malformed {name} message"))
}

#[cold]
fn not_a_message(kind: u8, length: usize) -> Error {
    let message =
        format!("PostgreSQL sent bytes that are not a message: type {kind:#04x}, length {length}");
    Error::new(ErrorKind::Protocol, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn xlog_data(start: u64, end: u64, time: i64, data: &[u8]) -> Vec<u8> {
        let head = [&b"w"[..], &start.to_be_bytes(), &end.to_be_bytes(), &time.to_be_bytes()];
        message(b'd', &[&head.concat(), data].concat())
    }

    fn keepalive(end: u64, time: i64, reply: bool) -> Vec<u8> {
        let body = [&b"k"[..], &end.to_be_bytes(), &time.to_be_bytes(), &[u8::from(reply)]];
        message(b'd', &body.concat())
    }

    #[test]
    fn messages_other_than_data_are_distinguished() {
        for (kind, body, frame) in [
            (b'c', &b""[..], Frame::CopyDone),
            (b'C', b"COPY 0\0", Frame::CommandComplete),
            (b'Z', b"I", Frame::ReadyForQuery),
            (b'S', b"a\0b\0", Frame::ParameterStatus),
            (b'E', b"C57P01\0\0", Frame::Error(ErrorFields(b"C57P01\0\0"))),
            (b'N', b"C00000\0\0", Frame::Notice(ErrorFields(b"C00000\0\0"))),
            (b'A', b"", Frame::Other(b'A')),
        ] {
            let bytes = message(kind, body);
            assert_eq!(next_frame(&bytes).unwrap(), Some((frame, bytes.len())));
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_memory_is_reserved() {
        for bytes in [
            [b'd', 0x7f, 0xff, 0xff, 0xff],
            [b'd', 0xff, 0xff, 0xff, 0xff],
            [b'd', 0x40, 0, 0, 1],
            [b'd', 0, 0, 0, 3],
            [b'E', 0x3f, 0, 0, 0],
            [0, 0, 0, 0, 4],
        ] {
            assert_eq!(next_frame(&bytes).unwrap_err().kind(), ErrorKind::Protocol);
            assert_eq!(first_frame_length(&bytes), 0);
        }
        assert_eq!(first_frame_length(&[b'd', 0x40, 0, 0, 0]), (1 << 30) + 1);
    }

    #[test]
    fn malformed_data_is_refused() {
        for body in [&b""[..], b"w", b"k", b"x123", &[b'k'; 17], &[b'k'; 19], &[b'w'; 24]] {
            assert_eq!(next_frame(&message(b'd', body)).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    proptest! {
        #[test]
        fn frames_round_trip_and_wait_for_their_last_byte(
            start: u64, end: u64, time: i64, reply: bool, data: Vec<u8>, rest: Vec<u8>,
        ) {
            let (start_lsn, end_lsn) = (Lsn::new(start), Lsn::new(end));
            let xlog = Frame::XLogData(XLogData {
                wal_start: start_lsn, wal_end: end_lsn, server_time_us: time, data: &data,
            });
            let alive = Frame::Keepalive { wal_end: end_lsn, server_time_us: time, reply_requested: reply };
            for (bytes, frame) in [(xlog_data(start, end, time, &data), xlog), (keepalive(end, time, reply), alive)] {
                for cut in 0..bytes.len() {
                    prop_assert_eq!(next_frame(&bytes[..cut]).unwrap(), None);
                }
                prop_assert_eq!(first_frame_length(&bytes), bytes.len());
                let stream = [&bytes[..], &rest].concat();
                prop_assert_eq!(next_frame(&stream).unwrap(), Some((frame, bytes.len())));
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(mut bytes: Vec<u8>, kind in "[dEkcSZ]", length in 0u8..64) {
            let _ = next_frame(&bytes);
            // And once more with a header that leads further in.
            let header = [kind.as_bytes()[0], 0, 0, 0, length];
            bytes.splice(0..0, header);
            if let Ok(Some((_, total))) = next_frame(&bytes) {
                prop_assert!(total <= bytes.len());
            }
        }
    }
}
