//! A connection in our own hands: whole messages, simple queries.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{frame, stream::Stream};
use crate::{Error, ErrorFields, ErrorKind, Result};

/// CopyBothResponse, which only replication connections see.
pub(super) const COPY_BOTH: u8 = b'W';

/// What we ask before streaming is answered at once, or the server is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Session {
    pub stream: Stream,
    /// What was read and not yet taken.
    pub buffer: BytesMut,
    /// The peer, for errors.
    pub at: String,
    /// How long the server may take to answer; none for ever.
    pub answer_limit: Option<Duration>,
    /// `server_version`, such as `15.14 (Debian …)`.
    server_version: String,
}

/// A row of text.
pub(crate) type Row = Vec<Option<String>>;

impl Session {
    pub fn new(stream: Stream, at: String) -> Self {
        Session {
            stream,
            buffer: BytesMut::with_capacity(8 << 10),
            at,
            answer_limit: Some(ANSWER_LIMIT),
            server_version: String::new(),
        }
    }

    /// Sends the messages that `write` puts into a buffer.
    pub async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<()> {
        let mut message = BytesMut::new();
        // The one thing it refuses is a zero byte in a text.
        write(&mut message).map_err(|error| {
            Error::new(ErrorKind::Config, "a text for PostgreSQL has a NUL")
                .caused_by(error)
                .with_remedy("correct user, database and password of the connection string")
        })?;
        let sent = async {
            self.stream.write_all(&message).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| self.broken(error))
    }

    /// The type of the next message, once all of it is in the buffer.
    pub async fn peek(&mut self) -> Result<u8> {
        loop {
            if frame::next_frame(&self.buffer)?.is_some()
                && let Some(kind) = self.buffer.first()
            {
                return Ok(*kind);
            }
            let reading = self.stream.read_buf(&mut self.buffer);
            let read = match self.answer_limit {
                Some(limit) => timeout(limit, reading)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                None => reading.await,
            };
            if read.map_err(|error| self.broken(error))? == 0 {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Drops the next message, which was peeked at.
    pub fn skip(&mut self) {
        let length = frame::needed(&self.buffer).min(self.buffer.len());
        self.buffer.advance(length);
    }

    /// The next message, past notices and parameters; the server's error as ours, `what` before it.
    pub async fn receive(&mut self, what: &str) -> Result<Message> {
        loop {
            if let Some(message) = self.take(what).await? {
                return Ok(message);
            }
        }
    }

    /// The next message; `None` for one that only informs us.
    pub async fn take(&mut self, what: &str) -> Result<Option<Message>> {
        let kind = self.peek().await?;
        if kind == b'E' {
            return Err(self.take_error(what));
        }
        let parsed = Message::parse(&mut self.buffer);
        match parsed.map_err(|error| self.unexpected(kind).caused_by(error))? {
            Some(Message::ParameterStatus(body)) => {
                if let (Ok("server_version"), Ok(value)) = (body.name(), body.value()) {
                    value.clone_into(&mut self.server_version);
                }
                Ok(None)
            }
            Some(Message::NoticeResponse(_)) | None => Ok(None),
            message => Ok(message),
        }
    }

    fn take_error(&mut self, what: &str) -> Error {
        let length = frame::needed(&self.buffer).min(self.buffer.len());
        let message = self.buffer.split_to(length);
        ErrorFields(message.get(5..).unwrap_or_default()).into_error(what)
    }

    /// The rows that a simple query gives.
    pub async fn query(&mut self, sql: &str, what: &str) -> Result<Vec<Row>> {
        self.send(|buffer| frontend::query(sql, buffer)).await?;
        let mut rows = Vec::new();
        loop {
            match self.receive(what).await? {
                Message::DataRow(body) => {
                    rows.push(row(&body).map_err(|error| self.unexpected(b'D').caused_by(error))?)
                }
                Message::ReadyForQuery(_) => return Ok(rows),
                _ => {}
            }
        }
    }

    /// Sets parameters of this session, all in one statement: an older server's walsender takes
    /// no more than one.
    pub async fn set(&mut self, parameters: &[(&str, &str)]) -> Result<()> {
        let call = |(name, value): &(&str, &str)| {
            format!("pg_catalog.set_config('{name}', '{value}', false)")
        };
        let calls = parameters.iter().map(call).collect::<Vec<_>>().join(", ");
        let what = format!("cannot set up the session with PostgreSQL at {}", self.at);
        self.query(&format!("SELECT {calls}"), &what).await.map(drop)
    }

    /// The server's major version, if it told.
    pub fn major_version(&self) -> Option<u32> {
        let digits = self.server_version.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    pub fn broken(&self, error: io::Error) -> Error {
        let what = format!("the connection to PostgreSQL at {} broke", self.at);
        Error::new(ErrorKind::Unavailable, what).caused_by(error)
    }

    pub fn unexpected(&self, kind: u8) -> Error {
        let what = format!(
            "PostgreSQL at {} sent an unexpected message of type {:?}",
            self.at,
            char::from(kind)
        );
        Error::new(ErrorKind::Protocol, what)
    }
}

fn row(body: &DataRowBody) -> io::Result<Row> {
    body.ranges()
        .map(|range| {
            let column =
                range.map(|range| body.buffer().get(range).ok_or(io::ErrorKind::InvalidData));
            Ok(column.transpose()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        })
        .collect()
}
