//! Rows of a query as the server writes them: text, in the database's own encoding.
//!
//! An ordinary client takes texts in UTF-8 alone: one that the server can't convert would end the
//! query, and with it the rows behind.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};

use super::{
    auth::{self, Purpose},
    connect_info::{ConnectInfo, Host},
    connector::{self, Startup},
    session::Session,
    session_settings,
    settings::TargetSessionAttrs,
    stream::Stream,
};
use crate::{Error, ErrorKind, Result};

/// A row; none for NULL.
pub type RawRow = Vec<Option<Bytes>>;

/// A session for statements whose rows come one by one.
pub struct RowSession {
    session: Session,
}

struct RowStartup<'a> {
    info: &'a ConnectInfo,
}

impl Startup for RowStartup<'_> {
    type Session = RowSession;

    async fn start(
        &self,
        stream: Stream,
        host: &Host,
        target: TargetSessionAttrs,
    ) -> Result<RowSession> {
        let session = auth::log_in(stream, host, self.info, Purpose::Statements).await?;
        let mut session = RowSession { session };
        if let Some((query, wanted)) = target.test()
            && session
                .value(query, "cannot ask PostgreSQL whether it is a primary")
                .await?
                .as_deref()
                != Some(wanted)
        {
            return Err(target.mismatch(host));
        }
        let setting = session_settings::statement(&[]);
        session.session.query(&setting, "cannot set up the session with PostgreSQL").await?;
        // What is asked from now on may take its time.
        session.session.answer_limit = None;
        Ok(session)
    }
}

impl RowSession {
    /// Connects to the first host that lets us in, all within `timeout`.
    pub async fn connect(info: &ConnectInfo, timeout: Duration) -> Result<Self> {
        connector::connect(info, timeout, &RowStartup { info }).await
    }

    /// Runs statements, of which nothing is read.
    ///
    /// # Errors
    /// The server's, with `what` before it.
    pub async fn run(&mut self, statements: &str, what: &str) -> Result<()> {
        self.session.query(statements, what).await.map(drop)
    }

    /// The first value of a query's first row.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn value(&mut self, query: &str, what: &str) -> Result<Option<String>> {
        let rows = self.session.query(query, what).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Sends a query, whose rows [`next`](Self::next) gives.
    pub async fn send(&mut self, query: &str) -> Result<()> {
        self.session.send(|buffer| frontend::query(query, buffer)).await
    }

    /// Takes leave; the server need not say that a connection was lost.
    pub async fn end(&mut self) {
        let terminate = |buffer: &mut BytesMut| {
            frontend::terminate(buffer);
            Ok(())
        };
        let _ = self.session.send(terminate).await;
    }

    /// The next row of the query that was sent; none after the last.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn next(&mut self, what: &str) -> Result<Option<RawRow>> {
        loop {
            match self.session.receive(what).await? {
                Message::DataRow(body) => {
                    let row = raw(&body);
                    return row
                        .map(Some)
                        .map_err(|error| Error::new(ErrorKind::Protocol, what).caused_by(error));
                }
                Message::ReadyForQuery(_) => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Its values share one buffer, which is the row's own.
fn raw(body: &DataRowBody) -> std::io::Result<RawRow> {
    let buffer = body.buffer_bytes();
    body.ranges()
        .map(|range| match range {
            Some(range) if range.end <= buffer.len() => Ok(Some(buffer.slice(range))),
            Some(_) => Err(std::io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        })
        .collect()
}
