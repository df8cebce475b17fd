//! Unit tests of the comparison: each kind of fault is found, and nothing else.

use super::{
    comparison::{Comparison, Seen, Wanted},
    digest::Digest,
    fault::{Fault, FaultKind},
};

/// The record of event `n`, of the aggregate `n % 2`.
fn digest(n: u64) -> Digest {
    let headers = [("event_type", Some(&b"user.created"[..]))];
    Digest::of(&[n as u8 % 2], Some(&n.to_be_bytes()), headers.into_iter())
}

/// Expects events 0 to 5 in topic t, whose aggregate is also their partition.
fn expecting() -> Comparison {
    let mut comparison = Comparison::default();
    for n in 0..6 {
        let aggregate = if n % 2 == 0 { "even" } else { "odd" };
        comparison.expect(
            n,
            &Wanted {
                event_id: &format!("e{n}"),
                topic: "t",
                partition: n as i32 % 2,
                digest: digest(n),
                aggregate: ("number", aggregate),
            },
        );
    }
    comparison
}

fn record(n: u64) -> (String, Digest, bool) {
    (format!("e{n}"), digest(n), false)
}

/// Sees partition 0 with these records, and partition 1 as it should be.
fn audit(records: Vec<(String, Digest, bool)>) -> Vec<(FaultKind, String)> {
    let mut comparison = expecting();
    let topic = comparison.topic("t");
    let mut faults = Vec::new();
    for (partition, records) in [(0, records), (1, [1, 3, 5].map(record).to_vec())] {
        comparison.begin_partition();
        for (offset, (event_id, digest, is_resent)) in (0..).zip(&records) {
            let (digest, is_resent) = (*digest, *is_resent);
            let seen = Seen { event_id, partition, offset, digest, is_resent };
            faults.extend(comparison.see(topic, &seen));
        }
    }
    faults.extend(comparison.finish(|_| false, |id| id == "older").0);
    faults.into_iter().map(|Fault { kind, event_id, .. }| (kind, event_id)).collect()
}

fn fault(kind: FaultKind, event_id: &str) -> (FaultKind, String) {
    (kind, event_id.to_owned())
}

#[test]
fn a_clean_history_has_no_faults() {
    assert_eq!(audit([0, 2, 4].map(record).to_vec()), []);
}

#[test]
fn each_fault_is_found_once() {
    use FaultKind::*;
    assert_eq!(audit([0, 4].map(record).to_vec()), [fault(Lost, "e2")]);
    assert_eq!(audit([0, 2, 2, 4].map(record).to_vec()), [fault(Repeated, "e2")]);
    assert_eq!(audit([0, 4, 2].map(record).to_vec()), [fault(OutOfOrder, "e2")]);
    // A run that came again in order: repeated, and not out of order.
    let again = [fault(Repeated, "e0"), fault(Repeated, "e2")];
    assert_eq!(audit([0, 2, 0, 2, 4].map(record).to_vec()), again);
    let altered = |change: &dyn Fn(&mut Digest)| {
        let mut records = [0, 2, 4].map(record);
        change(&mut records[1].1);
        audit(records.to_vec())
    };
    assert_eq!(altered(&|digest| digest.key = 7), [fault(ChangedKey, "e2")]);
    assert_eq!(altered(&|digest| digest.value = 7), [fault(ChangedValue, "e2")]);
    assert_eq!(altered(&|digest| digest.headers = 7), [fault(ChangedHeaders, "e2")]);
    let mut foreign = [0, 2, 4].map(record).to_vec();
    foreign.push(("phantom".into(), digest(9), false));
    assert_eq!(audit(foreign.clone()), [fault(Unknown, "phantom")]);
    foreign[3].0 = "older".into();
    assert_eq!(audit(foreign), [], "its row is not of the selection");
}

#[test]
fn a_record_in_another_partition_is_found_there() {
    let mut records = [0, 2, 4].map(record).to_vec();
    records.insert(1, record(1));
    let found = audit(records);
    let wanted = [
        fault(FaultKind::WrongPartition, "e1"),
        // Its own record, which partition 1 has as well.
        fault(FaultKind::Repeated, "e1"),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_record_in_another_topic_is_found_there() {
    let mut comparison = expecting();
    let other = comparison.topic("other");
    let (event_id, digest, _) = record(2);
    let seen = Seen { event_id: &event_id, partition: 0, offset: 0, digest, is_resent: false };
    let faults = comparison.see(other, &seen);
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].kind, &*faults[0].detail), (FaultKind::WrongTopic, "expected in t"));
}

#[test]
fn what_is_sent_again_on_purpose_may_come_late_and_again() {
    let resent = |n| (format!("e{n}"), digest(n), true);
    let records = vec![record(0), record(4), resent(2), resent(0), resent(4)];
    assert_eq!(audit(records), []);
}

#[test]
fn a_dead_letter_is_not_lost() {
    let (faults, parked) = expecting().finish(|id| id == "e4", |_| true);
    assert_eq!((faults.len(), parked), (5, 1));
    assert!(faults.iter().all(|fault| fault.kind == FaultKind::Lost && fault.event_id != "e4"));
}

#[test]
fn marks_and_positions_are_not_compared() {
    let of = |headers: &[(&'static str, &'static str)]| {
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
        Digest::of(b"k", Some(b"v"), headers)
    };
    let plain = of(&[("event_id", "e"), ("a", "1")]);
    assert_eq!(
        of(&[("event_id", "e"), ("LSN", "0/1"), ("a", "1"), ("factlib_replay", "r")]),
        plain
    );
    assert_ne!(of(&[("event_id", "e"), ("a", "2")]), plain);
    assert_ne!(of(&[("event_id", "e")]), plain);
}
