//! Emits events at a steady rate, each in its own transaction, also while PostgreSQL is away.

use std::time::Duration;

use futures_util::future::try_join_all;
use prost::Message;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::{Client, Statement};

use super::{
    event::{self, Template},
    peer::Source,
};
use crate::support::{
    Result,
    quantiles::now_ns,
    servers::{NAME, Servers},
};

/// Sessions that emit, each one transaction after the other.
const SESSIONS: u64 = 8;
/// Pause between attempts to connect while the server is away.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// What is emitted.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub source: Source,
    pub run: u64,
    pub templates: &'a [Template],
    pub first: u64,
    pub events: u64,
    pub per_s: u64,
}

/// An event that was emitted; in Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Emission {
    pub number: u64,
    /// Just before its statement was sent.
    pub sent_ns: i64,
    /// At the server's answer to its commit; `None` if there was none.
    pub committed_ns: Option<i64>,
}

impl Load<'_> {
    /// Emits all of it, and returns what was emitted. Events of one aggregate have one session.
    pub async fn run(self, servers: &Servers) -> Result<Vec<Emission>> {
        let begin = Instant::now();
        let sessions = (0..SESSIONS).map(|session| self.session(servers, session, begin));
        Ok(try_join_all(sessions).await?.into_iter().flatten().collect())
    }

    async fn session(
        self,
        servers: &Servers,
        session: u64,
        begin: Instant,
    ) -> Result<Vec<Emission>> {
        let mut open = Session::open(servers, self.source).await?;
        let last = self.first + self.events;
        let mut emissions = Vec::new();
        let mine = (self.first..last).filter(|number| number % SESSIONS == session);
        for number in mine {
            let due = (number - self.first) as f64 / self.per_s as f64;
            sleep_until(begin + Duration::from_secs_f64(due)).await;
            let at = (number % event::AGGREGATES) as usize;
            let template = self.templates.get(at).ok_or("no template")?;
            let sent_ns = now_ns();
            let answer = open.emit(template, event::id(self.run, number)).await;
            let committed_ns = answer.is_ok().then(now_ns);
            emissions.push(Emission { number, sent_ns, committed_ns });
            if let Err(error) = answer {
                // Only the end of the connection leaves a doubt.
                if !open.client.is_closed() {
                    return Err(error.into());
                }
                open = Session::reopen(servers, self.source).await;
            }
        }
        Ok(emissions)
    }
}

struct Session {
    client: Client,
    source: Source,
    statement: Statement,
}

impl Session {
    async fn open(servers: &Servers, source: Source) -> Result<Self> {
        let client = servers.postgres.connect(NAME).await?;
        let statement = client
            .prepare(match source {
                Source::Table => "INSERT INTO outbox VALUES ($1, $2, $3, $4, $5::text::jsonb)",
                Source::Messages => "SELECT pg_logical_emit_message(true, $1, $2::bytea)",
            })
            .await?;
        Ok(Session { client, source, statement })
    }

    async fn reopen(servers: &Servers, source: Source) -> Self {
        loop {
            match Self::open(servers, source).await {
                Ok(session) => return session,
                Err(_) => sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    async fn emit(
        &self,
        template: &Template,
        id: uuid::Uuid,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let Template { aggregate_type, aggregate_id, event_type, payload } = template;
        match self.source {
            Source::Table => {
                let row: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                    [&id, aggregate_type, aggregate_id, event_type, payload];
                self.client.execute(&self.statement, &row).await?;
            }
            Source::Messages => {
                let message = template.message(id).encode_to_vec();
                self.client.query(&self.statement, &[&NAME, &message]).await?;
            }
        }
        Ok(())
    }
}
