//! The stream of changes: yields raw bytes and sends positions to the server.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, BufMut, BytesMut};
use futures_util::FutureExt;
use postgres_protocol::message::frontend;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::SilenceLimit;
use crate::{
    Lsn, Result,
    frame::{self, Frame},
    session::Session,
    stream::Stream,
};

/// A status has 39 bytes; a peer that does not accept them for this long no longer reads.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes in the socket from which on it is not worth pausing for more.
const NO_PAUSE_BYTES: usize = 16 << 10;
/// Limit for an orderly end: a round trip, and whatever the server was about to send.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
/// Seconds from the Unix epoch to PostgreSQL's.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// Progress to report to the server; each position is the end of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Position up to which everything was received.
    pub written: Lsn,
    /// Position up to which everything is safe with the client: the server may remove it.
    pub flushed: Lsn,
    /// Position up to which everything was delivered; for monitoring only.
    pub applied: Lsn,
    /// Requests an immediate reply.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// Writes the "Standby status update" of the streaming replication protocol, as CopyData.
    fn write(&self, message: &mut BytesMut) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + POSTGRES_EPOCH);
        let now_us = now.map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        message.put_u8(b'd');
        message.put_i32(4 + 1 + 3 * 8 + 8 + 1);
        message.put_u8(b'r');
        for lsn in [self.written, self.flushed, self.applied] {
            message.put_u64(lsn.as_u64());
        }
        message.put_i64(now_us);
        message.put_u8(self.reply_requested.into());
    }
}

/// The stream of changes.
pub struct ReplicationStream {
    session: Session,
    /// Bytes that arrived together with the message that started the stream.
    received_early: BytesMut,
    silence_limit: Arc<SilenceLimit>,
    /// Time of the last bytes from the server.
    last_received: Instant,
    /// Time of a reply request that has not been answered.
    reply_requested_at: Option<Instant>,
    /// Position of the last status: everything up to it was received.
    written: Lsn,
    /// True if the last read did not empty the socket.
    socket_has_more: bool,
}

impl ReplicationStream {
    /// Takes over a session that streams; bytes that it has already received are read first.
    pub(super) fn new(mut session: Session, silence_limit: Arc<SilenceLimit>) -> Self {
        let received_early = std::mem::take(&mut session.buffer);
        ReplicationStream {
            session,
            received_early,
            silence_limit,
            last_received: Instant::now(),
            reply_requested_at: None,
            written: Lsn::ZERO,
            socket_has_more: false,
        }
    }

    /// Waits for bytes and appends them to `buffer`, at least one and at most its spare capacity;
    /// cancel-safe. [`next_frame`](crate::frame::next_frame) splits them into messages.
    ///
    /// # Errors
    /// `Unavailable` at the end of the stream, and if the server has been silent for half the limit
    /// after a status requested a reply.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        self.read_after(buffer, Duration::ZERO).await
    }

    /// Reads as [`read`](Self::read) does, but pauses once bytes have arrived, so that more arrive in
    /// the meantime: a large read costs hardly more than a small one.
    ///
    /// **The thread sleeps during the pause**: an asynchronous wait would be woken by every message.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_after(&mut self, buffer: &mut BytesMut, pause: Duration) -> Result<usize> {
        if !self.received_early.is_empty() {
            let received_early = self.received_early.split();
            buffer.extend_from_slice(&received_early);
            return Ok(received_early.len());
        }
        let stream = &mut self.session.stream;
        let pause = if self.socket_has_more { Duration::ZERO } else { pause };
        let read = async {
            loop {
                stream.readable().await?;
                if !pause.is_zero() && stream.bytes_in_socket() < NO_PAUSE_BYTES {
                    std::thread::sleep(pause);
                }
                if let Some(read) = read_available(stream, buffer) {
                    return read;
                }
            }
        };
        let limit = self.silence_limit.limit();
        let result = match self.reply_requested_at {
            // Bytes that have arrived win over the deadline.
            Some(reply_requested_at) => {
                timeout_at(reply_requested_at + limit / 2, read).await.unwrap_or_else(|_| {
                    self.silence_limit.lost(self.written);
                    let reason = format!("the server has not answered for {limit:?}");
                    Err(io::Error::new(io::ErrorKind::TimedOut, reason))
                })
            }
            None => read.await,
        };
        self.socket_has_more = buffer.len() == buffer.capacity();
        match result {
            Ok(0) => Err(self.session.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.last_received = Instant::now();
                if let Some(requested_at) = self.reply_requested_at.take() {
                    self.silence_limit.answered(requested_at.elapsed());
                }
                Ok(count)
            }
            Err(error) => Err(self.session.broken(error)),
        }
    }

    /// Reads until `buffer` begins with a complete message; cancel-safe.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), and `Protocol` for bytes that are not a message.
    pub async fn read_frame(&mut self, buffer: &mut BytesMut) -> Result<()> {
        while frame::next_frame(buffer)?.is_none() {
            let wanted = frame::first_frame_length(buffer).max(NO_PAUSE_BYTES);
            buffer.reserve(wanted.saturating_sub(buffer.len()).max(1));
            self.read(buffer).await?;
        }
        Ok(())
    }

    /// Sends the status, in bounded time; not cancel-safe.
    ///
    /// Call it much more often than the silence limit: only this call requests replies and so detects
    /// a dead server. Pass `reading = false` while the stream is not read: silence then does not
    /// count before this call.
    pub async fn send_status(&mut self, mut status: StandbyStatus, reading: bool) -> Result<()> {
        self.written = status.written;
        self.silence_limit.received(status.written);
        if !reading {
            self.last_received = Instant::now();
            self.reply_requested_at = None;
        } else if self.reply_requested_at.is_none()
            && self.last_received.elapsed() >= self.silence_limit.limit() / 2
        {
            status.reply_requested = true;
            self.reply_requested_at = Some(Instant::now());
        }
        let mut message = BytesMut::with_capacity(64);
        status.write(&mut message);
        self.write(&message).await
    }

    /// True if a reply was requested and nothing has been received since.
    pub fn awaits_reply(&self) -> bool {
        self.reply_requested_at.is_some()
    }

    async fn write(&mut self, message: &[u8]) -> Result<()> {
        let written = timeout(WRITE_LIMIT, async {
            self.session.stream.write_all(message).await?;
            self.session.stream.flush().await
        });
        let result = written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        result.map_err(|error| self.session.broken(error))
    }

    /// Sends the last status and ends the stream in order; afterwards the slot is free.
    ///
    /// `unread` has the bytes that [`read`](Self::read) returned and the caller has not processed,
    /// from the beginning of a message on. They are discarded, with all that the server still sends.
    pub async fn finish(mut self, status: StandbyStatus, mut unread: BytesMut) -> Result<()> {
        let mut message = BytesMut::with_capacity(64);
        status.write(&mut message);
        frontend::copy_done(&mut message);
        self.write(&message).await?;
        unread.unsplit(self.received_early.split());
        let left = timeout(FINISH_LIMIT, self.drain(unread)).await;
        left.unwrap_or_else(|_| Err(self.session.broken(io::ErrorKind::TimedOut.into())))?;
        message.clear();
        frontend::terminate(&mut message);
        self.write(&message).await?;
        // The server closes its side as well.
        let _ = self.session.stream.shutdown().await;
        Ok(())
    }

    /// Discards messages up to the end of the command; large ones are discarded while they arrive.
    async fn drain(&mut self, mut unread: BytesMut) -> Result<()> {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        let mut skip = 0;
        loop {
            let skipped = skip.min(unread.len());
            unread.advance(skipped);
            skip -= skipped;
            while let Some((frame, length)) = frame::next_frame(&unread)? {
                match frame {
                    Frame::ReadyForQuery => return Ok(()),
                    Frame::Error(fields) => {
                        return Err(fields.into_error("PostgreSQL ended the replication"));
                    }
                    _ => unread.advance(length),
                }
            }
            let needed = frame::first_frame_length(&unread);
            if needed > KEPT_BYTES_MAX {
                skip = needed - unread.len();
                unread.clear();
            }
            unread.reserve(16 << 10);
            let read = self.session.stream.read_buf(&mut unread).await;
            if read.map_err(|error| self.session.broken(error))? == 0 {
                return Err(self.session.broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Reads until `buffer` is full or the socket is empty; none if there was nothing to read.
fn read_available(stream: &mut Stream, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
    let before = buffer.len();
    let end = loop {
        match stream.read_buf(buffer).now_or_never() {
            Some(Ok(count)) if count > 0 && buffer.len() < buffer.capacity() => {}
            end => break end,
        }
    };
    match (end, buffer.len() - before) {
        // An end or an error that follows bytes shows again at the next read.
        (None, 0) => None,
        (Some(Err(error)), 0) => Some(Err(error)),
        (_, count) => Some(Ok(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_protocols_layout() {
        let mut message = BytesMut::new();
        let status = StandbyStatus {
            written: Lsn::new(3),
            flushed: Lsn::new(2),
            applied: Lsn::new(1),
            reply_requested: true,
        };
        status.write(&mut message);
        assert_eq!(message.len(), 39);
        assert_eq!(frame::first_frame_length(&message), 39);
        assert_eq!(message[5], b'r');
        assert_eq!(message[13], 3);
        assert_eq!(message[21], 2);
        assert_eq!(message[29], 1);
        assert_eq!(message[38], 1);
    }
}
