//! Reads the rows of a query one by one, as text in the database's own encoding.
//!
//! An ordinary client accepts UTF-8 only: a text that the server can't convert would end the query
//! before its last row.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};

use super::{
    auth::{self, Purpose},
    connect_info::ConnectInfo,
    connector::{self, LoginTarget, Startup},
    session::Session,
    session_settings,
    stream::Stream,
};
use crate::{Error, ErrorKind, Result};

/// The values of a row; none for NULL.
pub type RawRow = Vec<Option<Bytes>>;

/// A session for queries whose rows are read one by one.
pub struct RowSession {
    session: Session,
}

struct RowStartup<'a> {
    info: &'a ConnectInfo,
}

impl Startup for RowStartup<'_> {
    type Session = RowSession;

    async fn start(&self, stream: Stream, server: &LoginTarget<'_>) -> Result<RowSession> {
        let session = auth::log_in(stream, server, self.info, Purpose::Statements).await?;
        let mut session = RowSession { session };
        if let Some((query, wanted)) = server.target.probe()
            && session
                .value(query, "cannot ask PostgreSQL whether it is a primary")
                .await?
                .as_deref()
                != Some(wanted)
        {
            return Err(server.target.mismatch(server.host));
        }
        let setting = session_settings::statement(&[]);
        session.session.query(&setting, "cannot set up the session with PostgreSQL").await?;
        // Queries of the caller may take any time.
        session.session.answer_limit = None;
        Ok(session)
    }
}

impl RowSession {
    /// Connects to the first suitable host, within `timeout` in total.
    pub async fn connect(info: &ConnectInfo, timeout: Duration) -> Result<Self> {
        connector::connect(info, timeout, &RowStartup { info }).await
    }

    /// Runs statements and discards their rows.
    ///
    /// # Errors
    /// Errors of the server, after `message`.
    pub async fn run(&mut self, statements: &str, message: &str) -> Result<()> {
        self.session.query(statements, message).await.map(drop)
    }

    /// Returns the first value of a query's first row.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn value(&mut self, query: &str, message: &str) -> Result<Option<String>> {
        let rows = self.session.query(query, message).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Sends a query; [`next`](Self::next) returns its rows.
    pub async fn send(&mut self, query: &str) -> Result<()> {
        self.session.send(|buffer| frontend::query(query, buffer)).await
    }

    /// Ends the connection in order, so that the server does not log it as lost.
    pub async fn end(&mut self) {
        let terminate = |buffer: &mut BytesMut| {
            frontend::terminate(buffer);
            Ok(())
        };
        let _ = self.session.send(terminate).await;
    }

    /// Returns the next row of the query that was sent; none after the last one.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn next(&mut self, message: &str) -> Result<Option<RawRow>> {
        loop {
            match self.session.receive(message).await? {
                Message::DataRow(body) => {
                    let row = raw_row(&body);
                    return row.map(Some).map_err(|error| {
                        Error::new(ErrorKind::Protocol, message).caused_by(error)
                    });
                }
                Message::ReadyForQuery(_) => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Splits a row into values, which share its buffer.
fn raw_row(body: &DataRowBody) -> std::io::Result<RawRow> {
    let buffer = body.buffer_bytes();
    body.ranges()
        .map(|range| match range {
            Some(range) if range.end <= buffer.len() => Ok(Some(buffer.slice(range))),
            Some(_) => Err(std::io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        })
        .collect()
}
