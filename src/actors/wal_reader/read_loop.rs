//! The loop under the [`WalReader`]: it owns the connection.
//!
//! [`WalReader`]: super::WalReader

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix::Recipient;
use bytes::{Buf, BytesMut};
use factlib_postgres::{
    ReplicationClient, ReplicationOptions, ReplicationStream, StandbyStatus, SystemId,
};
use slog::{Logger, debug};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Command, ReadFrom,
    message_run::{self, MessageRun},
    pace::Pace,
};
use crate::{
    Error, ErrorKind, Lsn, Result,
    faults::{FaultSite, Faults},
    messages::{ActorKind, BatchDone, BatchId, ByteWindow, Streaming, WalBatch, WindowPermit},
    postgres::{logged, sqlstate},
    status::{BlockedBy, Status, TransactionBoundary},
};

/// A type that a type in a published table is made of has no binary format.
const UNDEFINED_FUNCTION: &str = "42883";

pub(super) struct ReadLoop {
    pub from: ReadFrom,
    pub window: ByteWindow,
    pub decoder: Recipient<WalBatch>,
    pub done: Recipient<BatchDone>,
    pub streaming: Recipient<Streaming>,
    pub status: Arc<Status>,
    pub faults: Faults,
    pub log: Logger,
    pub inbox: mpsc::UnboundedReceiver<Command>,
    pub generation: u64,
    /// Batches cut so far: the next one's seq.
    pub batches: u64,
    pub received: Lsn,
    pub confirmed: Lsn,
    /// The last batch ended inside a transaction.
    pub inside: bool,
    /// Reading ends with that transaction, and then this is answered.
    pub stopping: Option<oneshot::Sender<u64>>,
    pub draining: bool,
    /// The server was asked for a reply and has not replied.
    pub silent: bool,
    pub pace: Pace,
}

/// Reads after a pause. It blocks the thread, since a runtime that waits is woken by every packet;
/// where others share the thread, it waits in the runtime's steps of a millisecond.
async fn paced_read(
    stream: &mut ReplicationStream,
    buffer: &mut BytesMut,
    pause: Duration,
    shares_thread: bool,
) -> factlib_postgres::Result<usize> {
    if !shares_thread {
        return stream.read_after(buffer, pause).await;
    }
    if pause >= Duration::from_millis(1) {
        sleep(pause).await;
    }
    stream.read_after(buffer, Duration::ZERO).await
}

impl ReadLoop {
    pub async fn run(self) -> Result<()> {
        let (binary, needs_text) = (self.from.binary, Arc::clone(&self.from.needs_text));
        let ended = self.read().await;
        ended.map_err(|error| match sqlstate(&error) {
            Some(UNDEFINED_FUNCTION) if binary => {
                needs_text.store(true, Relaxed);
                let what = "the server can't send a row in binary; the stream begins again in text";
                Error::new(ErrorKind::PostgresUnavailable, what).caused_by(error)
            }
            _ => error,
        })
    }

    async fn read(mut self) -> Result<()> {
        let mut stream = self.connect().await?;
        self.streaming.do_send(Streaming { generation: self.generation });
        let mut status = interval(self.from.status_interval);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = BytesMut::with_capacity(self.from.batch_bytes);
        // A run that is scanned and waits for room in the window.
        let mut waiting: Option<MessageRun> = None;
        let shares_thread = self.from.shares_thread;
        loop {
            let pause = self.pace.pause();
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    Some(Command::Confirm(lsn)) => {
                        self.confirmed = self.confirmed.max(lsn);
                        self.report(&mut stream, waiting.is_none()).await?;
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
                        if result.is_ok() {
                            self.from.own_backend.clear();
                        }
                        debug!(self.log, "replication connection ended"; "lsn" => %self.confirmed);
                        let _ = reply.send(result.map_err(Into::into));
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                _ = status.tick() => self.report(&mut stream, waiting.is_none()).await?,
                permit = self.window.acquire(waiting.as_ref().map_or(0, MessageRun::charge)),
                        if waiting.is_some() => {
                    if let Some(run) = waiting.take() {
                        self.blocked_by(None);
                        self.send_batch(&run, &mut buffer, permit);
                    }
                }
                read = paced_read(&mut stream, &mut buffer, pause, shares_thread),
                        if waiting.is_none() && !self.draining => {
                    read?;
                    self.notice_silence(&stream);
                }
            }
            while waiting.is_none() && !self.draining {
                let Some(run) = self.scan(&buffer)? else { break };
                if run.reply_requested {
                    self.report(&mut stream, true).await?;
                }
                if run.messages == 0 {
                    self.idle(&run, &mut buffer);
                } else if let Some(permit) = self.window.try_acquire(run.charge()) {
                    self.send_batch(&run, &mut buffer, permit);
                } else {
                    self.blocked_by(Some(BlockedBy::Window));
                    waiting = Some(run);
                }
            }
            message_run::make_room(&mut buffer, self.from.batch_bytes);
        }
    }

    async fn connect(&self) -> Result<ReplicationStream> {
        let from = &self.from;
        let mut client =
            ReplicationClient::connect(&logged(&from.info, &self.log), from.connect_timeout)
                .await?;
        // Between two connections, another server can take the address.
        let SystemId { system_id, timeline, .. } = client.identify_system().await?;
        if system_id != from.system_id {
            let what = format!("connected to cluster {system_id} in place of {}", from.system_id);
            return Err(Error::new(ErrorKind::PostgresUnavailable, what));
        }
        // A standby was promoted meanwhile, in whose history the position may not be.
        if timeline != from.timeline {
            let what = format!("connected to timeline {timeline} in place of {}", from.timeline);
            return Err(Error::new(ErrorKind::PostgresUnavailable, what));
        }
        // Before it can have the slot.
        from.own_backend.set(&client.backend().await?);
        let options = ReplicationOptions::new(&from.slot)
            .publication(&from.publication)
            .messages(true)
            .start_at(from.start)
            .encoding(from.encoding.clone())
            .binary(from.binary)
            .status_interval(from.status_interval)
            .silence_limit(Arc::clone(&from.silence_limit));
        Ok(client.start(&options).await?)
    }

    fn blocked_by(&self, what: Option<BlockedBy>) {
        self.status.actor_waits(ActorKind::WalReader.name(), what);
    }

    /// Notes that the server has been silent for so long that it was asked for a reply, or that it has
    /// replied.
    fn notice_silence(&mut self, stream: &ReplicationStream) {
        if self.silent != stream.awaits_reply() {
            self.silent = !self.silent;
            self.blocked_by(self.silent.then_some(BlockedBy::Postgres));
        }
    }

    fn position(&self) -> StandbyStatus {
        StandbyStatus {
            written: self.received,
            flushed: self.confirmed,
            applied: self.confirmed,
            reply_requested: false,
        }
    }

    /// Tells the server our position; `reading` unless the window is full.
    async fn report(&mut self, stream: &mut ReplicationStream, reading: bool) -> Result<()> {
        stream.send_status(self.position(), reading && !self.draining).await?;
        self.notice_silence(stream);
        self.status.confirmed(self.confirmed);
        Ok(())
    }

    /// The next run; where a stop waits for the end of a transaction, it ends with that.
    fn scan(&mut self, buffer: &[u8]) -> Result<Option<MessageRun>> {
        let (at_most, stopping) = (self.from.batch_bytes, self.stopping.is_some());
        let run = MessageRun::scan(buffer, at_most, stopping, &mut self.pace)?;
        self.received = self.received.max(run.as_ref().map_or(Lsn::ZERO, |run| run.received));
        self.status.received(self.received);
        Ok(run)
    }

    /// Ends the reading if that was asked for and no transaction is half sent.
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
    fn idle(&mut self, run: &MessageRun, buffer: &mut BytesMut) {
        buffer.advance(run.bytes);
        let id = self.next_id();
        self.done.do_send(BatchDone { id, commit_end_lsn: run.safe_at, events: 0 });
    }

    fn send_batch(&mut self, run: &MessageRun, buffer: &mut BytesMut, permit: WindowPermit) {
        self.faults.reach(FaultSite::WalReader);
        let frames = message_run::take_front(buffer, run.bytes);
        self.status.batch_read(run.safe_at, run.committed_us, run.boundary);
        let id = self.next_id();
        self.decoder.do_send(WalBatch { id, frames, commit_end_lsn: run.safe_at, permit });
        self.inside = match run.boundary {
            TransactionBoundary::Unchanged => self.inside,
            TransactionBoundary::Between => false,
            TransactionBoundary::Inside { .. } => true,
        };
        self.stop_between_transactions();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use factlib_postgres::{ConnectInfo, Encoding, SilenceLimit};
    use slog::o;

    use super::{message_run::wire::*, *};
    use crate::messages::probe::probe;

    /// A loop that is not connected, and what it sends.
    fn reader() -> (ReadLoop, mpsc::UnboundedReceiver<WalBatch>, mpsc::UnboundedReceiver<BatchDone>)
    {
        let (decoder, batches) = probe();
        let (done, dones) = probe();
        let window = ByteWindow::new(1 << 20);
        let reader = ReadLoop {
            from: ReadFrom {
                info: ConnectInfo::parse("host=nowhere user=u").expect("a connection string"),
                connect_timeout: Duration::from_secs(1),
                slot: "s".into(),
                publication: "p".into(),
                encoding: Encoding::AsIs,
                binary: false,
                needs_text: Arc::default(),
                start: Lsn::new(5),
                first_batch: 0,
                system_id: 7,
                timeline: 1,
                status_interval: Duration::from_secs(1),
                batch_bytes: 10_000,
                silence_limit: Arc::new(SilenceLimit::new(Duration::from_secs(1))),
                own_backend: Arc::default(),
                shares_thread: false,
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
            silent: false,
            pace: Pace::default(),
        };
        (reader, batches, dones)
    }

    #[actix::test]
    async fn a_stop_inside_of_a_transaction_waits_for_its_end() {
        let (mut reader, mut batches, _dones) = reader();
        let hand_on = |reader: &mut ReadLoop, buffer: &mut BytesMut| {
            let run = reader.scan(buffer).expect("allowed").expect("a run");
            let permit = reader.window.try_acquire(run.charge()).expect("room");
            reader.send_batch(&run, buffer, permit);
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
        let (mut reader, ..) = reader();
        let (reply, mut answer) = oneshot::channel();
        reader.stopping = Some(reply);
        reader.stop_between_transactions();
        assert_eq!((answer.try_recv(), reader.draining), (Ok(0), true));
    }

    #[actix::test]
    async fn batches_are_numbered_without_a_gap_whatever_is_in_them() {
        let (mut reader, mut batches, mut dones) = reader();
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
                reader.send_batch(&run, &mut buffer, permit);
                let batch = batches.recv().await.expect("a batch");
                assert_eq!(batch.frames, message);
                assert_eq!(batch.commit_end_lsn, run.safe_at);
                numbers.push(batch.id);
            }
            assert!(buffer.is_empty());
        }
        assert_eq!(numbers, [0, 1, 2].map(|seq| BatchId { generation: 4, seq }));
    }
}
