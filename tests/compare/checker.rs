//! The checker finds what it is there to find.

use crate::comparison::{
    checker::{Emitted, Verdict, check},
    event::{self, AGGREGATES},
};

/// Ten events of each of the first two aggregates.
fn emitted() -> Emitted {
    let committed = (0..10).flat_map(|n| [n * AGGREGATES, n * AGGREGATES + 1]).collect();
    Emitted { committed, in_doubt: [10 * AGGREGATES].into() }
}

fn whole() -> Vec<u64> {
    emitted().committed.into_iter().collect()
}

#[test]
fn all_that_was_committed_once_and_in_order_is_sound() {
    let sound = Verdict { committed: 20, ..Verdict::default() };
    assert_eq!(check(&emitted(), whole()), sound);
    // Aggregates are on partitions of their own, which are read in any order.
    let (first, second): (Vec<u64>, _) = whole().into_iter().partition(|n| n % AGGREGATES == 0);
    assert_eq!(check(&emitted(), second.into_iter().chain(first)), sound);
}

#[test]
fn an_event_in_no_topic_is_lost() {
    let records = whole().into_iter().filter(|number| *number != 3 * AGGREGATES);
    assert_eq!(check(&emitted(), records).lost, 1);
}

#[test]
fn a_second_record_is_repeated_and_not_out_of_order() {
    let again = [2 * AGGREGATES, 3 * AGGREGATES, 2 * AGGREGATES];
    let verdict = check(&emitted(), whole().into_iter().chain(again));
    assert_eq!((verdict.repeated, verdict.out_of_order, verdict.lost), (3, 0, 0));
}

#[test]
fn a_first_record_after_a_later_events_is_out_of_order() {
    let late = 4 * AGGREGATES;
    let records = whole().into_iter().filter(|number| *number != late).chain([late]);
    let verdict = check(&emitted(), records);
    assert_eq!((verdict.out_of_order, verdict.repeated, verdict.lost), (1, 0, 0));
}

#[test]
fn an_event_in_doubt_may_be_there_and_another_may_not() {
    let verdict = check(&emitted(), whole().into_iter().chain([10 * AGGREGATES]));
    assert_eq!(verdict.foreign, 0);
    let verdict = check(&emitted(), whole().into_iter().chain([11 * AGGREGATES]));
    assert_eq!(verdict.foreign, 1);
}

#[test]
fn an_id_has_the_number_of_its_run() {
    let id = event::id(7, 1_234_567).to_string();
    assert_eq!(event::number(7, id.as_bytes()), Some(1_234_567));
    assert_eq!(event::number(7, format!("\"{id}\"").as_bytes()), Some(1_234_567));
    assert_eq!(event::number(8, id.as_bytes()), None);
    assert_eq!(event::number(7, b"order-1"), None);
}

#[test]
fn payloads_are_json_of_one_size() {
    for template in event::templates() {
        let parsed: serde_json::Value = serde_json::from_str(&template.payload).unwrap();
        assert!(parsed.is_object());
        assert_eq!(template.payload.len(), 300, "{}", template.payload);
    }
}
