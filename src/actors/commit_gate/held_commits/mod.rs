//! Holds what was read until standbys have flushed it and other sessions can see it: a plain struct,
//! under the [`CommitGate`].
//!
//! [`CommitGate`]: super::CommitGate

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use factlib_postgres::{
    frame::{self, Frame},
    pgoutput,
};

use crate::{Lsn, postgres::commit_report::CommitReport};

/// Time from which on a wait for a standby is worth a line in the log.
const LONG_WAIT: Duration = Duration::from_secs(10);
/// A standby that is less than this behind has caught up; on a slow network, it is always behind.
const CAUGHT_UP: Duration = Duration::from_secs(1);

/// The queue, in the order of the WAL. `T` is what is held.
///
/// It decides by reports of the server. A report says what is the case, whenever it was asked for;
/// only [`asked`](Self::asked) has to be called when the question is put.
pub(super) struct HeldCommits<T> {
    queue: VecDeque<Entry<T>>,
    /// Number of the next entry.
    next: u64,
    /// The transaction that the last batch ends inside of.
    open: Option<u32>,
    /// Standbys that are not waited for, by place.
    set_aside: Vec<bool>,
    timeout: Option<Duration>,
    /// End of what was released.
    released: Lsn,
    /// `released` within the last second, or at the last report: who has this has caught up.
    recent: Option<(Lsn, Instant)>,
    /// The present front, and when a report first left it there.
    front: Option<(u64, Instant)>,
    /// A wait of this front was reported as long.
    long: bool,
}

struct Entry<T> {
    what: T,
    number: u64,
    /// Its commits end at or before this position.
    end: Lsn,
    /// True if `end` is known: inside of a transaction, the end of its commit record is not.
    is_bounded: bool,
    /// The transactions in it.
    xids: Vec<u32>,
    /// A position that needs no delivery.
    is_position: bool,
}

/// The condition that the front of the queue waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The next report, which bounds the end of an open transaction.
    Report,
    /// The standby at this place has to flush up to a position.
    Standby { place: usize, lsn: Lsn },
    /// A transaction has to be visible to other sessions.
    Visibility { xid: u32 },
}

/// A change that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateNotice {
    LongWait(Wait),
    LongWaitOver,
    SetAside { place: usize },
    CaughtUp { place: usize },
}

/// The outcome of a report.
pub(super) struct Verdict<T> {
    /// What may be sent on, in order.
    pub released: Vec<T>,
    /// None if nothing is held any more.
    pub wait: Option<Wait>,
    pub notices: Vec<GateNotice>,
}

impl<T> HeldCommits<T> {
    /// A queue that waits for `standbys` standbys, each at most `timeout` once it is behind.
    pub fn new(standbys: usize, timeout: Option<Duration>) -> Self {
        HeldCommits {
            queue: VecDeque::new(),
            next: 0,
            open: None,
            set_aside: vec![false; standbys],
            timeout,
            released: Lsn::ZERO,
            recent: None,
            front: None,
            long: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Holds a position that needs no delivery.
    pub fn hold_position(&mut self, what: T, lsn: Option<Lsn>) {
        self.push(what, lsn.unwrap_or(Lsn::ZERO), Vec::new(), true);
    }

    /// Moves the last position that is held to `lsn`, and returns it. None if a batch came after it,
    /// or if it is the front: whoever waits for a position that moves may wait for ever.
    pub fn extend_position(&mut self, lsn: Option<Lsn>) -> Option<&mut T> {
        let is_front = self.queue.len() < 2;
        let last = self.queue.back_mut().filter(|last| last.is_position && !is_front)?;
        last.end = last.end.max(lsn.unwrap_or(Lsn::ZERO));
        Some(&mut last.what)
    }

    /// Holds a batch with these messages; `end` is the end of its last transaction, if one ends in it.
    pub fn hold_batch(&mut self, what: T, mut frames: &[u8], end: Option<Lsn>) {
        let mut end = end.unwrap_or(Lsn::ZERO);
        let mut xids: Vec<u32> = self.open.into_iter().collect();
        // The decoder reports bytes that are no messages.
        while let Ok(Some((frame, length))) = frame::next_frame(frames) {
            if let Frame::XLogData(wal) = frame {
                // A message outside of transactions has the end of its record.
                end = end.max(wal.wal_start);
                if let Some(xid) = pgoutput::begin_xid(wal.data) {
                    xids.push(xid);
                    self.open = Some(xid);
                } else if pgoutput::commit_end_lsn(wal.data).is_some() {
                    self.open = None;
                }
            }
            frames = frames.get(length..).unwrap_or_default();
        }
        self.push(what, end, xids, false);
    }

    fn push(&mut self, what: T, end: Lsn, xids: Vec<u32>, is_position: bool) {
        let (number, is_bounded) = (self.next, is_position || self.open.is_none());
        self.queue.push_back(Entry { what, number, end, is_bounded, xids, is_position });
        self.next += 1;
    }

    /// Returns the mark of a question that is put now.
    pub fn asked(&self) -> u64 {
        self.next
    }

    /// Takes in the report on the question with this mark.
    pub fn report(&mut self, asked: u64, report: &CommitReport, now: Instant) -> Verdict<T> {
        // The server sends only what it has flushed.
        for entry in self.queue.iter_mut().filter(|e| !e.is_bounded && e.number < asked) {
            entry.end = entry.end.max(report.wal_flushed);
            entry.is_bounded = true;
        }
        let mut verdict = Verdict { released: Vec::new(), wait: None, notices: Vec::new() };
        self.end_set_aside(report, &mut verdict.notices);
        while let Some(front) = self.queue.front() {
            if self.front.is_none_or(|(number, _)| number != front.number) {
                self.front = Some((front.number, now));
            }
            match self.wait_of(front, report) {
                Some(Wait::Standby { place, .. }) if self.is_too_long(now) => {
                    if let Some(set_aside) = self.set_aside.get_mut(place) {
                        *set_aside = true;
                    }
                    verdict.notices.push(GateNotice::SetAside { place });
                }
                Some(wait) => {
                    verdict.wait = Some(wait);
                    break;
                }
                None => {
                    self.released = self.released.max(front.end);
                    verdict.released.extend(self.queue.pop_front().map(|entry| entry.what));
                }
            }
        }
        self.note_released(now);
        self.report_long_wait(&mut verdict, now);
        verdict
    }

    fn wait_of(&self, entry: &Entry<T>, report: &CommitReport) -> Option<Wait> {
        if !entry.is_bounded {
            return Some(Wait::Report);
        }
        let lsn = entry.end;
        let behind = |(place, set_aside): (usize, &bool)| {
            (!set_aside && !report.has_flushed(place, lsn)).then_some(place)
        };
        if let Some(place) = self.set_aside.iter().enumerate().find_map(behind) {
            return Some(Wait::Standby { place, lsn });
        }
        let mut xids = entry.xids.iter().copied();
        xids.find(|xid| !report.is_visible(*xid)).map(|xid| Wait::Visibility { xid })
    }

    fn is_too_long(&self, now: Instant) -> bool {
        let waited = self.front.map(|(_, since)| now.saturating_duration_since(since));
        self.timeout.zip(waited).is_some_and(|(timeout, waited)| waited >= timeout)
    }

    /// Waits again for standbys that have caught up.
    fn end_set_aside(&mut self, report: &CommitReport, notices: &mut Vec<GateNotice>) {
        let Some((end, _)) = self.recent else { return };
        for (place, set_aside) in self.set_aside.iter_mut().enumerate() {
            if *set_aside && report.has_flushed(place, end) {
                *set_aside = false;
                notices.push(GateNotice::CaughtUp { place });
            }
        }
    }

    /// Notes what was released, from time to time, while a standby is set aside.
    fn note_released(&mut self, now: Instant) {
        let is_recent = |(_, at): &(Lsn, Instant)| now.saturating_duration_since(*at) < CAUGHT_UP;
        if !self.set_aside.contains(&true) {
            self.recent = None;
        } else if !self.recent.as_ref().is_some_and(is_recent) {
            self.recent = Some((self.released, now));
        }
    }

    fn report_long_wait(&mut self, verdict: &mut Verdict<T>, now: Instant) {
        let is_long = self
            .front
            .filter(|_| verdict.wait.is_some())
            .is_some_and(|(_, since)| now.saturating_duration_since(since) >= LONG_WAIT);
        if is_long != self.long {
            self.long = is_long;
            verdict.notices.push(match verdict.wait.filter(|_| is_long) {
                Some(wait) => GateNotice::LongWait(wait),
                None => GateNotice::LongWaitOver,
            });
        }
    }
}

#[cfg(test)]
mod tests;
