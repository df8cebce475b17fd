//! The replication connection: from log-in to the stream of changes and back.
//!
//! # Life
//! [`ReplicationClient`] logs in and asks; [`ReplicationClient::start`] turns it
//! into a [`ReplicationStream`], which gives raw bytes (`frame` tells them apart)
//! and takes positions. [`ReplicationStream::finish`] takes leave, so that the
//! server has the last position and frees the slot at once.
//!
//! # Failure
//! A server that is gone without a word is noticed, whatever its own time-outs are: a status
//! asks for an answer when the stream has been silent for long, and silence after that is an
//! error ([`Patience`]). Silence counts only while the stream is read.

mod patience;
mod stream;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BufMut;
use postgres_protocol::message::backend::Message;
use slog::Logger;

pub(crate) use self::{
    patience::Patience,
    stream::{ReplicationStream, StandbyStatus},
};
use super::{
    auth::{self, Purpose},
    connect_info::{ConnectInfo, Host},
    connector::{self, Startup},
    encoding::Encoding,
    pinned::PINNED,
    session::{COPY_BOTH, Row, Session},
    session_settings::{self, WAL_SENDER_TIMEOUT_MAX_MS},
    settings::TargetSessionAttrs,
    stream::Stream,
    timeline::TimelineHistory,
};
use crate::{Error, ErrorKind, Lsn, Result};

/// pgoutput carries logical messages from here on, and refuses the option before.
const MESSAGES_SINCE: u32 = 14;

/// A replication connection that does not stream yet.
pub(crate) struct ReplicationClient {
    session: Session,
    backend: Backend,
}

/// The server process of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    pub pid: i32,
    /// Time at which it began: a later process may have the same pid.
    pub started: String,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SystemId {
    /// Made by initdb: the same on a primary and its standbys, and nowhere else.
    pub system_id: u64,
    pub timeline: u32,
    /// How far the server has flushed its WAL.
    pub wal_end: Lsn,
    pub dbname: String,
}

/// The server process that reads the slot for this process, or did until the connection was lost.
/// It tells our own lost connection from another instance that reads the slot.
#[derive(Debug, Default)]
pub(crate) struct OwnBackend(Mutex<Option<Backend>>);

impl OwnBackend {
    /// Notes the connection that is about to read.
    pub fn is(&self, backend: &Backend) {
        *self.lock() = Some(backend.clone());
    }

    /// Notes that the connection has ended in order.
    pub fn ended(&self) {
        *self.lock() = None;
    }

    /// True if `backend` is that process.
    pub fn was(&self, backend: &Backend) -> bool {
        self.lock().as_ref() == Some(backend)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Backend>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ReplicationStartup<'a> {
    info: &'a ConnectInfo,
    log: &'a Logger,
}

impl Startup for ReplicationStartup<'_> {
    type Session = ReplicationClient;

    async fn start(
        &self,
        stream: Stream,
        host: &Host,
        target: TargetSessionAttrs,
    ) -> Result<ReplicationClient> {
        let session = auth::log_in(stream, host, self.info, Purpose::Replication, self.log).await?;
        let mut client = ReplicationClient { session, backend: Backend::default() };
        if let Some((query, wanted)) = target.test()
            && client.value(query).await?.as_deref() != Some(wanted)
        {
            return Err(target.mismatch(host));
        }
        client.set_up().await?;
        Ok(client)
    }
}

impl ReplicationClient {
    /// Connects to the first host that lets us in, all within `timeout`.
    pub async fn connect(info: &ConnectInfo, timeout: Duration, log: &Logger) -> Result<Self> {
        connector::connect(info, timeout, log, &ReplicationStartup { info, log }).await
    }

    /// Whom we talk to.
    pub async fn identify_system(&mut self) -> Result<SystemId> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let parse = |row: &Row| {
            let column = |at: usize| row.get(at)?.as_deref();
            Some(SystemId {
                system_id: column(0)?.parse().ok()?,
                timeline: column(1)?.parse().ok()?,
                wal_end: column(2)?.parse().ok()?,
                dbname: column(3)?.to_owned(),
            })
        };
        rows.first().and_then(parse).ok_or_else(|| self.session.unexpected(b'D'))
    }

    /// The timelines that this one comes from.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<TimelineHistory> {
        let rows = match timeline {
            // There is no file of it.
            TimelineHistory::FIRST => Vec::new(),
            later => self.query(&format!("TIMELINE_HISTORY {later}")).await?,
        };
        // File name, content.
        let text = rows.first().and_then(|row| row.get(1)?.as_deref()).unwrap_or_default();
        TimelineHistory::parse(timeline, text).map_err(|error| {
            let what =
                format!("PostgreSQL at {} has no readable timeline history", self.session.at);
            Error::new(ErrorKind::PostgresRefused, what).caused_by(error)
        })
    }

    /// The rows of a simple query or replication command, as text.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        let what = format!("PostgreSQL at {} refuses a command", self.session.at);
        self.session.query(sql, &what).await
    }

    async fn value(&mut self, sql: &str) -> Result<Option<String>> {
        let rows = self.query(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// Sets what our sessions need, and learns which server process this is.
    async fn set_up(&mut self) -> Result<()> {
        let query = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
        let timeout_ms = self.value(query).await?.and_then(|text| text.parse::<u32>().ok());
        let longest = WAL_SENDER_TIMEOUT_MAX_MS.to_string();
        let too_long = timeout_ms.is_none_or(|ms| ms == 0 || ms > WAL_SENDER_TIMEOUT_MAX_MS);
        let mut more = PINNED.to_vec();
        more.extend(too_long.then_some(("wal_sender_timeout", &*longest)));
        let what = format!("cannot set up the session with PostgreSQL at {}", self.session.at);
        let setting = session_settings::statement(&more);
        let rows = self.session.query(&setting, &what).await?;
        let column = |at: usize| rows.first()?.get(at)?.as_deref();
        self.backend = Backend {
            pid: column(0).and_then(|text| text.parse().ok()).unwrap_or_default(),
            started: column(1).unwrap_or_default().to_owned(),
        };
        Ok(())
    }

    /// The server process that answers here.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Starts the stream of `slot`, with what `publications` hold and with logical
    /// messages where the server has them. Its texts are to be read by `encoding`.
    ///
    /// `from` only skips ahead: transactions that ended before the slot's confirmed
    /// position are not sent, whatever it says.
    pub async fn start(
        self,
        slot: &str,
        from: Lsn,
        publications: &[&str],
        encoding: &Encoding,
        patience: Arc<Patience>,
    ) -> Result<ReplicationStream> {
        let mut session = self.session;
        session.set(&[("client_encoding", encoding.client_encoding())]).await?;
        let messages = session.major_version().is_none_or(|version| version >= MESSAGES_SINCE);
        let command = start_replication(slot, from, publications, messages);
        // From here on the server converts nothing that it gets, either.
        let command = encoding.encode(&command);
        session
            .send(|buffer| {
                buffer.put_u8(b'Q');
                let length = i32::try_from(command.len() + 5);
                buffer.put_i32(length.map_err(|_| io::ErrorKind::InvalidInput)?);
                buffer.put_slice(&command);
                buffer.put_u8(0);
                Ok(())
            })
            .await?;
        let what = format!("cannot start replication from slot {slot} at {}", session.at);
        loop {
            if session.peek().await? == COPY_BOTH {
                session.skip();
                return Ok(ReplicationStream::new(session, patience));
            }
            // Notices and parameters are gone after this; nothing else is due here.
            match session.take(&what).await? {
                None => {}
                Some(Message::CommandComplete(_) | Message::ReadyForQuery(_)) => {
                    return Err(Error::new(ErrorKind::PostgresUnavailable, what));
                }
                Some(_) => return Err(Error::new(ErrorKind::Protocol, what)),
            }
        }
    }
}

fn start_replication(slot: &str, from: Lsn, publications: &[&str], messages: bool) -> String {
    let names = publications.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(",");
    let messages = if messages { ", messages 'true'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}{messages})",
        identifier(slot),
        literal(&names),
    )
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The replication grammar's literal: only quotes are special, backslashes are not.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(
            start_replication("s\" x", Lsn::new(0x1_0000_0002), &["a", "b\"'; DROP"], true),
            "START_REPLICATION SLOT \"s\"\" x\" LOGICAL 1/2 (proto_version '1', \
             publication_names '\"a\",\"b\"\"''; DROP\"', messages 'true')"
        );
    }
}
