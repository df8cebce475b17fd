//! The stream of changes: raw bytes in, positions out.

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

/// A status is 39 bytes: where they find no room for so long, nobody reads.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// With so much in the socket, there is no use in waiting for more.
const ENOUGH: usize = 16 << 10;
/// Leaving takes a round trip, and what the server was about to send.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
/// Seconds from the Unix epoch to PostgreSQL's.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// The progress that the server is told: each position is the end of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Everything up to here was received.
    pub written: Lsn,
    /// Everything up to here is safe with the client: the server may forget it.
    pub flushed: Lsn,
    /// Everything up to here was delivered; for monitoring only.
    pub applied: Lsn,
    /// The server shall answer at once.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// "Standby status update" of the streaming replication protocol, as CopyData.
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
    /// What came in one read with the server's go-ahead.
    early: BytesMut,
    silence_limit: Arc<SilenceLimit>,
    /// When the server was last heard.
    heard: Instant,
    /// When it was asked for an answer that has not come.
    asked: Option<Instant>,
    /// The last read has not emptied the socket.
    more: bool,
}

impl ReplicationStream {
    /// Takes over once the server has given its go-ahead; what came with that is read first.
    pub(super) fn new(mut session: Session, silence_limit: Arc<SilenceLimit>) -> Self {
        let early = std::mem::take(&mut session.buffer);
        ReplicationStream {
            session,
            early,
            silence_limit,
            heard: Instant::now(),
            asked: None,
            more: false,
        }
    }

    /// Appends what the socket has to `buffer`, at least a byte and at most what there
    /// is room for; cancel-safe. [`next_frame`](crate::frame::next_frame) splits it into messages.
    ///
    /// # Errors
    /// `Unavailable` at the stream's end, and when the server has been silent for half the limit
    /// after a status asked it for an answer.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        self.read_after(buffer, Duration::ZERO).await
    }

    /// Reads as [`read`](Self::read) does, but from the moment there is something, more may pile up
    /// for `pause`: a large read costs hardly more than a small one.
    ///
    /// **The thread sleeps meanwhile**: every message that came in would wake a runtime that waits.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_after(&mut self, buffer: &mut BytesMut, pause: Duration) -> Result<usize> {
        if !self.early.is_empty() {
            let early = self.early.split();
            buffer.extend_from_slice(&early);
            return Ok(early.len());
        }
        let stream = &mut self.session.stream;
        let pause = if self.more { Duration::ZERO } else { pause };
        let read = async {
            loop {
                stream.readable().await?;
                if !pause.is_zero() && stream.waiting() < ENOUGH {
                    std::thread::sleep(pause);
                }
                if let Some(read) = take(stream, buffer) {
                    return read;
                }
            }
        };
        let limit = self.silence_limit.limit();
        let result = match self.asked {
            // Bytes that are there win over the deadline.
            Some(asked) => timeout_at(asked + limit / 2, read).await.unwrap_or_else(|_| {
                self.silence_limit.lost();
                let why = format!("the server has not answered for {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }),
            None => read.await,
        };
        self.more = buffer.len() == buffer.capacity();
        match result {
            Ok(0) => Err(self.session.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.heard = Instant::now();
                if self.asked.take().is_some() {
                    self.silence_limit.answered();
                }
                Ok(count)
            }
            Err(error) => Err(self.session.broken(error)),
        }
    }

    /// Reads until `buffer` begins with a whole message; cancel-safe.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), and `Protocol` for bytes that are no message.
    pub async fn read_frame(&mut self, buffer: &mut BytesMut) -> Result<()> {
        while frame::next_frame(buffer)?.is_none() {
            let wanted = frame::needed(buffer).max(ENOUGH);
            buffer.reserve(wanted.saturating_sub(buffer.len()).max(1));
            self.read(buffer).await?;
        }
        Ok(())
    }

    /// Tells the server our position, in bounded time; not cancel-safe.
    ///
    /// Call it much more often than the limit of silence: only this call finds a dead server. While
    /// the caller does not read, silence does not count: it counts from this call on.
    pub async fn send_status(&mut self, mut status: StandbyStatus, reading: bool) -> Result<()> {
        if !reading {
            self.heard = Instant::now();
            self.asked = None;
        } else if self.asked.is_none() && self.heard.elapsed() >= self.silence_limit.limit() / 2 {
            status.reply_requested = true;
            self.asked = Some(Instant::now());
        }
        let mut message = BytesMut::with_capacity(64);
        status.write(&mut message);
        self.write(&message).await
    }

    async fn write(&mut self, message: &[u8]) -> Result<()> {
        let written = timeout(WRITE_LIMIT, async {
            self.session.stream.write_all(message).await?;
            self.session.stream.flush().await
        });
        let result = written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        result.map_err(|error| self.session.broken(error))
    }

    /// Tells the server our last position and takes leave: afterwards the slot is free.
    ///
    /// `unread` is what [`read`](Self::read) gave and the caller has not taken, from
    /// the beginning of a message on. It is dropped, with all that the server still sends.
    pub async fn finish(mut self, status: StandbyStatus, mut unread: BytesMut) -> Result<()> {
        let mut message = BytesMut::with_capacity(64);
        status.write(&mut message);
        frontend::copy_done(&mut message);
        self.write(&message).await?;
        unread.unsplit(self.early.split());
        let left = timeout(FINISH_LIMIT, self.drain(unread)).await;
        left.unwrap_or_else(|_| Err(self.session.broken(io::ErrorKind::TimedOut.into())))?;
        message.clear();
        frontend::terminate(&mut message);
        self.write(&message).await?;
        // The server closes the connection as well.
        let _ = self.session.stream.shutdown().await;
        Ok(())
    }

    /// Reads to the end of the command; a message too large to keep is dropped as it comes.
    async fn drain(&mut self, mut unread: BytesMut) -> Result<()> {
        const KEPT: usize = 1 << 20;
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
            let needed = frame::needed(&unread);
            if needed > KEPT {
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

/// Reads until `buffer` is full or the socket empty; none where it was empty before.
fn take(stream: &mut Stream, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
    let before = buffer.len();
    let end = loop {
        match stream.read_buf(buffer).now_or_never() {
            Some(Ok(count)) if count > 0 && buffer.len() < buffer.capacity() => {}
            end => break end,
        }
    };
    match (end, buffer.len() - before) {
        // An end or an error after bytes is met again at the next read.
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
        assert_eq!(frame::needed(&message), 39);
        assert_eq!(message[5], b'r');
        assert_eq!(message[13], 3);
        assert_eq!(message[21], 2);
        assert_eq!(message[29], 1);
        assert_eq!(message[38], 1);
    }
}
