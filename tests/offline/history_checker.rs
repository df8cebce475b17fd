//! The history checker against made-up histories, each wrong in one way.

use bytes::Bytes;
use factlib::{Lsn, emit::Fact, proto::OutboxEvent, testing::ConsumedRecord};
use prost::Message;

use crate::support::{
    History, Report,
    history::{Checker, java_partition},
};

const PREFIX: &str = "shop";
const PARTITIONS: i32 = 6;

/// Five facts of two aggregates, committed at 100, 200, …, and the records that they should become.
struct Made {
    history: History,
    records: Vec<ConsumedRecord>,
}

fn event(aggregate: &str, n: u64) -> OutboxEvent {
    let fact = Fact::new("order", aggregate, "order.changed").payload(format!("{n}"));
    let fact = fact.trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    fact.trace_metadata("tenant", "7").to_event().expect("valid")
}

fn record(event: &OutboxEvent, lsn: u64) -> ConsumedRecord {
    let mut record = ConsumedRecord::default();
    record.topic = format!("{PREFIX}.{}", event.aggregate_type);
    record.partition = java_partition(&event.aggregate_id, PARTITIONS);
    record.key = Some(event.aggregate_id.clone().into());
    record.value = Some(event.encode_to_vec().into());
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let trace = event.trace_info.as_ref().expect("a trace");
    record.headers = vec![
        ("event_id".into(), text(&event.id)),
        ("event_type".into(), text(&event.event_type)),
        ("LSN".into(), text(&Lsn::new(lsn).to_string())),
        ("trace_id".into(), text(&trace.trace_id)),
        ("span_id".into(), text(&trace.span_id)),
        ("tenant".into(), text("7")),
    ];
    record
}

fn made() -> Made {
    let mut history = History::default();
    let mut records = Vec::new();
    for (n, aggregate) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
        let (event, n) = (event(aggregate, n as u64), n as u64);
        history.committed(&event);
        history.committed_before(Lsn::new((n + 1) * 100));
        records.push(record(&event, n * 100 + 50));
    }
    Made { history, records }
}

impl Made {
    fn check(&self) -> Report {
        self.check_confirmed(Lsn::ZERO)
    }

    fn check_confirmed(&self, confirmed: Lsn) -> Report {
        let mut checker = Checker::new(&self.history, PREFIX, Some(PARTITIONS));
        checker.confirmed(confirmed);
        self.records.iter().for_each(|record| checker.record(record));
        checker.report()
    }
}

#[test]
fn a_run_that_kept_every_promise_is_clean() {
    let report = made().check_confirmed(Lsn::new(10_000));
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.emitted, report.delivered, report.duplicates), (5, 5, 0));
    assert_eq!(report.examples, [""; 0]);
}

#[test]
fn a_fact_that_never_came_is_lost() {
    let mut made = made();
    made.records.remove(3);
    let report = made.check();
    assert_eq!((report.lost, report.delivered, report.confirmed_too_far), (1, 4, 0), "{report}");
    assert!(!report.is_clean());
    assert!(report.to_string().contains("fact 1 of order \"b\""), "{report}");
}

#[test]
fn a_lost_fact_in_mid_aggregate_is_an_order_violation_too() {
    let mut made = made();
    made.records.remove(2);
    let report = made.check();
    assert_eq!((report.lost, report.order_violations), (1, 1), "{report}");
}

#[test]
fn a_fact_that_was_rolled_back_is_a_phantom() {
    let mut made = made();
    let event = event("a", 9);
    made.history.rolled_back(&event);
    made.records.push(record(&event, 900));
    let report = made.check();
    assert_eq!(report.phantom, 1);
    assert!(!report.is_clean() && report.to_string().contains("was rolled back"), "{report}");
}

#[test]
fn a_fact_that_a_failover_lost_is_a_phantom_and_leaves_no_gap() {
    let mut made = made();
    let ids = made.records.iter().map(|record| {
        let id = record.header("event_id").expect("an id");
        String::from_utf8_lossy(id).parse().expect("a UUID")
    });
    let surviving = ids.enumerate().filter(|(n, _)| *n != 2).map(|(_, id)| id).collect();
    assert_eq!(made.history.keep(&surviving), 1);
    let report = made.check();
    assert_eq!((report.phantom, report.lost, report.order_violations), (1, 0, 0), "{report}");
    made.records.remove(2);
    let report = made.check();
    assert!(report.is_clean() && report.emitted == 4, "{report}");
}

#[test]
fn a_record_that_nobody_emitted_is_a_phantom() {
    let mut made = made();
    made.records.push(record(&event("a", 9), 900));
    let report = made.check();
    assert!(report.phantom == 1 && report.to_string().contains("never emitted"), "{report}");
    let last = made.records.last_mut().expect("a record");
    last.headers.clear();
    assert_eq!(made.check().phantom, 1, "one without an id is a phantom as well");
}

#[test]
fn duplicates_are_counted_by_their_id_and_break_no_other_promise() {
    let mut made = made();
    let again: Vec<_> = made.records[1..4].to_vec();
    made.records.extend(again.clone());
    made.records.extend(again);
    let report = made.check();
    assert_eq!((report.duplicates, report.delivered), (6, 5));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_copy_with_another_id_is_a_phantom_and_no_duplicate() {
    let mut made = made();
    let mut copy = made.records[0].clone();
    copy.headers[0].1 = uuid::Uuid::now_v7().to_string().into();
    made.records.push(copy);
    let report = made.check();
    assert_eq!((report.duplicates, report.phantom), (0, 1), "{report}");
}

#[test]
fn first_deliveries_out_of_order_are_a_violation() {
    let mut made = made();
    made.records.swap(0, 2);
    let report = made.check();
    assert_eq!(report.order_violations, 1, "{report}");
    assert!(!report.is_clean());
}

#[test]
fn a_redelivery_that_goes_back_is_no_violation() {
    let mut made = made();
    // a0 b0 a1 b1 a2, and then a0 a1 a2 once more: what a crash repeats.
    let again = [0, 2, 4].map(|n| made.records[n].clone());
    made.records.extend(again);
    let report = made.check();
    assert!(report.is_clean() && report.duplicates == 3, "{report}");
    // Order holds per aggregate, so aggregates may overtake each other.
    made.records.swap(0, 1);
    assert!(made.check().is_clean());
}

#[test]
fn whatever_was_altered_is_named() {
    type Alter = fn(&mut ConsumedRecord);
    let alter: [(&str, Alter); 9] = [
        ("topic", |record| record.topic = "shop.user".into()),
        ("key", |record| record.key = Some("c".into())),
        ("key", |record| record.key = None),
        ("partition", |record| record.partition = (record.partition + 1) % PARTITIONS),
        ("value", |record| record.value = Some("other".into())),
        ("headers", |record| record.headers[1].1 = "order.deleted".into()),
        ("headers", |record| record.headers.truncate(5)),
        ("LSN header", |record| _ = record.headers.remove(2)),
        ("LSN header", |record| record.headers[2].1 = "0/FFFF".into()),
    ];
    for (what, alter) in alter {
        let mut made = made();
        alter(&mut made.records[0]);
        let report = made.check();
        let text = report.to_string();
        assert!(report.altered == 1 && text.contains(&format!("altered: {what} of")), "{text}");
        assert!(!report.is_clean());
    }
}

#[test]
fn a_position_that_was_confirmed_before_a_fact_came_is_too_far() {
    let mut made = made();
    // b1, committed before 400.
    made.records.remove(3);
    let report = made.check_confirmed(Lsn::new(399));
    assert_eq!((report.lost, report.confirmed_too_far), (1, 0), "{report}");
    let report = made.check_confirmed(Lsn::new(400));
    assert_eq!((report.lost, report.confirmed_too_far), (1, 1), "{report}");
    assert!(report.to_string().contains("confirmed up to 0/190"), "{report}");
}

#[test]
fn histories_of_several_emitters_are_one() {
    let (mut one, two) = (made(), {
        let mut history = History::default();
        let event = event("c", 0);
        history.committed(&event);
        Made { history, records: vec![record(&event, 10)] }
    });
    one.history.merge(two.history);
    assert_eq!(one.check().lost, 1);
    one.records.extend(two.records);
    let report = one.check();
    assert!(report.is_clean() && report.emitted == 6, "{report}");
}
