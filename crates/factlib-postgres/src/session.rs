//! A connection that this crate drives itself: sends and receives whole messages, runs simple
//! queries.

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

/// Type of CopyBothResponse, which only replication connections receive.
pub(super) const COPY_BOTH: u8 = b'W';

/// Limit for an answer before streaming; a server that takes longer is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A logged-in connection, or one that is logging in.
pub(super) struct Session {
    pub stream: Stream,
    /// Bytes that were read and not yet parsed.
    pub buffer: BytesMut,
    /// Host and port of the server, for errors.
    pub at: String,
    /// Limit for an answer of the server; none if it may take any time.
    pub answer_limit: Option<Duration>,
    /// `server_version`, such as `15.14 (Debian …)`.
    server_version: String,
}

/// The values of a row as text; none for NULL.
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
        let mut bytes = BytesMut::new();
        // It fails only for a zero byte in a text.
        write(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Config, "a text for PostgreSQL has a NUL")
                .caused_by(error)
                .with_remedy("correct user, database and password of the connection string")
        })?;
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| self.broken(error))
    }

    /// Waits for the whole next message and returns its type.
    pub async fn peek_type(&mut self) -> Result<u8> {
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

    /// Discards the next message, whose type was peeked at.
    pub fn skip(&mut self) {
        let length = frame::first_frame_length(&self.buffer).min(self.buffer.len());
        self.buffer.advance(length);
    }

    /// Returns the next message, except notices and parameters.
    ///
    /// # Errors
    /// The server's error, after `message`.
    pub async fn receive(&mut self, message: &str) -> Result<Message> {
        loop {
            if let Some(received) = self.receive_any(message).await? {
                return Ok(received);
            }
        }
    }

    /// Returns the next message; `None` for a notice or a parameter.
    pub async fn receive_any(&mut self, message: &str) -> Result<Option<Message>> {
        let kind = self.peek_type().await?;
        if kind == b'E' {
            return Err(self.take_error(message));
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
            other => Ok(other),
        }
    }

    fn take_error(&mut self, message: &str) -> Error {
        let length = frame::first_frame_length(&self.buffer).min(self.buffer.len());
        let bytes = self.buffer.split_to(length);
        ErrorFields(bytes.get(5..).unwrap_or_default()).into_error(message)
    }

    /// Runs a simple query and returns its rows.
    pub async fn query(&mut self, sql: &str, message: &str) -> Result<Vec<Row>> {
        self.send(|buffer| frontend::query(sql, buffer)).await?;
        let mut rows = Vec::new();
        loop {
            match self.receive(message).await? {
                Message::DataRow(body) => {
                    rows.push(row(&body).map_err(|error| self.unexpected(b'D').caused_by(error))?)
                }
                Message::ReadyForQuery(_) => return Ok(rows),
                _ => {}
            }
        }
    }

    /// Sets parameters of this session in one statement; the walsender of an older server accepts
    /// only one.
    pub async fn set(&mut self, parameters: &[(&str, &str)]) -> Result<()> {
        let call = |(name, value): &(&str, &str)| {
            format!("pg_catalog.set_config('{name}', '{value}', false)")
        };
        let calls = parameters.iter().map(call).collect::<Vec<_>>().join(", ");
        let message = format!("cannot set up the session with PostgreSQL at {}", self.at);
        self.query(&format!("SELECT {calls}"), &message).await.map(drop)
    }

    /// The server's major version, if it has sent one.
    pub fn major_version(&self) -> Option<u32> {
        let digits = self.server_version.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    pub fn broken(&self, error: io::Error) -> Error {
        let message = format!("the connection to PostgreSQL at {} broke", self.at);
        Error::new(ErrorKind::Unavailable, message).caused_by(error)
    }

    pub fn unexpected(&self, kind: u8) -> Error {
        let message = format!(
            "PostgreSQL at {} sent an unexpected message of type {:?}",
            self.at,
            char::from(kind)
        );
        Error::new(ErrorKind::Protocol, message)
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
