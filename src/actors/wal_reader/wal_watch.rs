//! WalWatch: warns when the server has to keep too much WAL for us.
//!
//! # Life
//! One for the pipeline's life. It asks the server now and then, also while the pipeline is idle,
//! because a server that does not send WAL looks idle too. While nothing is read, it asks only if
//! something waits.
//!
//! # Failure
//! A server that does not answer is asked again the next time; that it is away,
//! the reader says.

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use bytesize::ByteSize;
use slog::{Logger, debug, info, warn};

use crate::{
    Lsn,
    messages::Stop,
    postgres::{
        Reconnecting,
        retention::{OpenTransaction, Retention},
    },
    status::{PipelineState, PipelineStatus, Status},
};

/// Well below the time in which a disk fills up, and no load.
const INTERVAL: Duration = Duration::from_secs(5);

/// The actor around [`Judge`].
pub(crate) struct WalWatch {
    judge: Judge,
    slot: String,
    server: Arc<Reconnecting>,
    /// The position received by the last check.
    seen: Lsn,
    asking: bool,
    status: Arc<Status>,
    log: Logger,
}

impl WalWatch {
    /// Warns from `limit` bytes on.
    pub fn new(
        limit: ByteSize,
        slot: String,
        server: Reconnecting,
        status: Arc<Status>,
        log: Logger,
    ) -> Self {
        let (judge, server) = (Judge { limit: limit.as_u64(), warned: None }, Arc::new(server));
        WalWatch { judge, slot, server, seen: Lsn::ZERO, asking: false, status, log }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        let status = self.status.snapshot();
        let moved = std::mem::replace(&mut self.seen, status.received_lsn) != status.received_lsn;
        // What was said of the slot's end must not outlast its reason.
        let waits = status.state == PipelineState::Running
            || moved
            || status.in_flight_bytes > 0
            || self.judge.warned.is_some()
            || status.slot_lost_in_seconds.is_some();
        if self.asking || status.state == PipelineState::Starting || !waits {
            return;
        }
        self.asking = true;
        let (server, slot) = (Arc::clone(&self.server), self.slot.clone());
        // Who is to blame is asked only of much WAL.
        let much = self.judge.limit / 2;
        let asking = async move { Retention::read(&server, &slot, much).await };
        ctx.spawn(asking.into_actor(self).map(|retention, this, _| {
            this.asking = false;
            match retention {
                Ok(Some(retention)) => this.report(retention),
                // Whoever reads the slot says so.
                Ok(None) => {}
                Err(error) => {
                    debug!(this.log, "cannot check the retained WAL"; "error" => %error);
                    this.status.actor_complains("wal_watch", error.to_string());
                }
            }
        }));
    }

    fn report(&mut self, retention: Retention) {
        let bytes = retention.bytes();
        let cause = Cause::of(&retention, &self.status.snapshot());
        let notice = self.judge.judge(bytes);
        let waits_for = self.judge.warned.map(|_| cause.what.clone());
        // First: who reads the log may look at the status.
        self.status.retained_wal(retention.clone(), waits_for);
        match notice {
            Some(Notice::HeldBack) => {
                warn!(self.log, "the server keeps much WAL for the slot"; "slot" => &self.slot,
                    "retained_bytes" => bytes, "waits_for" => &cause.what, "remedy" => &cause.remedy,
                    "wal_status" => &retention.wal_status,
                    "safe_wal_size" => retention.safe_wal_size);
            }
            Some(Notice::Over) => {
                info!(self.log, "the server keeps little WAL for the slot again";
                    "slot" => &self.slot, "retained_bytes" => bytes);
            }
            None => {}
        }
    }
}

impl Actor for WalWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(INTERVAL, Self::check);
    }
}

impl Handler<Stop> for WalWatch {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Decides what is logged: the crossing of the limit, each doubling, the end.
struct Judge {
    limit: u64,
    /// Bytes retained at the last warning; none below the limit.
    warned: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Notice {
    HeldBack,
    Over,
}

impl Judge {
    fn judge(&mut self, bytes: u64) -> Option<Notice> {
        match self.warned {
            None if bytes < self.limit => None,
            Some(warned) if bytes / 2 < warned => {
                // The server frees WAL in strides: at the limit, it would be over and again.
                (bytes < self.limit / 2).then(|| {
                    self.warned = None;
                    Notice::Over
                })
            }
            _ => {
                self.warned = Some(bytes);
                Some(Notice::HeldBack)
            }
        }
    }
}

/// The reason why WAL is retained, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Cause {
    what: String,
    remedy: String,
}

impl Cause {
    fn of(retention: &Retention, status: &PipelineStatus) -> Self {
        let cause = |what: String, remedy: &str| Cause { what, remedy: remedy.into() };
        let undelivered = retention.wal_end.distance_from(retention.confirmed);
        if undelivered < retention.bytes() / 2 {
            return match &retention.oldest {
                Some(transaction) => Cause::open(transaction),
                None => cause(
                    "the server's next look at what the slot needs".into(),
                    "it looks every 15 s; CHECKPOINT then frees the files",
                ),
            };
        }
        match &status.state {
            PipelineState::Retrying { error } | PipelineState::StandingBy { error } => {
                cause(error.clone(), "nothing is read meanwhile: remove what the error names")
            }
            _ if status.gate_waits_for.is_some() => cause(
                status.undelivered(),
                "nothing behind it can be confirmed: see to the standby, or set \
                 delivery.standby_timeout",
            ),
            _ if status.in_flight_bytes > 0 => cause(
                status.undelivered(),
                "nothing behind it can be confirmed: see to what the topic or the brokers lack",
            ),
            _ => cause("what is not read yet".into(), "none, where it gets less"),
        }
    }

    fn open(transaction: &OpenTransaction) -> Self {
        let OpenTransaction { xid, owner, since, ending } = transaction;
        let since = since.as_deref().unwrap_or("a time that only pg_read_all_stats may see");
        Cause {
            what: format!("the open transaction {xid} ({owner}, since {since})"),
            remedy: format!("end it: {ending}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::ByteWindow;

    #[test]
    fn it_warns_at_the_limit_and_at_each_doubling_and_says_once_that_it_is_over() {
        let mut judge = Judge { limit: 100, warned: None };
        let mut words = Vec::new();
        for bytes in [0, 99, 100, 150, 199, 200, 399, 90, 50, 450, 49, 0, 100] {
            if let Some(word) = judge.judge(bytes) {
                words.push((bytes, word));
            }
        }
        use Notice::{HeldBack, Over};
        let said = [(100, HeldBack), (200, HeldBack), (450, HeldBack), (49, Over), (100, HeldBack)];
        assert_eq!(words, said);
    }

    fn retention(confirmed: u64) -> Retention {
        let oldest = OpenTransaction {
            xid: "744".into(),
            owner: "pid 7".into(),
            since: None,
            ending: "SELECT pg_terminate_backend(7)".into(),
        };
        Retention {
            wal_end: Lsn::new(1_000),
            restart: Lsn::new(200),
            confirmed: Lsn::new(confirmed),
            oldest: Some(oldest),
            ..Retention::default()
        }
    }

    #[test]
    fn the_cause_is_on_the_side_that_holds_back_more() {
        let window = ByteWindow::new(100);
        let status = Status::new(window.clone());
        let cause = |confirmed| {
            let Cause { what, remedy } = Cause::of(&retention(confirmed), &status.snapshot());
            format!("{what} ({remedy})")
        };
        let open = "the open transaction 744 (pid 7, since a time that only pg_read_all_stats may \
                    see) (end it: SELECT pg_terminate_backend(7))";
        assert_eq!(cause(900), open);
        assert_eq!(cause(300), "what is not read yet (none, where it gets less)");
        status.set_state(PipelineState::Retrying { error: "no route".into() });
        let retrying = "no route (nothing is read meanwhile: remove what the error names)";
        assert_eq!(cause(300), retrying);
        status.set_state(PipelineState::Running);
        let _permit = window.try_acquire(1).expect("room");
        status.waits(&"shop.user".into(), 3);
        let waiting = "topic shop.user (not open), undelivered events: 3 (nothing behind it can be \
                       confirmed: see to what the topic or the brokers lack)";
        assert_eq!(cause(300), waiting);
        assert_eq!(cause(900), open);
        let closed = Retention { oldest: None, ..retention(900) };
        let Cause { what, remedy } = Cause::of(&closed, &status.snapshot());
        assert_eq!(what, "the server's next look at what the slot needs");
        assert_eq!(remedy, "it looks every 15 s; CHECKPOINT then frees the files");
    }

    #[test]
    fn an_invalidated_slot_keeps_nothing() {
        let retention = Retention { restart: Lsn::ZERO, ..retention(300) };
        assert_eq!(retention.bytes(), 0);
    }
}
