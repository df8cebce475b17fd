//! Finds the whole messages at the front of the buffer, of which a batch is made.

use bytes::{Buf, Bytes, BytesMut};
use factlib_postgres::{
    frame::{self, Frame},
    pgoutput,
};

use super::pace::Pace;
use crate::{Lsn, Result, status::TransactionBoundary};

/// Memory for a message of a batch beside its bytes: its event, its place in a part, and its
/// record in the Kafka client, with headers.
const MESSAGE_OVERHEAD: usize = 512;
/// Memory for a batch beside its messages: actor messages, tokens, bookkeeping.
const BATCH_OVERHEAD: usize = 1024;

/// A run of whole messages at the front of the buffer.
#[derive(Default)]
pub(super) struct MessageRun {
    pub bytes: usize,
    pub messages: usize,
    /// The server's position, as the messages give it.
    pub received: Lsn,
    /// The end of its last commit, or the server's position in a later keepalive.
    pub safe_at: Option<Lsn>,
    /// Commit time of the first transaction that begins in it.
    pub committed_us: Option<i64>,
    /// The transaction that it ends inside of, if any.
    pub boundary: TransactionBoundary,
    pub reply_requested: bool,
}

impl MessageRun {
    /// Finds the whole messages at the front of `buffer`, up to a batch's size; none where the
    /// first is incomplete. With `to_commit`, the run ends with a transaction.
    pub fn scan(
        buffer: &[u8],
        batch_bytes: usize,
        to_commit: bool,
        pace: &mut Pace,
    ) -> Result<Option<Self>> {
        let mut run = MessageRun::default();
        while run.bytes < batch_bytes
            && !(to_commit && run.boundary == TransactionBoundary::Between)
        {
            let rest = buffer.get(run.bytes..).unwrap_or_default();
            let Some((frame, length)) = frame::next_frame(rest)? else { break };
            run.add(frame, pace)?;
            run.bytes += length;
        }
        Ok((run.bytes > 0).then_some(run))
    }

    fn add(&mut self, frame: Frame<'_>, pace: &mut Pace) -> Result<()> {
        match frame {
            Frame::XLogData(wal) => {
                self.messages += 1;
                self.received = self.received.max(wal.wal_start);
                if let Some(lsn) = pgoutput::commit_end_lsn(wal.data) {
                    self.received = self.received.max(lsn);
                    self.safe_at = self.safe_at.max(Some(lsn));
                    self.boundary = TransactionBoundary::Between;
                } else if let Some(committed_us) = pgoutput::begin_commit_time_us(wal.data) {
                    self.boundary = TransactionBoundary::Inside { committed_us };
                    self.committed_us.get_or_insert(committed_us);
                    pace.begun(committed_us);
                }
                pace.sent(wal.server_time_us);
            }
            // All that ends before this position was sent before this message.
            Frame::Keepalive { wal_end, reply_requested, .. } => {
                self.received = self.received.max(wal_end);
                self.safe_at = self.safe_at.max(Some(wal_end));
                self.reply_requested |= reply_requested;
                pace.idle();
            }
            other => other.ensure_streaming()?,
        }
        Ok(())
    }

    /// Bytes that it takes of the window.
    pub fn charge(&self) -> usize {
        self.bytes + self.messages * MESSAGE_OVERHEAD + BATCH_OVERHEAD
    }
}

/// Takes the first `bytes` of `buffer`.
///
/// A batch that fills a good part of its block takes the block with it. A small
/// one is copied: slices of one block would keep all of it alive, and a batch
/// that waits for long would hold far more memory than it was charged for.
pub(super) fn take_front(buffer: &mut BytesMut, bytes: usize) -> Bytes {
    if bytes >= buffer.capacity() / 4 {
        buffer.split_to(bytes).freeze()
    } else {
        let batch = Bytes::copy_from_slice(buffer.get(..bytes).unwrap_or_default());
        buffer.advance(bytes);
        batch
    }
}

/// Makes room for a batch, or for the rest of a message that is larger than one.
pub(super) fn make_room(buffer: &mut BytesMut, batch_bytes: usize) {
    let wanted = frame::first_frame_length(buffer).max(batch_bytes);
    let room = buffer.capacity() - buffer.len();
    if buffer.is_empty() || buffer.capacity() < wanted || room < batch_bytes / 4 {
        buffer.reserve(wanted.saturating_sub(buffer.len()));
    }
}

/// Replication messages, for tests.
#[cfg(test)]
pub(super) mod wire {
    pub fn copy_data(parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = u32::try_from(body.len() + 4).expect("small").to_be_bytes();
        [&b"d"[..], &length, &body].concat()
    }

    pub fn wal(start: u64, data: &[u8]) -> Vec<u8> {
        copy_data(&[b"w", &start.to_be_bytes(), &[0; 16], data])
    }

    pub fn begin(start: u64) -> Vec<u8> {
        wal(start, &[&b"B"[..], &[0; 20]].concat())
    }

    pub fn commit(end: u64) -> Vec<u8> {
        let data = [&b"C\0"[..], &(end - 8).to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat();
        wal(end - 8, &data)
    }

    pub fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
        copy_data(&[b"k", &wal_end.to_be_bytes(), &[0; 8], &[u8::from(reply)]])
    }
}

#[cfg(test)]
mod tests {
    use super::{wire::*, *};
    use crate::ErrorKind;

    fn scan_up_to(batch_bytes: usize, buffer: &[u8]) -> Result<Option<MessageRun>> {
        MessageRun::scan(buffer, batch_bytes, false, &mut Pace::default())
    }

    fn scan(buffer: &[u8]) -> Result<Option<MessageRun>> {
        scan_up_to(10_000, buffer)
    }

    #[test]
    fn a_run_is_of_whole_messages_and_knows_its_last_commit() {
        assert!(scan(b"").expect("allowed").is_none());
        let whole = [begin(10), commit(20), begin(21), commit(40), begin(41)].concat();
        let cut = [&whole[..], &commit(60)[..30]].concat();
        let run = scan(&cut).expect("allowed").expect("a run");
        assert_eq!((run.bytes, run.messages), (whole.len(), 5));
        assert_eq!(run.safe_at, Some(Lsn::new(40)));
        assert!(!run.reply_requested);
        assert_eq!(run.received, Lsn::new(41));
        assert!(scan(&cut[whole.len()..]).expect("allowed").is_none());
    }

    #[test]
    fn a_run_inside_a_transaction_moves_no_position() {
        let run = scan(&[begin(10), wal(11, b"M")].concat()).expect("allowed");
        assert_eq!(run.expect("a run").safe_at, None);
    }

    #[test]
    fn a_run_ends_with_the_message_that_fills_it() {
        let message = wal(10, &[b'M'; 20]);
        let run = scan_up_to(50, &message.repeat(3)).expect("allowed").expect("a run");
        assert_eq!(run.bytes, message.len(), "50 bytes are one message of {}", message.len());
        let large = wal(10, &[b'M'; 5_000]);
        let run = scan_up_to(50, &large).expect("allowed").expect("a run");
        assert_eq!((run.bytes, run.messages), (large.len(), 1));
        assert!(run.charge() > large.len());
    }

    #[test]
    fn a_keepalive_tells_a_position_and_may_ask_for_an_answer() {
        let bytes = [commit(20), keepalive(30, true), keepalive(25, false)].concat();
        let run = scan(&bytes).expect("allowed").expect("a run");
        assert_eq!((run.messages, run.safe_at), (1, Some(Lsn::new(30))));
        assert!(run.reply_requested);
    }

    #[test]
    fn the_end_of_the_replication_is_an_error_with_its_reason() {
        let error = b"E\0\0\0\x1fC57P01\0Mshutting down\0\0\0\0\0\0\0".to_vec();
        let shutting_down = scan(&error).err().expect("refused");
        assert_eq!(shutting_down.kind(), ErrorKind::PostgresUnavailable);
        assert!(shutting_down.to_string().contains("shutting down"), "{shutting_down}");
        let ended = scan(b"c\0\0\0\x04").err().expect("refused");
        assert_eq!(ended.kind(), ErrorKind::PostgresUnavailable);
        let hostile = scan(b"\0\0\0\0\0\0").err().expect("refused");
        assert_eq!(hostile.kind(), ErrorKind::Protocol);
    }

    #[test]
    fn a_small_batch_does_not_keep_its_block_alive() {
        let mut buffer = BytesMut::with_capacity(1 << 16);
        buffer.extend_from_slice(&[7; 100]);
        let block = buffer.as_ptr();
        let batch = take_front(&mut buffer, 100);
        assert_ne!(batch.as_ptr(), block);
        assert_eq!(batch, Bytes::from_static(&[7; 100]));
    }

    #[test]
    fn a_large_batch_is_not_copied() {
        let mut buffer = BytesMut::with_capacity(1 << 16);
        buffer.extend_from_slice(&[7; 60_000]);
        let block = buffer.as_ptr();
        assert_eq!(take_front(&mut buffer, 59_000).as_ptr(), block);
        assert_eq!(buffer.len(), 1_000);
    }
}
