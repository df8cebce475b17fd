//! Decoder: replication messages in, events out.
//!
//! # Life
//! One per generation. It remembers the transaction it is in, because a batch
//! may end anywhere between Begin and Commit; a new generation starts at a
//! transaction's beginning and so with nothing to remember.
//!
//! # Backpressure
//! None of its own: batches carry their permits through.
//!
//! # Failure
//! Bytes that are no pgoutput end the chain: a broken stream can only be read again.

use actix::{Actor, ActorContext, Context, Handler, Recipient};
use bytes::Bytes;
use slog::{Logger, debug};

use crate::{
    Error, ErrorKind, Event, Lsn, Result,
    faults::{FaultSite, Faults},
    messages::{ActorKind, BatchDone, ChainFailed, EventBatch, ExitGuard, Stop, WalBatch},
    postgres::{
        frame::{self, Frame},
        pgoutput::{self, Message},
    },
};

/// The actor around [`EventDecoder`].
pub(crate) struct Decoder {
    pub decoder: EventDecoder,
    pub router: Recipient<EventBatch>,
    pub done: Recipient<BatchDone>,
    pub failed: Recipient<ChainFailed>,
    pub faults: Faults,
    pub log: Logger,
    pub exit: ExitGuard,
}

impl Handler<Stop> for Decoder {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Actor for Decoder {
    type Context = Context<Self>;
}

impl Handler<WalBatch> for Decoder {
    type Result = ();

    fn handle(&mut self, batch: WalBatch, _: &mut Self::Context) {
        self.faults.reach(FaultSite::Decoder);
        let WalBatch { id, frames, commit_end_lsn, permit } = batch;
        match self.decoder.decode(&frames) {
            Ok(events) if events.is_empty() => {
                self.done.do_send(BatchDone { id, commit_end_lsn, events: 0 });
            }
            Ok(events) => {
                self.router.do_send(EventBatch { id, events, commit_end_lsn, permit });
            }
            Err(error) => {
                debug!(self.log, "cannot decode a batch"; "batch" => ?id, "bytes" => frames.len());
                let generation = self.exit.generation;
                self.failed.do_send(ChainFailed { actor: ActorKind::Decoder, generation, error });
            }
        }
    }
}

/// Turns replication messages into events: those of our prefix, of committed
/// transactions that end after the checkpoint.
pub(crate) struct EventDecoder {
    prefix: String,
    start: Lsn,
    transaction: Option<Transaction>,
}

#[derive(Clone, Copy)]
struct Transaction {
    xid: u32,
    commit_time_ns: i64,
    /// It ended at or before the checkpoint: all of it was delivered already.
    done_before: bool,
}

impl EventDecoder {
    /// `start` is the checkpoint: what ended at or before it is not sent again.
    pub fn new(prefix: impl Into<String>, start: Lsn) -> Self {
        EventDecoder { prefix: prefix.into(), start, transaction: None }
    }

    /// The events in a run of whole frames. They are slices of `frames`, not copies.
    pub fn decode(&mut self, frames: &Bytes) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut rest: &[u8] = frames;
        while !rest.is_empty() {
            let Some((frame, length)) = frame::next_frame(rest)? else {
                return Err(protocol("a batch ends inside a message"));
            };
            if let Frame::XLogData(wal) = frame
                && let Some(event) = self.message(wal.data, frames)?
            {
                events.push(event);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(events)
    }

    fn message(&mut self, data: &[u8], frames: &Bytes) -> Result<Option<Event>> {
        let message = Message::parse(data)
            .map_err(|error| protocol("cannot parse a pgoutput message").caused_by(error))?;
        match message {
            Message::Begin { final_lsn, commit_time_us, xid } => {
                self.transaction = Some(Transaction {
                    xid,
                    commit_time_ns: pgoutput::unix_ns(commit_time_us),
                    // final_lsn is where the commit record begins, the checkpoint where one ends.
                    done_before: final_lsn < self.start,
                });
            }
            Message::Commit { .. } => self.transaction = None,
            Message::Logical { transactional, lsn, prefix, content } => {
                return self.logical(transactional, lsn, prefix, frames.slice_ref(content));
            }
            // Tables are not read yet; their changes only move the position.
            _ => {}
        }
        Ok(None)
    }

    fn logical(
        &self,
        transactional: bool,
        lsn: Lsn,
        prefix: &str,
        content: Bytes,
    ) -> Result<Option<Event>> {
        if prefix != self.prefix {
            return Ok(None);
        }
        let transaction = match (transactional, self.transaction) {
            (true, None) => return Err(protocol("a transactional message outside a transaction")),
            (true, transaction) => transaction,
            (false, _) => None,
        };
        if transaction.map_or(lsn <= self.start, |transaction| transaction.done_before) {
            return Ok(None);
        }
        let mut event = match Event::parse(content.clone(), lsn) {
            Ok(event) => event,
            // Not this stream is broken, but what somebody wrote into it.
            Err(error) => Event::malformed(content, lsn, error),
        };
        if let Some(transaction) = transaction {
            event.set_transaction(transaction.xid, transaction.commit_time_ns);
        }
        Ok(Some(event))
    }
}

fn protocol(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}
