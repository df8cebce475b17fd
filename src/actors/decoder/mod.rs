//! Decoder: replication messages in, events out.
//!
//! # Life
//! It outlives the reader: where only the connection was lost, the next reader starts
//! at the saved position, and events that were sent to the router already are skipped. It
//! remembers the transaction it is in, because a batch, and a connection, may end
//! anywhere between Begin and Commit.
//!
//! # Backpressure
//! None of its own: batches carry their permits through. While it looks a new table up, batches wait.
//!
//! # Failure
//! Bytes that are no pgoutput end the chain: a broken stream can only be read again.
//! An error in one event only refuses that event.

mod event_decoder;

use std::sync::Arc;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient,
    WrapFuture,
};
use slog::{Logger, debug};

pub(crate) use self::event_decoder::EventDecoder;
use super::give_way::give_way;
use crate::{
    Error,
    faults::{FaultSite, Faults},
    messages::{
        ActorKind, BatchDone, ChainFailed, DecodedProgress, EventBatch, ExitGuard, ReaderEnded,
        Stop, WalBatch,
    },
    outbox::NewTables,
};

/// The actor around [`EventDecoder`].
pub(crate) struct Decoder {
    pub decoder: EventDecoder,
    /// None if no table can be new, because no `[[outbox]]` is a pattern.
    pub new_tables: Option<Arc<NewTables>>,
    /// Number of batches received so far.
    pub batches: u64,
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

    fn handle(&mut self, batch: WalBatch, ctx: &mut Self::Context) {
        self.faults.reach(FaultSite::Decoder);
        self.batches = batch.id.seq + 1;
        let Some(lookup) = &self.new_tables else { return self.decode(batch, ctx) };
        match self.decoder.unknown_tables(&batch.frames) {
            Ok(tables) if tables.is_empty() => self.decode(batch, ctx),
            Ok(tables) => {
                let lookup = Arc::clone(lookup);
                let asking = async move { lookup.facts(&tables).await };
                // Later batches wait behind this one.
                ctx.wait(asking.into_actor(self).map(|facts, this, ctx| match facts {
                    Ok(facts) => {
                        this.decoder.learn(facts);
                        this.decode(batch, ctx);
                    }
                    Err(error) => this.fail(error),
                }));
            }
            Err(error) => self.fail(error),
        }
    }
}

impl Decoder {
    fn decode(&mut self, batch: WalBatch, ctx: &mut Context<Self>) {
        let WalBatch { id, frames, commit_end_lsn, permit } = batch;
        match self.decoder.decode(&frames) {
            Ok(events) if events.is_empty() => {
                self.done.do_send(BatchDone { id, commit_end_lsn, events: 0 });
            }
            Ok(events) => {
                let end = self.decoder.end();
                self.router.do_send(EventBatch { id, events, commit_end_lsn, end, permit });
                give_way(self, ctx);
            }
            Err(error) => {
                debug!(self.log, "cannot decode a batch"; "batch" => ?id, "bytes" => frames.len());
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: Error) {
        let generation = self.exit.generation;
        self.failed.do_send(ChainFailed { actor: ActorKind::Decoder, generation, error });
    }
}

impl Handler<ReaderEnded> for Decoder {
    type Result = MessageResult<ReaderEnded>;

    fn handle(&mut self, _: ReaderEnded, _: &mut Self::Context) -> Self::Result {
        self.decoder.interrupted();
        MessageResult(DecodedProgress {
            batches: self.batches,
            lsn: self.decoder.skips_up_to(),
            last_event: self.decoder.last_event(),
        })
    }
}

#[cfg(test)]
mod tests {
    use slog::o;
    use tokio::sync::mpsc;

    use super::{event_decoder::wire::*, *};
    use crate::{
        ErrorKind, Lsn,
        messages::{
            BatchId, ByteWindow,
            probe::{exit, probe},
        },
    };

    struct Bench {
        decoder: actix::Addr<Decoder>,
        events: mpsc::UnboundedReceiver<EventBatch>,
        done: mpsc::UnboundedReceiver<BatchDone>,
        failed: mpsc::UnboundedReceiver<ChainFailed>,
        window: ByteWindow,
    }

    impl Bench {
        fn new() -> Self {
            let (router, events) = probe();
            let (to, done) = probe();
            let (failing, failed) = probe();
            let decoder = Decoder {
                decoder: EventDecoder::new("shop", Lsn::new(START)),
                new_tables: None,
                batches: 0,
                router,
                done: to,
                failed: failing,
                faults: Faults::default(),
                log: Logger::root(slog::Discard, o!()),
                exit: exit(ActorKind::Decoder, 4),
            };
            Bench { decoder: decoder.start(), events, done, failed, window: ByteWindow::new(100) }
        }

        fn send(&self, seq: u64, frames: &[Vec<u8>]) {
            self.decoder.do_send(WalBatch {
                id: BatchId { generation: 4, seq },
                frames: frames.concat().into(),
                commit_end_lsn: Some(Lsn::new(2_008)),
                permit: self.window.try_acquire(10).expect("room"),
            });
        }
    }

    #[actix::test]
    async fn a_batch_with_events_goes_on_with_its_permit() {
        let mut bench = Bench::new();
        bench.send(0, &[begin(2_000, 7), emitted("a"), commit(2_000)]);
        let batch = bench.events.recv().await.expect("events");
        assert_eq!((batch.id.seq, batch.commit_end_lsn), (0, Some(Lsn::new(2_008))));
        assert_eq!((ids(&batch.events), batch.permit.bytes()), (vec!["a"], 10));
        assert_eq!(bench.window.used(), 10);
        assert!(bench.done.try_recv().is_err());
    }

    #[actix::test]
    async fn a_batch_that_does_not_concern_us_is_done_at_once() {
        let mut bench = Bench::new();
        bench.send(0, &[begin(2_000, 7), logical(true, 1, "other", b""), commit(2_000)]);
        let done = bench.done.recv().await.expect("done");
        assert_eq!((done.id, done.events), (BatchId { generation: 4, seq: 0 }, 0));
        assert_eq!(done.commit_end_lsn, Some(Lsn::new(2_008)));
        assert_eq!(bench.window.used(), 0);
        assert!(bench.events.try_recv().is_err());
    }

    #[actix::test]
    async fn malformed_bytes_end_the_chain_and_are_never_done() {
        let mut bench = Bench::new();
        bench.send(0, &[begin(2_000, 7), emitted("a"), frame(b"?"), commit(2_000)]);
        let failed = bench.failed.recv().await.expect("a failure");
        assert_eq!((failed.actor, failed.generation), (ActorKind::Decoder, 4));
        assert_eq!(failed.error.kind(), ErrorKind::Protocol);
        assert!(bench.events.try_recv().is_err() && bench.done.try_recv().is_err());
    }
}
