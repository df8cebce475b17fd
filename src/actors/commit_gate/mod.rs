//! CommitGate: holds batches until standbys have flushed their commits, and sessions can see them.
//!
//! # Life
//! One for each reader, between it and the decoder, and only if there is something to wait for.
//! Positions without events pass through it too: a confirmed position that the next primary lacks
//! would hide what that primary writes there. A question is put to the server only while something
//! is held.
//!
//! # Backpressure
//! What it holds keeps its bytes of the window, so the reader stops at a full window.
//!
//! # Failure
//! A server that does not answer is asked again; until it answers, nothing passes. What is held is
//! dropped with the connection that it came from: the next reader reads it again.

mod held_commits;
mod pace;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient,
    WrapFuture,
};
use slog::{Logger, debug, info, warn};
use tokio::sync::oneshot;

use self::{
    held_commits::{GateNotice, HeldCommits, Verdict, Wait},
    pace::QuestionPace,
};
use crate::{
    Error, ErrorKind, Result,
    messages::{
        ActorKind, BatchDone, BatchId, CloseGate, ExitGuard, Stop, UntilReleased, WalBatch,
    },
    postgres::{
        commit_report::{CommitReport, CommitReporter, CommitRules},
        slot_reader::OwnBackend,
    },
    status::{ActorState, BlockedBy, Status},
};

/// The actor around [`HeldCommits`].
pub(crate) struct CommitGate {
    held: HeldCommits<Held>,
    held_bytes: usize,
    rules: CommitRules,
    reporter: Arc<CommitReporter>,
    /// The process whose server is asked.
    reader: Arc<OwnBackend>,
    pace: QuestionPace,
    /// A question is on its way, or the pause before it runs.
    asking: bool,
    emptied: Option<oneshot::Sender<()>>,
    decoder: Recipient<WalBatch>,
    done: Recipient<BatchDone>,
    status: Arc<Status>,
    log: Logger,
    _exit: ExitGuard,
}

/// What the reader sends.
enum Held {
    Batch(WalBatch),
    /// A position that needs no delivery, and the number of such positions right before it.
    Position(BatchDone, u64),
}

impl CommitGate {
    #[allow(clippy::too_many_arguments)] // One caller, the supervisor; each is a different thing.
    pub fn new(
        rules: CommitRules,
        timeout: Option<Duration>,
        reporter: CommitReporter,
        reader: Arc<OwnBackend>,
        decoder: Recipient<WalBatch>,
        done: Recipient<BatchDone>,
        status: Arc<Status>,
        log: Logger,
        exit: ExitGuard,
    ) -> Self {
        CommitGate {
            held: HeldCommits::new(rules.standbys.count(), timeout),
            held_bytes: 0,
            rules,
            reporter: Arc::new(reporter),
            reader,
            pace: QuestionPace::default(),
            asking: false,
            emptied: None,
            decoder,
            done,
            status,
            log,
            _exit: exit,
        }
    }

    fn ask(&mut self, ctx: &mut Context<Self>) {
        self.asking = true;
        let asked = self.held.asked();
        let (reporter, reader) = (Arc::clone(&self.reporter), self.reader.get());
        let asking = async move {
            match reader {
                Some(reader) => reporter.ask(&reader).await,
                None => {
                    let what = "the connection that is read has ended";
                    Err(Error::new(ErrorKind::PostgresUnavailable, what))
                }
            }
        };
        ctx.spawn(asking.into_actor(self).map(move |report, this, ctx| {
            this.answered(asked, report);
            if this.held.is_empty() {
                this.asking = false;
            } else {
                ctx.run_later(this.pace.pause(), Self::ask);
            }
        }));
    }

    fn answered(&mut self, asked: u64, report: Result<CommitReport>) {
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.unanswered(&error),
        };
        let Verdict { released, wait, notices } = self.held.report(asked, &report, Instant::now());
        for notice in notices {
            self.log_notice(notice, &report);
        }
        self.pace.answered(!released.is_empty());
        for held in released {
            self.send(held);
        }
        self.status.gate_holds(self.held_bytes);
        let blocked_by = wait.map(|wait| match wait {
            Wait::Report => BlockedBy::Postgres,
            Wait::Standby { .. } => BlockedBy::Standby,
            Wait::Visibility { .. } => BlockedBy::Visibility,
        });
        self.status.actor_waits(ActorKind::CommitGate.name(), blocked_by);
        self.status.gate_waits_for(wait.map(|wait| self.describe(wait, &report)));
        if self.held.is_empty()
            && let Some(emptied) = self.emptied.take()
        {
            // Whoever waits for it may have given up.
            let _ = emptied.send(());
        }
    }

    fn unanswered(&mut self, error: &Error) {
        debug!(self.log, "cannot ask which commits are safe"; "error" => %error);
        self.pace.answered(false);
        self.status.actor_waits(ActorKind::CommitGate.name(), Some(BlockedBy::Postgres));
        self.status.actor_complains(ActorKind::CommitGate.name(), error.to_string());
        self.status.gate_waits_for(Some(error.to_string()));
    }

    fn describe(&self, wait: Wait, report: &CommitReport) -> String {
        match wait {
            Wait::Report => "the end of an open transaction's commit".into(),
            Wait::Standby { place, lsn } => {
                let flushed = match report.standbys.get(place).copied().flatten() {
                    Some(flushed) => format!("it has {flushed}"),
                    None => "it is not connected".into(),
                };
                format!("{} to flush {lsn} ({flushed})", self.rules.standby(place))
            }
            Wait::Visibility { xid } => format!("transaction {xid} to be visible to others"),
        }
    }

    fn log_notice(&self, notice: GateNotice, report: &CommitReport) {
        let log = &self.log;
        match notice {
            GateNotice::LongWait(wait) => {
                warn!(log, "events wait for a long time"; "for" => self.describe(wait, report),
                "remedy" => match wait {
                    Wait::Standby { .. } => "bring the standby back, remove it from \
                        delivery.wait_for_standbys, or set delivery.standby_timeout",
                    _ => "do synchronous standbys answer? see pg_stat_replication",
                });
            }
            GateNotice::LongWaitOver => info!(log, "events wait no longer"),
            GateNotice::SetAside { place } => {
                warn!(log, "events go on without a standby: after a failover to it, kafka may have \
                    events that the database has not";
                    "standby" => self.rules.standby(place), "remedy" => "bring it back");
            }
            GateNotice::CaughtUp { place } => {
                info!(log, "a standby has caught up and is waited for again";
                    "standby" => self.rules.standby(place));
            }
        }
    }

    fn send(&mut self, held: Held) {
        match held {
            Held::Batch(batch) => {
                self.held_bytes = self.held_bytes.saturating_sub(batch.permit.bytes());
                self.decoder.do_send(batch);
            }
            Held::Position(done, before) => {
                for back in (1..=before).rev() {
                    let id = BatchId { seq: done.id.seq - back, ..done.id };
                    self.done.do_send(BatchDone { id, commit_end_lsn: None, events: 0 });
                }
                self.done.do_send(done);
            }
        }
    }

    fn ask_unless_asked(&mut self, ctx: &mut Context<Self>) {
        if !self.asking {
            self.pace.begins();
            self.ask(ctx);
        }
    }
}

impl Actor for CommitGate {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.status.actor_is(ActorKind::CommitGate.name(), ActorState::Running);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.status.gate_holds(0);
        self.status.gate_waits_for(None);
        self.status.actor_waits(ActorKind::CommitGate.name(), None);
    }
}

impl Handler<WalBatch> for CommitGate {
    type Result = ();

    fn handle(&mut self, batch: WalBatch, ctx: &mut Self::Context) {
        self.held_bytes += batch.permit.bytes();
        self.status.gate_holds(self.held_bytes);
        let (frames, end) = (batch.frames.clone(), batch.commit_end_lsn);
        self.held.hold_batch(Held::Batch(batch), &frames, end);
        self.ask_unless_asked(ctx);
    }
}

impl Handler<BatchDone> for CommitGate {
    type Result = ();

    fn handle(&mut self, done: BatchDone, ctx: &mut Self::Context) {
        let lsn = done.commit_end_lsn;
        match self.held.extend_position(lsn) {
            Some(Held::Position(last, before)) => {
                *last = done;
                *before += 1;
            }
            _ => self.held.hold_position(Held::Position(done, 0), lsn),
        }
        self.ask_unless_asked(ctx);
    }
}

impl Handler<CloseGate> for CommitGate {
    type Result = MessageResult<CloseGate>;

    fn handle(&mut self, _: CloseGate, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        MessageResult(())
    }
}

impl Handler<UntilReleased> for CommitGate {
    type Result = ();

    fn handle(&mut self, UntilReleased(reply): UntilReleased, _: &mut Self::Context) {
        match self.held.is_empty() {
            true => drop(reply.send(())),
            false => self.emptied = Some(reply),
        }
    }
}

impl Handler<Stop> for CommitGate {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
