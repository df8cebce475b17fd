//! What is held, and until when.

use proptest::prelude::*;

use super::*;
use crate::postgres::commit_report::Snapshot;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Messages of a transaction, as the server sends them.
mod wire {
    fn wal(start: u64, data: &[u8]) -> Vec<u8> {
        let body = [&b"w"[..], &start.to_be_bytes(), &[0; 16], data].concat();
        let length = u32::try_from(body.len() + 4).expect("small").to_be_bytes();
        [&b"d"[..], &length, &body].concat()
    }

    pub fn begin(xid: u32) -> Vec<u8> {
        wal(0, &[&b"B"[..], &[0; 16], &xid.to_be_bytes()].concat())
    }

    pub fn change(at: u64) -> Vec<u8> {
        wal(at, b"M")
    }

    pub fn commit(end: u64) -> Vec<u8> {
        let data = [&b"C\0"[..], &(end - 8).to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat();
        wal(end - 8, &data)
    }
}

fn report(flushed: &[u64]) -> CommitReport {
    let standbys = flushed.iter().map(|lsn| (*lsn > 0).then_some(Lsn::new(*lsn))).collect();
    CommitReport { wal_flushed: Lsn::new(1_000), standbys, snapshot: None }
}

/// Holds a transaction under its number.
fn hold(held: &mut HeldCommits<u32>, xid: u32, end: u64) {
    let frames = [wire::begin(xid), wire::change(end - 16), wire::commit(end)].concat();
    held.hold_batch(xid, &frames, Some(Lsn::new(end)));
}

fn released(verdict: Verdict<u32>) -> Vec<u32> {
    verdict.released
}

#[test]
fn a_commit_waits_until_every_standby_has_flushed_it() {
    let mut held = HeldCommits::new(2, None);
    hold(&mut held, 1, 100);
    hold(&mut held, 2, 200);
    let (asked, now) = (held.asked(), Instant::now());
    let verdict = held.report(asked, &report(&[99, 300]), now);
    let wait = Wait::Standby { place: 0, lsn: Lsn::new(100) };
    assert_eq!((verdict.released.len(), verdict.wait), (0, Some(wait)));
    let verdict = held.report(asked, &report(&[100, 100]), now);
    let wait = Wait::Standby { place: 0, lsn: Lsn::new(200) };
    assert_eq!((verdict.released, verdict.wait), (vec![1], Some(wait)));
    // One that is not connected has flushed nothing that we know of.
    assert!(released(held.report(asked, &report(&[200, 0]), now)).is_empty());
    let verdict = held.report(asked, &report(&[200, 200]), now);
    assert_eq!((verdict.released, verdict.wait, held.is_empty()), (vec![2], None, true));
}

#[test]
fn a_transaction_waits_until_a_snapshot_sees_it_and_so_do_those_behind_it() {
    let mut held = HeldCommits::new(0, None);
    for (xid, end) in [(10, 100), (12, 200), (11, 300)] {
        hold(&mut held, xid, end);
    }
    let now = Instant::now();
    let mut seen = |snapshot: &str| {
        let snapshot = Some(Snapshot::parse(snapshot).expect("a snapshot"));
        let report = CommitReport { snapshot, ..report(&[]) };
        let Verdict { released, wait, .. } = held.report(3, &report, now);
        (released, wait)
    };
    assert_eq!(seen("10:13:10,12"), (vec![], Some(Wait::Visibility { xid: 10 })));
    assert_eq!(seen("12:13:12"), (vec![10], Some(Wait::Visibility { xid: 12 })));
    assert_eq!(seen("13:13:"), (vec![12, 11], None));
}

#[test]
fn the_end_of_an_open_transaction_is_what_the_server_has_flushed_at_a_later_question() {
    let mut held = HeldCommits::new(1, None);
    let (asked, now) = (held.asked(), Instant::now());
    held.hold_batch(1, &[wire::begin(7), wire::change(50)].concat(), None);
    held.hold_batch(2, &wire::change(60), None);
    let verdict = held.report(asked, &report(&[2_000]), now);
    assert_eq!((verdict.released.len(), verdict.wait), (0, Some(Wait::Report)));
    let asked = held.asked();
    assert!(released(held.report(asked, &report(&[999]), now)).is_empty());
    assert_eq!(released(held.report(asked, &report(&[1_000]), now)), [1, 2]);
    // Its end is known with the commit.
    held.hold_batch(3, &wire::commit(90), Some(Lsn::new(90)));
    assert_eq!(released(held.report(0, &report(&[90]), now)), [3]);
}

#[test]
fn every_part_of_a_transaction_waits_until_it_is_visible() {
    let mut held = HeldCommits::new(0, None);
    held.hold_batch(1, &wire::begin(7), None);
    held.hold_batch(2, &wire::change(60), None);
    held.hold_batch(3, &wire::commit(90), Some(Lsn::new(90)));
    let snapshot = |text| CommitReport { snapshot: Snapshot::parse(text), ..report(&[]) };
    let (asked, now) = (held.asked(), Instant::now());
    assert!(released(held.report(asked, &snapshot("7:8:7"), now)).is_empty());
    let mut seen = held.report(asked, &snapshot("8:8:"), now);
    assert_eq!(std::mem::take(&mut seen.released), [1, 2, 3]);
    // What comes next has nothing to do with it.
    hold(&mut held, 8, 200);
    assert_eq!(released(held.report(4, &snapshot("9:9:"), now)), [8]);
}

#[test]
fn a_message_outside_of_transactions_waits_for_its_own_record() {
    let mut held = HeldCommits::new(1, None);
    let frames = [wire::begin(1), wire::commit(90), wire::change(120)].concat();
    held.hold_batch(1, &frames, Some(Lsn::new(90)));
    let now = Instant::now();
    assert!(released(held.report(1, &report(&[119]), now)).is_empty());
    assert_eq!(released(held.report(1, &report(&[120]), now)), [1]);
}

#[test]
fn positions_are_merged_unless_the_front_would_move() {
    let mut held = HeldCommits::new(1, None);
    let lsn = |lsn| Some(Lsn::new(lsn));
    assert!(held.extend_position(lsn(10)).is_none());
    held.hold_position(1, lsn(10));
    assert!(held.extend_position(lsn(20)).is_none(), "it is the front");
    held.hold_position(2, lsn(20));
    *held.extend_position(lsn(30)).expect("a position") = 3;
    hold(&mut held, 4, 40);
    assert!(held.extend_position(lsn(50)).is_none(), "a batch came after it");
    let now = Instant::now();
    assert_eq!(released(held.report(4, &report(&[29]), now)), [1]);
    assert_eq!(released(held.report(4, &report(&[40]), now)), [3, 4]);
}

#[test]
fn a_standby_that_stays_behind_is_set_aside_and_comes_back() {
    let mut held = HeldCommits::new(2, Some(TIMEOUT));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    hold(&mut held, 1, 100);
    // The time before the first report is not the standby's fault.
    let first = held.report(1, &report(&[100, 50]), at(100));
    assert!(first.released.is_empty() && first.notices.is_empty());
    let long = held.report(1, &report(&[100, 50]), at(110));
    let wait = Wait::Standby { place: 1, lsn: Lsn::new(100) };
    assert_eq!(long.notices, [GateNotice::LongWait(wait)]);
    assert!(held.report(1, &report(&[100, 50]), at(159)).notices.is_empty(), "it is said once");
    let gone = held.report(1, &report(&[100, 50]), at(160));
    assert_eq!(gone.released, [1]);
    assert_eq!(gone.notices, [GateNotice::SetAside { place: 1 }, GateNotice::LongWaitOver]);
    // Later commits don't wait for it at all, but still for the other one.
    hold(&mut held, 2, 200);
    assert!(released(held.report(2, &report(&[100, 0]), at(161))).is_empty());
    assert_eq!(released(held.report(2, &report(&[200, 0]), at(162))), [2]);
    // It has caught up when it is less than a second behind.
    hold(&mut held, 3, 300);
    let back = held.report(3, &report(&[300, 199]), at(164));
    assert_eq!((back.released, back.notices), (vec![3], vec![]));
    hold(&mut held, 4, 400);
    let back = held.report(4, &report(&[400, 300]), at(165));
    assert_eq!(back.notices, [GateNotice::CaughtUp { place: 1 }]);
    assert!(back.released.is_empty(), "it is waited for again");
    assert_eq!(released(held.report(4, &report(&[400, 400]), at(166))), [4]);
}

#[test]
fn without_a_timeout_it_waits() {
    let mut held = HeldCommits::new(1, None);
    hold(&mut held, 1, 100);
    let start = Instant::now();
    for hours in 0..100 {
        let now = start + Duration::from_secs(hours * 3_600);
        assert!(released(held.report(1, &report(&[99]), now)).is_empty());
    }
}

proptest! {
    /// Against the definition: what is released is the longest prefix in which every commit is
    /// flushed by all standbys and visible, in order.
    #[test]
    fn the_longest_safe_prefix_is_released(
        commits in prop::collection::vec(1..6_u64, 1..30),
        reports in prop::collection::vec((100..250_u64, 100..250_u64, prop::collection::vec(0..30_u32, 0..6)), 1..20),
    ) {
        let mut held = HeldCommits::new(2, None);
        let mut ends = Vec::new();
        for (xid, length) in commits.iter().enumerate() {
            let end = ends.last().copied().unwrap_or(100) + length;
            ends.push(end);
            let xid = u32::try_from(xid).expect("few");
            held.hold_batch(xid, &[wire::begin(xid), wire::commit(end)].concat(), Some(Lsn::new(end)));
        }
        let mut sent = Vec::new();
        for (a, b, running) in reports {
            let list: Vec<_> = running.iter().map(u32::to_string).collect();
            let text = format!("0:{}:{}", commits.len(), list.join(","));
            let standbys = vec![Some(Lsn::new(a)), Some(Lsn::new(b))];
            let report = CommitReport { standbys, snapshot: Snapshot::parse(&text), ..report(&[]) };
            let before = sent.len();
            sent.extend(released(held.report(u64::MAX, &report, Instant::now())));
            let safe = |xid: &usize| ends[*xid] <= a.min(b) && !running.contains(&(*xid as u32));
            let expected = (before..commits.len()).take_while(safe).count();
            prop_assert_eq!(sent.len() - before, expected);
        }
        let order: Vec<_> = (0..sent.len()).map(|xid| u32::try_from(xid).expect("few")).collect();
        prop_assert_eq!(sent, order);
    }
}
