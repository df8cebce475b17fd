//! WalReader: the replication connection in, batches of whole messages out.
//!
//! # Life
//! One per generation. Its loop owns the connection; the actor around it only
//! passes commands in. Draining stops the reading, not the loop: the connection
//! lives until the last position is confirmed. A transaction that is half handed
//! on is first read to its end: what is not whole would be sent again.
//!
//! # Backpressure
//! A batch is handed on when the byte window has room for it; until then the
//! loop does not read, TCP fills up and PostgreSQL waits. The server's time-out
//! is kept away by status updates, which go out on a timer of their own.
//!
//! # Failure
//! Any error ends the loop and, with it, the chain.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseFuture,
    WrapFuture,
};
use bytes::{Buf, Bytes, BytesMut};
use slog::{Logger, debug};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::pace::Pace;
use crate::{
    Error, ErrorKind, Lsn, Result,
    faults::{FaultSite, Faults},
    messages::{
        ActorKind, BatchDone, BatchId, ByteWindow, ChainFailed, ConfirmLsn, Drain, ExitGuard,
        Finish, Stop, Streaming, WalBatch, WindowPermit,
    },
    postgres::{
        ConnectInfo,
        frame::{self, Frame},
        pgoutput,
        replication::{ReplicationClient, ReplicationStream, StandbyStatus},
    },
    status::{BlockedBy, Status},
};

/// What a message of a batch costs beside its bytes: its event, its place in a part, and
/// its record in librdkafka, with headers.
const MESSAGE_OVERHEAD: usize = 512;
/// What a batch costs beside its messages: actor messages, tokens, bookkeeping.
const BATCH_OVERHEAD: usize = 1024;

/// Where and how to read.
pub(crate) struct ReadFrom {
    pub info: ConnectInfo,
    pub connect_timeout: Duration,
    pub slot: String,
    pub publication: String,
    pub start: Lsn,
    /// The number of its first batch: those before were cut by readers whose connections ended.
    pub first_batch: u64,
    /// The cluster that `start` is a position in.
    pub system_id: u64,
    pub status_interval: Duration,
    pub batch_bytes: usize,
}

/// The actor around the loop.
pub(crate) struct WalReader {
    start: Option<Loop>,
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
        let start = Loop {
            confirmed: from.start,
            received: from.start,
            batches: from.first_batch,
            generation: exit.generation,
            inside: false,
            stopping: None,
            draining: false,
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

struct Loop {
    from: ReadFrom,
    window: ByteWindow,
    decoder: Recipient<WalBatch>,
    done: Recipient<BatchDone>,
    streaming: Recipient<Streaming>,
    status: Arc<Status>,
    faults: Faults,
    log: Logger,
    inbox: mpsc::UnboundedReceiver<Command>,
    generation: u64,
    /// Batches cut so far: the next one's seq.
    batches: u64,
    received: Lsn,
    confirmed: Lsn,
    /// The last batch ended inside a transaction.
    inside: bool,
    /// Reading ends with that transaction, and then this is answered.
    stopping: Option<oneshot::Sender<u64>>,
    draining: bool,
    pace: Pace,
}

/// A run of whole messages at the front of the buffer.
#[derive(Default)]
struct Run {
    bytes: usize,
    messages: usize,
    /// The end of its last commit, or the server's position in a later keepalive.
    safe_at: Option<Lsn>,
    /// When the first transaction that begins in it was committed.
    committed_us: Option<i64>,
    /// When the transaction was committed that it ends inside of, if it ends inside of one;
    /// none where it neither begins nor ends one.
    open_us: Option<Option<i64>>,
    reply_requested: bool,
}

impl Run {
    fn charge(&self) -> usize {
        self.bytes + self.messages * MESSAGE_OVERHEAD + BATCH_OVERHEAD
    }
}

impl Loop {
    async fn run(mut self) -> Result<()> {
        let mut stream = self.connect().await?;
        self.streaming.do_send(Streaming { generation: self.generation });
        let mut status = interval(self.from.status_interval);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = BytesMut::with_capacity(self.from.batch_bytes);
        // A run that is scanned and waits for room in the window.
        let mut waiting: Option<Run> = None;
        loop {
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Confirm(lsn)) => {
                        self.confirmed = self.confirmed.max(lsn);
                        self.report(&mut stream).await?;
                    }
                    Some(Command::Drain(reply)) => {
                        self.stopping = Some(reply);
                        // It is cut again, at the end of the transaction.
                        waiting = None;
                        self.blocked_by(None);
                        self.stop_between_transactions();
                    }
                    Some(Command::Finish(lsn, reply)) => {
                        self.confirmed = self.confirmed.max(lsn);
                        self.status.confirmed(self.confirmed);
                        let result = stream.finish(self.position(), buffer).await;
                        debug!(self.log, "replication connection ended"; "lsn" => %self.confirmed);
                        let _ = reply.send(result);
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                _ = status.tick() => self.report(&mut stream).await?,
                permit = self.window.acquire(waiting.as_ref().map_or(0, Run::charge)),
                        if waiting.is_some() => {
                    if let Some(run) = waiting.take() {
                        self.blocked_by(None);
                        self.hand_on(&run, &mut buffer, permit);
                    }
                }
                read = stream.read(&mut buffer, self.pace.pause()), if waiting.is_none() && !self.draining => {
                    read?;
                }
            }
            while waiting.is_none() && !self.draining {
                let Some(run) = self.scan(&buffer)? else { break };
                if run.reply_requested {
                    self.report(&mut stream).await?;
                }
                if run.messages == 0 {
                    self.idle(&run, &mut buffer);
                } else if let Some(permit) = self.window.try_acquire(run.charge()) {
                    self.hand_on(&run, &mut buffer, permit);
                } else {
                    self.blocked_by(Some(BlockedBy::Window));
                    waiting = Some(run);
                }
            }
            make_room(&mut buffer, self.from.batch_bytes);
        }
    }

    async fn connect(&self) -> Result<ReplicationStream> {
        let from = &self.from;
        let mut client =
            ReplicationClient::connect(&from.info, from.connect_timeout, &self.log).await?;
        // Between two connections, another server can take the address.
        let system_id = client.identify_system().await?.system_id;
        if system_id != from.system_id {
            let what = format!("connected to cluster {system_id} in place of {}", from.system_id);
            return Err(Error::new(ErrorKind::PostgresUnavailable, what));
        }
        client.start(&from.slot, from.start, &[&from.publication]).await
    }

    fn blocked_by(&self, what: Option<BlockedBy>) {
        self.status.actor_waits(ActorKind::WalReader.name(), what);
    }

    fn position(&self) -> StandbyStatus {
        StandbyStatus {
            written: self.received,
            flushed: self.confirmed,
            applied: self.confirmed,
            reply_requested: false,
        }
    }

    async fn report(&mut self, stream: &mut ReplicationStream) -> Result<()> {
        stream.send_status(self.position()).await?;
        self.status.confirmed(self.confirmed);
        Ok(())
    }

    /// The whole messages at the front of `buffer`, up to a batch's size.
    fn scan(&mut self, buffer: &[u8]) -> Result<Option<Run>> {
        let mut run = Run::default();
        while run.bytes < self.from.batch_bytes {
            let rest = buffer.get(run.bytes..).unwrap_or_default();
            let Some((frame, length)) = frame::next_frame(rest)? else { break };
            match frame {
                Frame::XLogData(wal) => {
                    run.messages += 1;
                    self.received = self.received.max(wal.wal_start);
                    if let Some(lsn) = pgoutput::commit_end_lsn(wal.data) {
                        self.received = self.received.max(lsn);
                        run.safe_at = run.safe_at.max(Some(lsn));
                        run.open_us = Some(None);
                        if self.stopping.is_some() {
                            run.bytes += length;
                            break;
                        }
                    } else if let Some(committed_us) = pgoutput::begin_commit_time_us(wal.data) {
                        run.open_us = Some(Some(committed_us));
                        run.committed_us.get_or_insert(committed_us);
                        self.pace.begun(committed_us);
                    }
                    self.pace.sent(wal.server_time_us);
                }
                // All that ends before this position was sent before this message.
                Frame::Keepalive { wal_end, reply_requested, .. } => {
                    self.received = self.received.max(wal_end);
                    run.safe_at = run.safe_at.max(Some(wal_end));
                    run.reply_requested |= reply_requested;
                    self.pace.idle();
                }
                Frame::Error(fields) => {
                    return Err(fields.into_error("PostgreSQL ended the replication"));
                }
                Frame::CopyDone => {
                    let what = "PostgreSQL ended the replication";
                    return Err(Error::new(ErrorKind::PostgresUnavailable, what));
                }
                // Notices and parameter changes: nothing to do with the WAL.
                _ => {}
            }
            run.bytes += length;
        }
        self.status.received(self.received);
        Ok((run.bytes > 0).then_some(run))
    }

    /// Ends the reading if that was asked for and no transaction is half handed on.
    fn stop_between_transactions(&mut self) {
        if !self.inside
            && let Some(reply) = self.stopping.take()
        {
            self.draining = true;
            // Whoever asked may have given up; draining goes on.
            let _ = reply.send(self.batches);
        }
    }

    fn next_id(&mut self) -> BatchId {
        let id = BatchId { generation: self.generation, seq: self.batches };
        self.batches += 1;
        id
    }

    /// A run of keepalives: a position that needs no delivery.
    fn idle(&mut self, run: &Run, buffer: &mut BytesMut) {
        buffer.advance(run.bytes);
        let id = self.next_id();
        self.done.do_send(BatchDone { id, commit_end_lsn: run.safe_at, events: 0 });
    }

    fn hand_on(&mut self, run: &Run, buffer: &mut BytesMut, permit: WindowPermit) {
        self.faults.reach(FaultSite::WalReader);
        let frames = take_front(buffer, run.bytes);
        self.status.batch_read(run.safe_at, run.committed_us, run.open_us);
        let id = self.next_id();
        self.decoder.do_send(WalBatch { id, frames, commit_end_lsn: run.safe_at, permit });
        self.inside = run.open_us.map_or(self.inside, |open| open.is_some());
        self.stop_between_transactions();
    }
}

/// Takes the first `bytes` of `buffer`.
///
/// A batch that fills a good part of its block takes the block with it. A small
/// one is copied: slices of one block would keep all of it alive, and a batch
/// that waits for long would hold far more memory than it was charged for.
fn take_front(buffer: &mut BytesMut, bytes: usize) -> Bytes {
    if bytes >= buffer.capacity() / 4 {
        buffer.split_to(bytes).freeze()
    } else {
        let batch = Bytes::copy_from_slice(buffer.get(..bytes).unwrap_or_default());
        buffer.advance(bytes);
        batch
    }
}

/// Makes room for a batch, or for the rest of a message that is larger than one.
fn make_room(buffer: &mut BytesMut, batch_bytes: usize) {
    let wanted = frame::needed(buffer).max(batch_bytes);
    let room = buffer.capacity() - buffer.len();
    if buffer.is_empty() || buffer.capacity() < wanted || room < batch_bytes / 4 {
        buffer.reserve(wanted.saturating_sub(buffer.len()));
    }
}

#[cfg(test)]
mod tests {
    use slog::o;

    use super::*;
    use crate::messages::probe::probe;

    /// A loop that is not connected, and what it hands on.
    fn reader(
        batch_bytes: usize,
    ) -> (Loop, mpsc::UnboundedReceiver<WalBatch>, mpsc::UnboundedReceiver<BatchDone>) {
        let (decoder, batches) = probe();
        let (done, dones) = probe();
        let window = ByteWindow::new(1 << 20);
        let reader = Loop {
            from: ReadFrom {
                info: ConnectInfo::parse("host=nowhere user=u").expect("a connection string"),
                connect_timeout: Duration::from_secs(1),
                slot: "s".into(),
                publication: "p".into(),
                start: Lsn::new(5),
                first_batch: 0,
                system_id: 7,
                status_interval: Duration::from_secs(1),
                batch_bytes,
            },
            status: Arc::new(Status::new(window.clone())),
            window,
            decoder,
            done,
            streaming: probe().0,
            faults: Faults::default(),
            log: Logger::root(slog::Discard, o!()),
            inbox: mpsc::unbounded_channel().1,
            generation: 4,
            batches: 0,
            received: Lsn::new(5),
            confirmed: Lsn::new(5),
            inside: false,
            stopping: None,
            draining: false,
            pace: Pace::default(),
        };
        (reader, batches, dones)
    }

    fn copy_data(parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = u32::try_from(body.len() + 4).expect("small").to_be_bytes();
        [&b"d"[..], &length, &body].concat()
    }

    fn wal(start: u64, data: &[u8]) -> Vec<u8> {
        copy_data(&[b"w", &start.to_be_bytes(), &[0; 16], data])
    }

    fn begin(start: u64) -> Vec<u8> {
        wal(start, &[&b"B"[..], &[0; 20]].concat())
    }

    fn commit(end: u64) -> Vec<u8> {
        let data = [&b"C\0"[..], &(end - 8).to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat();
        wal(end - 8, &data)
    }

    fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
        copy_data(&[b"k", &wal_end.to_be_bytes(), &[0; 8], &[u8::from(reply)]])
    }

    #[actix::test]
    async fn a_run_is_of_whole_messages_and_knows_its_last_commit() {
        let (mut reader, ..) = reader(10_000);
        assert!(reader.scan(b"").expect("allowed").is_none());
        let whole = [begin(10), commit(20), begin(21), commit(40), begin(41)].concat();
        let cut = [&whole[..], &commit(60)[..30]].concat();
        let run = reader.scan(&cut).expect("allowed").expect("a run");
        assert_eq!((run.bytes, run.messages), (whole.len(), 5));
        assert_eq!(run.safe_at, Some(Lsn::new(40)));
        assert!(!run.reply_requested);
        assert_eq!(reader.received, Lsn::new(41));
        assert!(reader.scan(&cut[whole.len()..]).expect("allowed").is_none());
    }

    #[actix::test]
    async fn a_run_inside_a_transaction_moves_no_position() {
        let (mut reader, ..) = reader(10_000);
        let run = reader.scan(&[begin(10), wal(11, b"M")].concat()).expect("allowed");
        assert_eq!(run.expect("a run").safe_at, None);
    }

    #[actix::test]
    async fn a_run_ends_with_the_message_that_fills_it() {
        let (mut reader, ..) = reader(50);
        let message = wal(10, &[b'M'; 20]);
        let run = reader.scan(&message.repeat(3)).expect("allowed").expect("a run");
        assert_eq!(run.bytes, message.len(), "50 bytes are one message of {}", message.len());
        let large = wal(10, &[b'M'; 5_000]);
        let run = reader.scan(&large).expect("allowed").expect("a run");
        assert_eq!((run.bytes, run.messages), (large.len(), 1));
        assert!(run.charge() > large.len());
    }

    #[actix::test]
    async fn a_keepalive_tells_a_position_and_may_ask_for_an_answer() {
        let (mut reader, ..) = reader(10_000);
        let bytes = [commit(20), keepalive(30, true), keepalive(25, false)].concat();
        let run = reader.scan(&bytes).expect("allowed").expect("a run");
        assert_eq!((run.messages, run.safe_at), (1, Some(Lsn::new(30))));
        assert!(run.reply_requested);
    }

    #[actix::test]
    async fn a_stop_inside_of_a_transaction_waits_for_its_end() {
        let (mut reader, mut batches, _dones) = reader(10_000);
        let hand_on = |reader: &mut Loop, buffer: &mut BytesMut| {
            let run = reader.scan(buffer).expect("allowed").expect("a run");
            let permit = reader.window.try_acquire(run.charge()).expect("room");
            reader.hand_on(&run, buffer, permit);
        };
        let begun = [begin(10), wal(11, b"M")].concat();
        hand_on(&mut reader, &mut BytesMut::from(&begun[..]));
        assert_eq!(batches.recv().await.expect("a batch").commit_end_lsn, None);
        let (reply, mut answer) = oneshot::channel();
        reader.stopping = Some(reply);
        reader.stop_between_transactions();
        assert!(answer.try_recv().is_err(), "the transaction is half handed on");

        // The next transaction stays where it is.
        let rest = [wal(12, b"M"), commit(20)].concat();
        let mut buffer = BytesMut::from(&[&rest[..], &begin(21)].concat()[..]);
        hand_on(&mut reader, &mut buffer);
        let last = batches.recv().await.expect("a batch");
        assert_eq!((&last.frames[..], last.commit_end_lsn), (&rest[..], Some(Lsn::new(20))));
        assert_eq!(answer.try_recv(), Ok(2));
        assert!(reader.draining && buffer == begin(21));
    }

    #[actix::test]
    async fn a_stop_between_transactions_is_one_at_once() {
        let (mut reader, ..) = reader(10_000);
        let (reply, mut answer) = oneshot::channel();
        reader.stopping = Some(reply);
        reader.stop_between_transactions();
        assert_eq!((answer.try_recv(), reader.draining), (Ok(0), true));
    }

    #[actix::test]
    async fn batches_are_numbered_without_a_gap_whatever_is_in_them() {
        let (mut reader, mut batches, mut dones) = reader(10_000);
        let mut numbers = Vec::new();
        for message in [commit(20), keepalive(30, false), commit(40)] {
            let mut buffer = BytesMut::from(&message[..]);
            let run = reader.scan(&buffer).expect("allowed").expect("a run");
            if run.messages == 0 {
                reader.idle(&run, &mut buffer);
                let done = dones.recv().await.expect("done");
                assert_eq!((done.commit_end_lsn, done.events), (Some(Lsn::new(30)), 0));
                numbers.push(done.id);
            } else {
                let permit = reader.window.try_acquire(run.charge()).expect("room");
                reader.hand_on(&run, &mut buffer, permit);
                let batch = batches.recv().await.expect("a batch");
                assert_eq!(batch.frames, message);
                assert_eq!(batch.commit_end_lsn, run.safe_at);
                numbers.push(batch.id);
            }
            assert!(buffer.is_empty());
        }
        assert_eq!(numbers, [0, 1, 2].map(|seq| BatchId { generation: 4, seq }));
    }

    #[actix::test]
    async fn the_end_of_the_replication_is_an_error_with_its_reason() {
        let (mut reader, ..) = reader(10_000);
        let error = b"E\0\0\0\x1fC57P01\0Mshutting down\0\0\0\0\0\0\0".to_vec();
        let shutting_down = reader.scan(&error).err().expect("refused");
        assert_eq!(shutting_down.kind(), ErrorKind::PostgresUnavailable);
        assert!(shutting_down.to_string().contains("shutting down"), "{shutting_down}");
        let ended = reader.scan(b"c\0\0\0\x04").err().expect("refused");
        assert_eq!(ended.kind(), ErrorKind::PostgresUnavailable);
        let hostile = reader.scan(b"\0\0\0\0\0\0").err().expect("refused");
        assert_eq!(hostile.kind(), ErrorKind::Protocol);
    }

    #[test]
    fn a_small_batch_does_not_keep_its_block_alive() {
        let mut buffer = BytesMut::with_capacity(1 << 16);
        buffer.extend_from_slice(&[7; 100]);
        let block = buffer.as_ptr();
        let batch = take_front(&mut buffer, 100);
        assert_ne!(batch.as_ptr(), block);
        assert_eq!(batch, Bytes::from_static(&[7; 100]));
    }

    #[test]
    fn a_large_batch_is_not_copied() {
        let mut buffer = BytesMut::with_capacity(1 << 16);
        buffer.extend_from_slice(&[7; 60_000]);
        let block = buffer.as_ptr();
        assert_eq!(take_front(&mut buffer, 59_000).as_ptr(), block);
        assert_eq!(buffer.len(), 1_000);
    }
}
