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
//! error ([`SilenceLimit`]). Silence counts only while the stream is read.

mod options;
mod silence_limit;
mod stream;

use std::{io, sync::Arc, time::Duration};

use bytes::BufMut;
use postgres_protocol::message::backend::Message;

pub use self::{
    options::ReplicationOptions,
    silence_limit::SilenceLimit,
    stream::{ReplicationStream, StandbyStatus},
};
use super::{
    auth::{self, Purpose},
    connect_info::{ConnectInfo, Host},
    connector::{self, Startup},
    session::{COPY_BOTH, Row, Session},
    session_settings::{self, WAL_SENDER_TIMEOUT_MAX_MS},
    settings::TargetSessionAttrs,
    stream::Stream,
    text_settings::TEXT_SETTINGS,
    timeline::TimelineHistory,
};
use crate::{Error, ErrorKind, Lsn, Result};

/// pgoutput carries logical messages from here on, and refuses the option before.
const MESSAGES_SINCE: u32 = 14;

/// A replication connection that does not stream yet.
pub struct ReplicationClient {
    session: Session,
    backend: Backend,
}

/// The server process of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Process id.
    pub pid: i32,
    /// Time at which it began, as `YYYY-MM-DD HH24:MI:SS.US` in UTC: a later process may have the
    /// same pid.
    pub started: String,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemId {
    /// Made by initdb: the same on a primary and its standbys, and nowhere else.
    pub system_id: u64,
    /// The timeline that the server writes.
    pub timeline: u32,
    /// How far the server has flushed its WAL.
    pub wal_end: Lsn,
    /// The database that this connection is for.
    pub dbname: String,
}

struct ReplicationStartup<'a> {
    info: &'a ConnectInfo,
}

impl Startup for ReplicationStartup<'_> {
    type Session = ReplicationClient;

    async fn start(
        &self,
        stream: Stream,
        host: &Host,
        target: TargetSessionAttrs,
    ) -> Result<ReplicationClient> {
        let session = auth::log_in(stream, host, self.info, Purpose::Replication).await?;
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
    pub async fn connect(info: &ConnectInfo, timeout: Duration) -> Result<Self> {
        connector::connect(info, timeout, &ReplicationStartup { info }).await
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
            Error::new(ErrorKind::Refused, what).caused_by(error)
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
        let mut more = TEXT_SETTINGS.to_vec();
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

    /// Creates a slot that ends with this connection, and returns its position: what commits from
    /// then on is streamed. It waits for the transactions that write now.
    ///
    /// # Errors
    /// The server's, such as a name that is taken.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<Lsn> {
        let command = format!(
            "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
            identifier(name)
        );
        let rows = self.query(&command).await?;
        // Name, consistent point.
        let at = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
        at.ok_or_else(|| {
            let what = "PostgreSQL does not say where the temporary slot begins";
            Error::new(ErrorKind::Protocol, what)
        })
    }

    /// Starts the stream.
    ///
    /// # Errors
    /// The server's, such as `SlotInUse` or `SlotInvalidated`.
    pub async fn start(self, options: &ReplicationOptions) -> Result<ReplicationStream> {
        let ReplicationOptions { slot, encoding, .. } = options;
        let mut session = self.session;
        session.set(&[("client_encoding", encoding.client_encoding())]).await?;
        let has_messages = session.major_version().is_none_or(|version| version >= MESSAGES_SINCE);
        let command = options.command(has_messages);
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
                let silence_limit = Arc::clone(&options.silence_limit);
                return Ok(ReplicationStream::new(session, silence_limit));
            }
            // Notices and parameters are gone after this; nothing else is due here.
            match session.take(&what).await? {
                None => {}
                Some(Message::CommandComplete(_) | Message::ReadyForQuery(_)) => {
                    return Err(Error::new(ErrorKind::Unavailable, what));
                }
                Some(_) => return Err(Error::new(ErrorKind::Protocol, what)),
            }
        }
    }
}

/// A name in the replication grammar.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
