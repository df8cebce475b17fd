//! Replication messages in, events out: a plain struct, under the [`Decoder`].
//!
//! [`Decoder`]: super::Decoder

use bytes::{Bytes, BytesMut};
use factlib_postgres::{
    Encoding,
    frame::{self, Frame},
    pgoutput::{self, Message, OldTuple, ParseError, Tuple},
};

use crate::{
    Error, ErrorKind, Event, Lsn, Result, TransactionInfo,
    checkpoint::{Cut, Partial},
    config::OutboxTable,
    outbox::{Change, OutboxReader, TableFacts},
};

/// First byte of a table's description.
const RELATION: u8 = b'R';

/// Turns replication messages into events: those of our prefix or the rows of our
/// tables, of committed transactions, each once.
pub(crate) struct EventDecoder {
    source: Source,
    encoding: Encoding,
    /// Transactions that ended at or before this position were decoded, here or before the
    /// checkpoint.
    done: Lsn,
    transaction: Option<DecodedTransaction>,
    /// The transaction that a connection ended in, if some of it was decoded.
    interrupted: Option<DecodedTransaction>,
    /// Commit position of the last transaction with an event.
    last_event: Option<Lsn>,
    /// Number of events of the last batch: the next one probably has as many.
    usual_events: usize,
}

/// A batch while it is decoded.
struct Decoding {
    events: Vec<Event>,
    /// Block for the values that are made of rows.
    made_values: BytesMut,
}

/// The source of events; never both, because a client may write each event to both.
enum Source {
    /// Logical messages of this prefix.
    Messages { prefix: String },
    /// Rows that are inserted into tables.
    Tables(Box<OutboxReader>),
}

#[derive(Clone, Copy)]
struct DecodedTransaction {
    xid: u32,
    final_lsn: Lsn,
    commit_time_ns: i64,
    /// Events of it so far; rows of other tables count as well.
    events: u64,
    /// Number of its first events, which were decoded before; all of them where it ended
    /// before `done`. A transaction is decoded to the same events each time.
    skip: u64,
}

impl DecodedTransaction {
    /// The transaction, for its event that was counted last.
    fn info(&self) -> TransactionInfo {
        TransactionInfo {
            xid: self.xid,
            commit_time_ns: self.commit_time_ns,
            commit_lsn: self.final_lsn,
            ordinal: self.events,
        }
    }
}

impl EventDecoder {
    /// Decodes logical messages. `start` is the checkpoint: transactions that ended at or before it are
    /// not sent again.
    pub fn new(prefix: impl Into<String>, start: Lsn) -> Self {
        EventDecoder::of(Source::Messages { prefix: prefix.into() }, start)
    }

    /// Notes the end of the stream here; the next one starts at an earlier position, with a
    /// transaction's beginning.
    pub fn interrupted(&mut self) {
        if let Source::Tables(tables) = &mut self.source {
            tables.interrupted();
        }
        if let Some(transaction) = self.transaction.take()
            && transaction.skip.max(transaction.events) > 0
            && transaction.final_lsn >= self.done
        {
            let skip = transaction.skip.max(transaction.events);
            self.interrupted = Some(DecodedTransaction { skip, ..transaction });
        }
    }

    /// Commit position of the last transaction with an event.
    pub fn last_event(&self) -> Option<Lsn> {
        self.last_event
    }

    /// Upper bound of the range skipped on replay.
    pub fn skips_up_to(&self) -> Lsn {
        self.interrupted.map_or(self.done, |transaction| self.done.max(transaction.final_lsn))
    }

    /// Decodes rows of outbox tables, in place of logical messages.
    pub fn of_tables(tables: OutboxReader, start: Lsn) -> Self {
        EventDecoder::of(Source::Tables(Box::new(tables)), start)
    }

    /// Skips the first events of this transaction, which were decoded in an earlier life.
    pub fn resume(&mut self, Partial { xid, final_lsn, events }: Partial) {
        let skip = events;
        self.interrupted =
            Some(DecodedTransaction { xid, final_lsn, commit_time_ns: 0, events: 0, skip });
    }

    /// The position behind all that was decoded.
    pub fn end(&self) -> Cut {
        Cut { lsn: self.done, partial: self.partial() }
    }

    /// The transaction of which some was decoded, and not all.
    fn partial(&self) -> Option<Partial> {
        let DecodedTransaction { xid, final_lsn, events, skip, .. } =
            self.transaction.or(self.interrupted)?;
        let events = events.max(skip);
        // What has ended before has `skip` for all of it.
        let inside = events > 0 && final_lsn >= self.done;
        inside.then_some(Partial { xid, final_lsn, events })
    }

    fn of(source: Source, start: Lsn) -> Self {
        let encoding = Encoding::AsIs;
        EventDecoder {
            source,
            encoding,
            done: start,
            transaction: None,
            interrupted: None,
            last_event: None,
            usual_events: 0,
        }
    }

    /// Sets the encoding of the texts in the stream.
    pub fn in_encoding(self, encoding: Encoding) -> Self {
        EventDecoder { encoding, ..self }
    }

    /// Decodes the events in a run of whole frames. Those of messages are slices of `frames`, not copies.
    pub fn decode(&mut self, frames: &Bytes) -> Result<Vec<Event>> {
        let mut to = Decoding {
            events: Vec::with_capacity(self.usual_events),
            made_values: BytesMut::new(),
        };
        let mut rest: &[u8] = frames;
        while !rest.is_empty() {
            let Some((frame, length)) = frame::next_frame(rest)? else {
                return Err(protocol("a batch ends inside a message"));
            };
            if let Frame::XLogData(wal) = frame {
                let before = to.events.len();
                match self.converted(wal.data)? {
                    Some(data) => self.message(wal.wal_start, &data, &data, &mut to)?,
                    None => self.message(wal.wal_start, wal.data, frames, &mut to)?,
                }
                if to.events.len() > before
                    && let Some(transaction) = &self.transaction
                {
                    self.last_event = Some(transaction.final_lsn);
                }
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        self.usual_events = to.events.len();
        Ok(to.events)
    }

    /// Lists the tables in a run of whole frames that match a pattern and are not known yet: their
    /// facts have to be [learned](Self::learn) before these frames are decoded.
    pub fn unknown_tables(&self, frames: &Bytes) -> Result<Vec<OutboxTable>> {
        let Source::Tables(tables) = &self.source else { return Ok(Vec::new()) };
        let mut unknown = Vec::new();
        let mut rest: &[u8] = frames;
        while let Some((frame, length)) = frame::next_frame(rest)? {
            if let Frame::XLogData(wal) = frame
                && wal.data.first() == Some(&RELATION)
            {
                let converted = self.converted(wal.data)?;
                let message = Message::parse(converted.as_deref().unwrap_or(wal.data));
                if let Message::Relation { namespace, name, .. } = message.map_err(unparsable)? {
                    unknown.extend(tables.unknown(namespace, name));
                }
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(unknown)
    }

    /// Takes the facts of further tables in.
    pub fn learn(&mut self, facts: TableFacts) {
        if let Source::Tables(tables) = &mut self.source {
            tables.learn(facts);
        }
    }

    /// The message with its texts in UTF-8, where they have to be converted.
    fn converted(&self, data: &[u8]) -> Result<Option<Bytes>> {
        let Some(table) = self.encoding.table() else { return Ok(None) };
        let converted = Message::converted(data, |text| table.utf8(text)).map_err(unparsable)?;
        Ok(converted.map(BytesMut::freeze))
    }

    fn message(&mut self, at: Lsn, data: &[u8], frames: &Bytes, to: &mut Decoding) -> Result<()> {
        let message = Message::parse(data).map_err(unparsable)?;
        match message {
            Message::Begin { final_lsn, commit_time_us, xid } => {
                // final_lsn is where the commit record begins, `done` where one ends.
                let done_before = final_lsn < self.done;
                let again = self
                    .interrupted
                    .filter(|other| (other.xid, other.final_lsn) == (xid, final_lsn))
                    .map_or(0, |other| other.skip);
                self.transaction = Some(DecodedTransaction {
                    xid,
                    final_lsn,
                    commit_time_ns: pgoutput::unix_ns(commit_time_us),
                    events: 0,
                    skip: if done_before { u64::MAX } else { again },
                });
            }
            Message::Commit { end_lsn, .. } => {
                if let Source::Tables(tables) = &mut self.source {
                    tables.ended()?;
                }
                self.transaction = None;
                self.done = self.done.max(end_lsn);
                // Transactions come in the order of their commits.
                self.interrupted = self.interrupted.filter(|other| other.final_lsn >= self.done);
            }
            Message::Logical { transactional, lsn, prefix, content } => {
                self.logical(transactional, lsn, prefix, || frames.slice_ref(content), to)?;
            }
            Message::Relation { oid, namespace, name, columns, .. } => {
                if let Source::Tables(tables) = &mut self.source {
                    tables.described(oid, namespace, name, columns);
                }
            }
            Message::Insert { relation, new } => self.inserted(relation, new, at, frames, to)?,
            Message::Update { relation, .. } => self.changed(relation, Change::Update, at)?,
            Message::Delete { relation, old } => self.deleted(relation, old, at)?,
            Message::Truncate { relations, .. } => {
                for relation in relations.oids() {
                    self.changed(relation, Change::Truncate, at)?;
                }
            }
            Message::Type { oid, namespace, name } => {
                if let Source::Tables(tables) = &mut self.source {
                    tables.type_described(oid, namespace, name);
                }
            }
            // Origins say nothing about events.
            Message::Origin { .. } => {}
            // Nothing else is sent in our protocol version: to skip it could lose events.
            _ => {
                let what = "pgoutput sent a message of an unknown kind";
                return Err(Error::new(ErrorKind::Protocol, what));
            }
        }
        Ok(())
    }

    fn inserted(
        &mut self,
        relation: u32,
        row: Tuple<'_>,
        lsn: Lsn,
        frames: &Bytes,
        to: &mut Decoding,
    ) -> Result<()> {
        let Source::Tables(tables) = &mut self.source else { return Ok(()) };
        let transaction = self.transaction.as_mut().ok_or_else(change_outside)?;
        transaction.events += 1;
        let before = transaction.events <= transaction.skip;
        let moved = tables.moved(relation, row)?;
        if before {
            return Ok(());
        }
        if moved {
            return tables.changed(relation, Change::Update, lsn);
        }
        let commit_time_ns = transaction.commit_time_ns;
        let event =
            tables.inserted(relation, row, lsn, commit_time_ns, frames, &mut to.made_values)?;
        if let Some(mut event) = event {
            event.set_transaction(transaction.info());
            to.events.push(event);
        }
        Ok(())
    }

    fn changed(&mut self, relation: u32, change: Change, lsn: Lsn) -> Result<()> {
        let Source::Tables(tables) = &mut self.source else { return Ok(()) };
        let transaction = self.transaction.ok_or_else(change_outside)?;
        let before = transaction.events < transaction.skip;
        if before { Ok(()) } else { tables.changed(relation, change, lsn) }
    }

    fn deleted(&mut self, relation: u32, old: OldTuple<'_>, lsn: Lsn) -> Result<()> {
        let Source::Tables(tables) = &mut self.source else { return Ok(()) };
        let transaction = self.transaction.ok_or_else(change_outside)?;
        let before = transaction.events < transaction.skip;
        let (OldTuple::Key(old) | OldTuple::Full(old)) = old;
        tables.deleted(relation, old, (!before).then_some(lsn))
    }

    fn logical(
        &mut self,
        transactional: bool,
        lsn: Lsn,
        prefix: &str,
        content: impl Fn() -> Bytes,
        to: &mut Decoding,
    ) -> Result<()> {
        let Source::Messages { prefix: ours } = &self.source else { return Ok(()) };
        if prefix != ours {
            return Ok(());
        }
        let transaction = match (transactional, &mut self.transaction) {
            (true, None) => return Err(protocol("a transactional message outside a transaction")),
            (true, Some(transaction)) => {
                transaction.events += 1;
                if transaction.events <= transaction.skip {
                    return Ok(());
                }
                Some(*transaction)
            }
            // Here the position is the message's end.
            (false, _) if lsn <= self.done => return Ok(()),
            (false, _) => {
                self.done = lsn;
                None
            }
        };
        // Not this stream is broken, but what somebody wrote into it.
        let malformed = |error| Event::malformed(content(), lsn, error);
        let mut event = Event::parse(content(), lsn).unwrap_or_else(malformed);
        if let Some(transaction) = transaction {
            event.set_transaction(transaction.info());
        }
        to.events.push(event);
        Ok(())
    }
}

fn unparsable(error: ParseError) -> Error {
    protocol("cannot parse a pgoutput message").caused_by(error)
}

fn change_outside() -> Error {
    protocol("a change outside a transaction")
}

fn protocol(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod wire;
