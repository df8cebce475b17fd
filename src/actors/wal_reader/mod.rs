//! WalReader: the replication connection in, batches of whole messages out.
//!
//! # Life
//! One per generation. Its loop owns the connection; the actor around it only
//! passes commands in. Draining stops the reading, not the loop: the connection
//! lives until the last position is confirmed. A transaction that is half sent
//! is first read to its end: otherwise its events would be sent again.
//!
//! # Backpressure
//! A batch is sent on when the byte window has room for it; until then the
//! loop does not read, TCP fills up and PostgreSQL waits. The server's time-out
//! is kept away by status updates, which go out on a timer of their own.
//!
//! # Failure
//! Any error ends the loop and, with it, the chain.

mod message_run;
mod pace;
mod read_loop;
mod wal_watch;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseFuture,
    WrapFuture,
};
use factlib_postgres::{ConnectInfo, Encoding, SilenceLimit};
use slog::Logger;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::wal_watch::WalWatch;
use self::{pace::Pace, read_loop::ReadLoop};
use crate::{
    Error, ErrorKind, Lsn, Result,
    faults::Faults,
    messages::{
        ActorKind, BatchDone, ByteWindow, ChainFailed, ConfirmLsn, Drain, ExitGuard, Finish, Stop,
        Streaming, WalBatch,
    },
    postgres::slot_reader::OwnBackend,
    status::Status,
};

/// The settings for reading.
pub(crate) struct ReadFrom {
    pub info: ConnectInfo,
    pub connect_timeout: Duration,
    pub slot: String,
    pub publication: String,
    pub encoding: Encoding,
    /// Rows come in binary, from PostgreSQL 14 on.
    pub binary: bool,
    /// Set when a row can't come in binary.
    pub needs_text: Arc<AtomicBool>,
    pub start: Lsn,
    /// The number of its first batch: those before were cut by readers whose connections ended.
    pub first_batch: u64,
    /// The cluster and the timeline that `start` is a position in.
    pub system_id: u64,
    pub timeline: u32,
    pub status_interval: Duration,
    pub batch_bytes: usize,
    pub silence_limit: Arc<SilenceLimit>,
    /// Records which server process reads the slot for us.
    pub own_backend: Arc<OwnBackend>,
    /// Other actors run on its thread, which a pause must not stop.
    pub shares_thread: bool,
}

/// The actor around the loop.
pub(crate) struct WalReader {
    start: Option<ReadLoop>,
    commands: mpsc::UnboundedSender<Command>,
    failed: Recipient<ChainFailed>,
    exit: ExitGuard,
}

enum Command {
    Confirm(Lsn),
    Drain(oneshot::Sender<u64>),
    Finish(Lsn, oneshot::Sender<Result<()>>),
}

impl WalReader {
    #[allow(clippy::too_many_arguments)] // One caller, the supervisor; each is a different thing.
    pub fn new(
        from: ReadFrom,
        window: ByteWindow,
        decoder: Recipient<WalBatch>,
        done: Recipient<BatchDone>,
        supervisor: (Recipient<Streaming>, Recipient<ChainFailed>),
        status: Arc<Status>,
        faults: Faults,
        log: Logger,
        exit: ExitGuard,
    ) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (streaming, failed) = supervisor;
        let start = ReadLoop {
            confirmed: from.start,
            received: from.start,
            batches: from.first_batch,
            generation: exit.generation,
            inside: false,
            stopping: None,
            draining: false,
            silent: false,
            pace: Pace::default(),
            from,
            window,
            decoder,
            done,
            streaming,
            status,
            faults,
            log,
            inbox,
        };
        WalReader { start: Some(start), commands, failed, exit }
    }
}

impl Handler<Stop> for WalReader {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Actor for WalReader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(start) = self.start.take() else { return };
        ctx.spawn(start.run().into_actor(self).map(|result, this, ctx| {
            if let Err(error) = result {
                let generation = this.exit.generation;
                this.failed.do_send(ChainFailed { actor: ActorKind::WalReader, generation, error });
            }
            ctx.stop();
        }));
    }
}

impl Handler<ConfirmLsn> for WalReader {
    type Result = ();

    fn handle(&mut self, ConfirmLsn(lsn): ConfirmLsn, _: &mut Self::Context) {
        // A loop that has ended has no connection to confirm on.
        let _ = self.commands.send(Command::Confirm(lsn));
    }
}

impl Handler<Drain> for WalReader {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Drain(reply));
        Box::pin(async move { answer.await.unwrap_or(0) })
    }
}

impl Handler<Finish> for WalReader {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, Finish(lsn): Finish, _: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Finish(lsn, reply));
        let ended = "the replication connection ended before the last position was confirmed";
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::PostgresUnavailable, ended)))
        })
    }
}
