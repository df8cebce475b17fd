//! Single steps of a membership.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::error::Code;

const SECOND: Duration = Duration::from_secs(1);

fn error(code: Code) -> Error {
    Error::Broker { what: "it fails".into(), code, message: None }
}

fn gone() -> Error {
    Error::TimedOut { address: "kafka:9092".into(), request: "Heartbeat" }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A member with a session of six seconds, and a clock.
struct Scene {
    now: Instant,
    member: Member,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings::new(Vec::new());
        let mut group = GroupSettings::new("fleet", "test");
        group.session_timeout = SECOND * 6;
        // All members get the metadata of the first one.
        let assign: Assign = Arc::new(|members| {
            let all = members.iter().map(|m| (m.id.clone(), members[0].metadata.clone()));
            all.collect::<BTreeMap<_, _>>()
        });
        let member = Member::new(now, &settings, Arc::new(group), bytes("first"), assign);
        Scene { now, member }
    }

    fn settled() -> Self {
        let mut scene = Scene::new();
        scene.round(1);
        assert!(matches!(scene.event(), Some(GroupEvent::Assigned { generation: 1, .. })));
        scene
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.member.tick(self.now);
    }

    /// The metadata of the JoinGroup that is sent now.
    fn join(&mut self) -> (Bytes, Bytes) {
        match self.member.next_round(self.now) {
            Some(RoundRequest::Join { metadata, .. }) => envelope::unpack(&metadata),
            other => panic!("no JoinGroup: {other:?}"),
        }
    }

    fn joined(&mut self, generation: i32) {
        let one = GroupMember { id: "m".into(), metadata: bytes("work"), assigned: Bytes::new() };
        self.member.joined(
            self.now,
            Ok(Joined::Generation {
                id: "m".into(),
                generation,
                is_leader: true,
                members: vec![one],
            }),
        );
    }

    fn sync(&mut self) -> Vec<(String, Bytes)> {
        match self.member.next_round(self.now) {
            Some(RoundRequest::Sync { assignments, .. }) => assignments,
            other => panic!("no SyncGroup: {other:?}"),
        }
    }

    /// A whole round, with the assignment `work`.
    fn round(&mut self, generation: i32) {
        self.join();
        self.joined(generation);
        let assignments = self.sync();
        assert_eq!(assignments, [("m".to_owned(), bytes("work"))]);
        self.member.synced(self.now, Ok(assignments[0].1.clone()));
    }

    fn beat(&mut self, answer: Result<()>) {
        assert!(self.member.next_heartbeat(self.now).is_some(), "a heartbeat is due");
        self.member.heartbeat_answered(self.now, answer);
    }

    fn event(&mut self) -> Option<GroupEvent> {
        let mut events = self.member.take_events();
        assert!(events.len() <= 1, "{events:?}");
        events.pop()
    }

    fn has_lost(&mut self) -> bool {
        matches!(self.event(), Some(GroupEvent::Lost { .. }))
    }
}

#[test]
fn a_member_joins_with_the_id_that_it_is_given() {
    let mut scene = Scene::new();
    scene.join();
    scene.member.joined(scene.now, Ok(Joined::IdAssigned("m".into())));
    match scene.member.next_round(scene.now) {
        Some(RoundRequest::Join { id, .. }) => assert_eq!(id, "m"),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.member.id().as_deref(), Some("m"));
}

#[test]
fn a_member_that_hears_of_a_round_joins_it_at_once_and_keeps_its_work() {
    let mut scene = Scene::settled();
    scene.pass(SECOND);
    scene.member.update(bytes("newest"));
    assert_eq!(scene.member.next_round(scene.now), None, "an update starts no round");
    scene.beat(Err(error(Code::RebalanceInProgress)));
    assert_eq!(scene.join(), (bytes("newest"), bytes("work")));
    assert!(scene.event().is_none());
}

#[test]
fn a_rejoin_during_a_round_is_not_lost_and_several_become_one() {
    let mut scene = Scene::new();
    scene.join();
    scene.member.rejoin(bytes("second"));
    scene.member.rejoin(bytes("third"));
    scene.joined(1);
    scene.sync();
    scene.member.synced(scene.now, Ok(bytes("work")));
    assert!(matches!(scene.event(), Some(GroupEvent::Assigned { .. })));
    assert_eq!(scene.join().0, bytes("third"));
    scene.joined(2);
    scene.sync();
    scene.member.synced(scene.now, Ok(bytes("work")));
    assert_eq!(scene.member.next_round(scene.now), None);
}

#[test]
fn heartbeats_that_are_answered_during_a_round_keep_the_session() {
    let mut scene = Scene::settled();
    scene.member.rejoin(bytes("changed"));
    scene.join();
    for _ in 0..20 {
        scene.pass(SECOND);
        scene.beat(Err(error(Code::RebalanceInProgress)));
        assert_eq!(scene.member.next_round(scene.now), None, "one JoinGroup is enough");
    }
    assert!(scene.event().is_none());
}

#[test]
fn the_session_ends_once_when_no_heartbeat_is_answered() {
    let mut scene = Scene::settled();
    scene.pass(SECOND);
    assert!(scene.member.next_heartbeat(scene.now).is_some());
    scene.pass(SECOND * 5 - Duration::from_millis(1));
    assert!(scene.event().is_none());
    scene.pass(Duration::from_millis(1));
    assert!(scene.has_lost());
    assert!(scene.member.take_lost_coordinator());
    // The answer that comes at last changes nothing.
    scene.member.heartbeat_answered(scene.now, Ok(()));
    assert_eq!(scene.join().1, Bytes::new(), "the assignment is lost");
    scene.pass(SECOND * 60);
    assert!(scene.event().is_none());
}

#[test]
fn the_session_counts_from_the_time_at_which_a_heartbeat_was_sent() {
    let mut scene = Scene::settled();
    scene.pass(SECOND);
    assert!(scene.member.next_heartbeat(scene.now).is_some());
    scene.pass(SECOND * 4);
    scene.member.heartbeat_answered(scene.now, Ok(()));
    scene.pass(Duration::from_millis(1_999));
    assert!(scene.event().is_none());
    scene.pass(Duration::from_millis(1));
    assert!(scene.has_lost());
}

#[test]
fn a_process_that_was_paused_loses_its_work_before_it_hears_anything() {
    let mut scene = Scene::settled();
    scene.pass(SECOND);
    assert!(scene.member.next_heartbeat(scene.now).is_some());
    scene.now += SECOND * 60;
    // The answer came before the pause and is read after it.
    scene.member.heartbeat_answered(scene.now, Ok(()));
    scene.pass(Duration::ZERO);
    assert!(scene.has_lost());
}

#[test]
fn a_member_that_the_group_has_given_up_loses_its_work_and_its_id() {
    for code in [Code::UnknownMemberId, Code::FencedInstanceId] {
        let mut scene = Scene::settled();
        scene.pass(SECOND);
        scene.beat(Err(error(code)));
        assert!(scene.has_lost());
        assert!(scene.member.id().is_none());
        scene.pass(SECOND);
        assert_eq!(scene.join().1, Bytes::new());
        assert!(scene.member.next_heartbeat(scene.now).is_none());
    }
}

#[test]
fn a_generation_that_has_passed_is_a_loss_only_for_a_settled_member() {
    let mut scene = Scene::settled();
    scene.pass(SECOND);
    scene.beat(Err(error(Code::IllegalGeneration)));
    assert!(scene.has_lost());
    assert_eq!(scene.member.id().as_deref(), Some("m"));

    let mut scene = Scene::settled();
    scene.member.rejoin(bytes("changed"));
    scene.join();
    scene.pass(SECOND);
    scene.beat(Err(error(Code::IllegalGeneration)));
    assert!(scene.event().is_none());
    // The heartbeat does not count: the answer to JoinGroup may never come.
    scene.pass(SECOND * 5);
    assert!(scene.has_lost());
    assert!(scene.member.take_abandoned_round());
}

#[test]
fn a_coordinator_that_moves_costs_nothing_within_the_session() {
    for lost in [error(Code::NotCoordinator), error(Code::CoordinatorLoadInProgress), gone()] {
        let mut scene = Scene::settled();
        scene.pass(SECOND);
        scene.beat(Err(lost));
        assert!(scene.member.take_lost_coordinator());
        for _ in 0..2 {
            scene.pass(SECOND / 2);
            scene.beat(Err(gone()));
            assert!(scene.event().is_none(), "the first failures are not reported");
        }
        scene.pass(SECOND);
        scene.beat(Err(gone()));
        assert!(matches!(scene.event(), Some(GroupEvent::Trouble { remedy: None, .. })));
        scene.pass(SECOND);
        scene.beat(Err(gone()));
        assert!(scene.event().is_none(), "an error is reported once");
        scene.pass(SECOND);
        scene.beat(Ok(()));
        assert!(matches!(scene.event(), Some(GroupEvent::Recovered)));
        assert_eq!(scene.member.id().as_deref(), Some("m"));
        assert_eq!(scene.member.next_round(scene.now), None);
    }
}

#[test]
fn a_coordinator_that_is_lost_during_a_round_gets_the_request_again() {
    let mut scene = Scene::settled();
    scene.member.rejoin(bytes("changed"));
    scene.join();
    scene.pass(SECOND);
    scene.beat(Err(gone()));
    assert!(scene.member.take_abandoned_round());
    scene.pass(SECOND);
    assert_eq!(scene.join(), (bytes("changed"), bytes("work")));
    scene.joined(2);
    let assignments = scene.sync();
    scene.member.synced(scene.now, Err(gone()));
    scene.pass(SECOND);
    assert_eq!(scene.sync(), assignments);
}

#[test]
fn a_round_that_ends_early_is_joined_again_without_a_loss() {
    for code in [Code::RebalanceInProgress, Code::IllegalGeneration] {
        let mut scene = Scene::settled();
        scene.member.rejoin(bytes("changed"));
        scene.join();
        scene.joined(2);
        scene.sync();
        scene.member.synced(scene.now, Err(error(code)));
        scene.pass(SECOND);
        scene.join();
        assert!(scene.event().is_none());
    }
}

#[test]
fn a_refusal_reaches_the_caller_once_with_advice_and_is_tried_again() {
    let mut scene = Scene::new();
    for attempt in 0..3 {
        scene.join();
        scene.member.joined(scene.now, Err(error(Code::GroupAuthorizationFailed)));
        let reported = scene.event();
        let is_reported = matches!(&reported, Some(GroupEvent::Trouble { remedy: Some(_), .. }));
        assert_eq!(is_reported, attempt == 0, "{reported:?}");
        assert_eq!(scene.member.next_round(scene.now), None, "it waits");
        scene.pass(SECOND);
    }
    scene.join();
    scene.joined(1);
    scene.sync();
    scene.member.synced(scene.now, Ok(bytes("work")));
    let events = scene.member.take_events();
    assert!(matches!(events[..], [GroupEvent::Recovered, GroupEvent::Assigned { .. }]));
}

#[test]
fn a_member_without_room_in_the_group_asks_for_a_new_id() {
    let mut scene = Scene::settled();
    scene.member.rejoin(bytes("changed"));
    scene.join();
    scene.member.joined(scene.now, Err(error(Code::GroupMaxSizeReached)));
    let events = scene.member.take_events();
    assert!(matches!(events[..], [GroupEvent::Lost { .. }, GroupEvent::Trouble { .. }]));
    assert!(scene.member.id().is_none());
}

#[test]
fn a_member_that_waits_for_an_answer_wakes_for_its_session_only() {
    let mut scene = Scene::settled();
    assert_eq!(scene.member.wake_at(), Some(scene.now + SECOND));
    scene.pass(SECOND);
    assert!(scene.member.next_heartbeat(scene.now).is_some());
    assert_eq!(scene.member.wake_at(), Some(scene.now + SECOND * 5));
}
