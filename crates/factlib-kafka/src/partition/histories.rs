//! Random histories of a partition queue: no record is lost, none is duplicated within an epoch,
//! and first deliveries are in order. Deliberate mistakes prove that the histories find errors.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};

use super::{
    Answer, PartitionQueue,
    model::{Mutation, Record, Records, Rule, Step, World},
};

/// Default number of histories for each rule; `FACTLIB_KAFKA_HISTORIES` overrides it.
const HISTORIES: u32 = 10_000;

fn histories() -> u32 {
    let said = std::env::var("FACTLIB_KAFKA_HISTORIES").ok();
    said.map_or(HISTORIES, |said| said.parse().expect("FACTLIB_KAFKA_HISTORIES is a number"))
}

/// Returns histories; in some, refused records stop the queue.
fn steps(stops: bool) -> impl Strategy<Value = Vec<Step>> {
    let refusals = prop_oneof![3 => Just(0), 1 => any::<u8>()];
    let stopping = move || match stops {
        true => any::<u8>().boxed(),
        false => Just(0).boxed(),
    };
    let correcting = move |step: Step| Just(if stops { step } else { Step::Send });
    let step = prop_oneof![
        6 => (1..=4_u8, refusals, stopping())
            .prop_map(|(records, bad, stops)| Step::Push { records, bad, stops }),
        8 => Just(Step::Send),
        8 => Just(Step::Process),
        8 => Just(Step::Receive),
        2 => Just(Step::Break),
        3 => Just(Step::ProcessOld),
        2 => Just(Step::NotNow),
        2 => Just(Step::TimeOut),
        1 => Just(Step::LeaderMoves),
        1 => Just(Step::Forget),
        1 => (1..=4_u8).prop_map(Step::Limit),
        1 => correcting(Step::Correct),
        4 => correcting(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Returns the shortest history that breaks a promise, with the reason.
fn broken(rule: Rule, stops: bool, mutation: Option<Mutation>, cases: u32) -> Option<String> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&steps(stops), |steps| {
        let mut world = World::new(rule, mutation);
        steps.iter().for_each(|step| world.step(step));
        world.heal();
        world.judge().map_err(TestCaseError::fail)
    });
    match ran {
        Ok(()) => None,
        Err(TestError::Fail(why, steps)) => Some(format!("{rule:?}: {why}\n{steps:#?}")),
        Err(other) => Some(other.to_string()),
    }
}

#[test]
fn every_promise_holds_with_brokers_that_take_any_first_sequence() {
    assert_eq!(broken(Rule::TakesAny, false, None, histories()), None);
}

#[test]
fn every_promise_holds_with_brokers_that_want_zero_first() {
    assert_eq!(broken(Rule::WantsZero, false, None, histories()), None);
}

#[test]
fn a_refused_record_that_stops_holds_what_is_behind_it_and_nothing_else() {
    for rule in [Rule::TakesAny, Rule::WantsZero] {
        assert_eq!(broken(rule, true, None, histories()), None);
    }
}

#[test]
fn each_mistake_is_found() {
    for mutation in [
        Mutation::TwoAtTheStart,
        Mutation::RetryOutOfOrder,
        Mutation::SequenceAdvancedOnRefusal,
        Mutation::UnknownIsAcknowledged,
        Mutation::DuplicateIsFailure,
    ] {
        let found = broken(Rule::TakesAny, false, Some(mutation), 50_000);
        assert!(found.is_some(), "{mutation:?} breaks nothing");
    }
    for mutation in [Mutation::SendsBehindAStop, Mutation::DropsBeforeAStop] {
        let found = broken(Rule::TakesAny, true, Some(mutation), 50_000);
        assert!(found.is_some(), "{mutation:?} breaks nothing");
    }
}

#[test]
fn in_transactions_nothing_is_sent_behind_a_lost_sequence_until_there_is_another_epoch() {
    let record = |number| Record { number, is_bad: false, stops: false };
    let mut queue = PartitionQueue::in_transactions(3);
    queue.push(Records(vec![record(0)]));
    let token = queue.next_send().expect("the first").token;
    assert!(queue.answered(token, Answer::SequenceLost).is_empty());
    queue.push(Records(vec![record(1)]));
    assert!(queue.needs_producer_id() && queue.next_send().is_none());
    queue.restart(4);
    let sent = queue.next_send().expect("the first again");
    assert_eq!((sent.epoch, sent.base_sequence, sent.batch.0[0]), (4, 0, record(0)));
}
