//! Streams events as they are committed, for `factlib tail`: from the WAL, through a temporary slot.
//!
//! It needs no Kafka and does not disturb a relay: the slot ends with the connection and keeps no WAL
//! that was read. The server drops a reader that is too slow after `wal_sender_timeout`, and its slot
//! too. `routing::explain` shows the records that a relay would send for an event.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use factlib_postgres::{
    ReplicationClient, ReplicationOptions, ReplicationStream, Server, StandbyStatus,
    frame::{self, Frame},
};
use slog::Logger;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    actors::EventDecoder,
    config::Config,
    outbox::{OutboxReader, TableFacts, publication::RefuseOn},
    postgres::{read_encoding, server, sql_session},
    routing::{Captures, Pattern},
    startup::{Startup, log_findings},
};

/// Size of one read; a message may be larger.
const READ_BYTES: usize = 256 << 10;

/// A slot to stream from, and where.
pub(crate) struct TailSource {
    pub slot: String,
    /// Transactions that ended here or earlier are not streamed.
    pub start: Lsn,
    /// The position that stays confirmed; what is received is confirmed if none is given.
    pub keep: Option<Lsn>,
}

/// A stream of a database's events from now on.
pub struct Tail {
    stream: ReplicationStream,
    decoder: EventDecoder,
    buffer: BytesMut,
    /// Complete messages.
    undecoded: bytes::Bytes,
    events: VecDeque<Event>,
    received: Lsn,
    /// The position to confirm, if it is not the received one.
    keep: Option<Lsn>,
    status_interval: Duration,
    next_status: Instant,
}

impl Tail {
    /// Connects and creates a temporary slot, which waits for running transactions that write. Events
    /// that commit from then on are streamed.
    ///
    /// # Errors
    /// An error of the server, or a missing publication, with the remedy.
    pub async fn open(config: &Config, log: &Logger) -> Result<Self> {
        config.validate()?;
        let settings = &config.postgres;
        let startup = Startup::new(&Arc::new(config.clone()))?;
        let client = sql_session(&startup.info, settings.connect_timeout, log).await?;
        let server = Server::read(&client).await?;
        server::check(&server, config)?;
        let (_, findings) = startup.publication(&client, false, RefuseOn::EveryTable, log).await?;
        log_findings(&findings, log);
        let mut replication = startup.replication(settings.connect_timeout, log).await?;
        // No relay and no other tail has this name.
        let slot = format!("factlib_tail_{}", Uuid::now_v7().simple());
        let start = match create_slot(&mut replication, &slot).await {
            Ok(start) => start,
            Err(error) => {
                // Otherwise the server would go on waiting, although nobody reads the slot.
                let pid = replication.pid();
                let _ = client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await;
                return Err(error);
            }
        };
        let source = TailSource { slot, start, keep: None };
        Tail::of_slot(config, &startup, &client, &server, replication, source, log).await
    }

    /// Streams the events of a slot that exists, which is then active for this connection.
    ///
    /// # Errors
    /// An error of the server.
    pub(crate) async fn of_slot(
        config: &Config,
        startup: &Startup,
        client: &Client,
        server: &Server,
        replication: ReplicationClient,
        TailSource { slot, start, keep }: TailSource,
        log: &Logger,
    ) -> Result<Self> {
        let (settings, tables) = (&config.postgres, config.outbox_tables());
        let encoding = read_encoding(client, log).await?;
        let facts = TableFacts::read(client, &tables).await?;
        let options = ReplicationOptions::new(slot)
            .publication(&settings.publication)
            .messages(true)
            .start_at(start)
            .encoding(encoding.clone())
            .silence_limit(startup.silence_limit());
        let stream = replication.start(&options).await?;
        let decoder = match tables.is_empty() {
            true => EventDecoder::new(&settings.message_prefix, start),
            false => EventDecoder::of_tables(OutboxReader::new(tables, facts, log.clone()), start),
        };
        let decoder = decoder.in_encoding(encoding);
        Ok(Tail {
            stream,
            decoder,
            buffer: BytesMut::with_capacity(READ_BYTES),
            undecoded: bytes::Bytes::new(),
            events: VecDeque::new(),
            received: start,
            keep,
            status_interval: server::status_interval(server, settings),
            next_status: Instant::now(),
        })
    }

    /// Start position: transactions that ended before it are not streamed.
    pub fn position(&self) -> Lsn {
        self.received
    }

    /// Returns the next event, in commit order. An invalid one has a [`refusal`](Event::refusal).
    ///
    /// # Errors
    /// The connection ended, and the slot with it.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.step().await? {
                return Ok(event);
            }
        }
    }

    /// Returns the next event, or none after a step that only moved the position, ended a transaction or
    /// confirmed.
    pub(crate) async fn step(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if !self.undecoded.is_empty() {
            self.decode_transaction()?;
            return Ok(self.events.pop_front());
        }
        tokio::select! {
            biased;
            () = sleep_until(self.next_status) => self.confirm_received().await?,
            read = self.stream.read(&mut self.buffer) => {
                read?;
                self.take_messages().await?;
            }
        }
        let wanted = frame::first_frame_length(&self.buffer).max(READ_BYTES);
        self.buffer.reserve(wanted.saturating_sub(self.buffer.len()));
        Ok(None)
    }

    /// Position up to which every event was returned, once [`step`](Self::step) has returned none.
    pub(crate) fn received(&self) -> Lsn {
        self.received
    }

    /// Takes the complete messages out of the buffer.
    async fn take_messages(&mut self) -> Result<()> {
        let mut length = 0;
        let mut reply_requested = false;
        while let Some((frame, bytes)) =
            frame::next_frame(self.buffer.get(length..).unwrap_or(&[]))?
        {
            match frame {
                Frame::XLogData(_) => {}
                Frame::Keepalive { reply_requested: wanted, .. } => reply_requested |= wanted,
                other => other.ensure_streaming()?,
            }
            length += bytes;
        }
        // A copy, so that the buffer is free for the next read.
        self.undecoded =
            bytes::Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(length);
        if reply_requested { self.confirm_received().await } else { Ok(()) }
    }

    /// Decodes messages up to the next end of a transaction.
    fn decode_transaction(&mut self) -> Result<()> {
        let before = self.decoder.end().lsn;
        while let Some((frame, length)) = frame::next_frame(&self.undecoded)? {
            match frame {
                Frame::XLogData(wal) => self.received = self.received.max(wal.wal_start),
                Frame::Keepalive { wal_end, .. } => self.received = self.received.max(wal_end),
                _ => {}
            }
            let message = self.undecoded.split_to(length);
            self.events.extend(self.decoder.decode(&message)?);
            if self.decoder.end().lsn > before {
                return Ok(());
            }
        }
        self.undecoded.clear();
        Ok(())
    }

    /// True if all events that were received are returned.
    pub(crate) fn is_drained(&self) -> bool {
        self.events.is_empty()
    }

    /// The end of the last transaction, if all of its events were returned and no later one has begun to
    /// return events.
    pub(crate) fn transaction_end(&self) -> Option<Lsn> {
        let end = self.decoder.end();
        (self.events.is_empty() && end.partial.is_none()).then_some(end.lsn)
    }

    /// Runs `work` and keeps the connection alive meanwhile, without reading from it.
    ///
    /// # Errors
    /// The connection ended.
    pub(crate) async fn while_busy<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = sleep_until(self.next_status) => self.send_status(false).await?,
            }
        }
    }

    /// Ends the stream in order; afterwards the slot is free.
    ///
    /// # Errors
    /// The connection ended before.
    pub(crate) async fn finish(self) -> Result<()> {
        let status = self.status();
        Ok(self.stream.finish(status, self.buffer).await?)
    }

    /// Confirms everything received, because nothing has to be read again, or the position to keep.
    async fn confirm_received(&mut self) -> Result<()> {
        self.send_status(true).await
    }

    async fn send_status(&mut self, reading: bool) -> Result<()> {
        self.next_status = Instant::now() + self.status_interval;
        let status = self.status();
        Ok(self.stream.send_status(status, reading).await?)
    }

    fn status(&self) -> StandbyStatus {
        let confirmed = self.keep.unwrap_or(self.received);
        StandbyStatus {
            written: self.received,
            flushed: confirmed,
            applied: confirmed,
            reply_requested: false,
        }
    }
}

async fn create_slot(replication: &mut ReplicationClient, slot: &str) -> Result<Lsn> {
    let created = replication.create_temporary_slot(slot).await.map_err(Error::from);
    created.map_err(|error| match (error.kind(), error.advice()) {
        (ErrorKind::PostgresUnavailable, None) => {
            error.remedy("a new slot waits for the transactions that write: does one not end?")
        }
        _ => error,
    })
}

/// Selects events by patterns as in a `[[route]]`: a text, a glob or a regular expression.
#[derive(Debug, Default)]
pub struct Filter {
    aggregate_type: Option<Pattern>,
    aggregate_id: Option<Pattern>,
    event_type: Option<Pattern>,
}

impl Filter {
    /// Creates a filter for events that match all given patterns.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a pattern that is invalid.
    pub fn new(
        aggregate_type: Option<&str>,
        aggregate_id: Option<&str>,
        event_type: Option<&str>,
    ) -> Result<Self> {
        let parse = |name: &str, text: Option<&str>| -> Result<Option<Pattern>> {
            let parsed = text.map(Pattern::parse).transpose();
            parsed.map_err(|problem| {
                let text = text.unwrap_or_default();
                Error::new(ErrorKind::Config, format!("{name} {text:?} {problem}"))
            })
        };
        Ok(Filter {
            aggregate_type: parse("aggregate type", aggregate_type)?,
            aggregate_id: parse("aggregate id", aggregate_id)?,
            event_type: parse("event type", event_type)?,
        })
    }

    /// True if the event matches.
    pub fn takes(&self, event: &Event) -> bool {
        let takes = |pattern: &Option<Pattern>, text: &str| {
            pattern.as_ref().is_none_or(|wanted| wanted.matches(text, &mut Captures::default()))
        };
        takes(&self.aggregate_type, event.aggregate_type())
            && takes(&self.aggregate_id, event.aggregate_id())
            && takes(&self.event_type, event.event_type())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::OutboxEvent;

    #[test]
    fn a_filter_takes_events_that_match_all_patterns() {
        let raw = OutboxEvent {
            aggregate_type: "order".into(),
            aggregate_id: "7".into(),
            event_type: "order.placed".into(),
            ..Default::default()
        };
        let event = Event::parse(raw.encode_to_vec().into(), Lsn::ZERO).expect("an event");
        let takes = |kind, id, event_type| {
            Filter::new(kind, id, event_type).expect("patterns").takes(&event)
        };
        assert!(takes(None, None, None));
        assert!(takes(Some("order"), Some("/^[0-9]+$/"), Some("order.*")));
        assert!(!takes(Some("order"), Some("8"), None));
        assert!(!takes(Some("orders"), None, None));
        let error = Filter::new(None, None, Some("/(/")).expect_err("no regular expression");
        assert!(
            error.to_string().starts_with("event type \"/(/\" is not a valid regular expression: ")
        );
    }
}
