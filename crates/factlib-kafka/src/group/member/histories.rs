//! Random histories of a group: no piece of work has two members, and in the end all of it is shared.
//! Deliberate mistakes prove that the histories find errors.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};

use super::model::{Mutation, Step, World};

/// Default number of histories; `FACTLIB_KAFKA_HISTORIES` overrides it.
const HISTORIES: u32 = 500;

fn histories() -> u32 {
    let said = std::env::var("FACTLIB_KAFKA_HISTORIES").ok();
    said.map_or(HISTORIES, |said| said.parse().expect("FACTLIB_KAFKA_HISTORIES is a number"))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..12_u8).prop_map(Step::Pass),
        1 => (60..90_u8).prop_map(Step::Pass),
        40 => any::<u8>().prop_map(Step::Process),
        40 => any::<u8>().prop_map(Step::Receive),
        2 => any::<u8>().prop_map(Step::Break),
        1 => any::<u8>().prop_map(Step::Sleep),
        4 => any::<u8>().prop_map(Step::Wake),
        1 => any::<u8>().prop_map(Step::Crash),
        1 => any::<u8>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::LetGo),
        4 => any::<u8>().prop_map(Step::Wish),
        1 => Just(Step::Move),
    ];
    prop::collection::vec(step, 1..300)
}

/// Returns a history that breaks a promise, with the reason.
fn broken(mutation: Option<Mutation>, cases: u32) -> Option<String> {
    // A mistake that is expected need not be found in its shortest history.
    let max_shrink_iters = if mutation.is_some() { 0 } else { u32::MAX };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&steps(), |steps| {
        let mut world = World::new(mutation);
        steps.iter().for_each(|step| world.step(step));
        world.heal();
        world.judge().map_err(TestCaseError::fail)
    });
    match ran {
        Ok(()) => None,
        Err(TestError::Fail(why, steps)) => Some(format!("{why}: {steps:#?}")),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn no_work_has_two_members_and_all_of_it_is_shared_in_the_end() {
    if let Some(history) = broken(None, histories()) {
        panic!("{history}");
    }
}

fn assert_found(mutation: Mutation) {
    assert!(broken(Some(mutation), HISTORIES * 20).is_some(), "{mutation:?}");
}

#[test]
fn the_histories_find_each_mistake() {
    assert_found(Mutation::ShortSession);
    assert_found(Mutation::GivesAwayAtOnce);
    assert_found(Mutation::ForgetsAssigned);
}

#[test]
#[ignore = "takes half a minute: few histories have two rounds before the work is let go"]
fn the_histories_find_a_caller_that_takes_up_work_silently() {
    assert_found(Mutation::TakesUpSilently);
}
