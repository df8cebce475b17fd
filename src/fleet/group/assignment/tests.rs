//! Assignments of random fleets, held against their rules and against all possible ones.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

type Fleet = BTreeMap<String, InstanceMetadata>;

fn names(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("p{number:03}")).collect()
}

/// Instances that know the same pipelines.
fn fleet(instances: usize, pipelines: usize) -> Fleet {
    let one = InstanceMetadata { known: names(pipelines), ..InstanceMetadata::default() };
    (0..instances).map(|number| (format!("m{number}"), one.clone())).collect()
}

fn loads(fleet: &Fleet) -> Vec<usize> {
    fleet.values().map(|one| one.held.len()).collect()
}

/// One round: every instance takes up its assignment and begins to stop what is missing in it. Fails if
/// that makes two instances run a pipeline.
fn round(fleet: &mut Fleet, now: u64) -> BTreeSet<String> {
    let assigned = assign(fleet, now * 1000);
    let mut unassigned = BTreeSet::new();
    for (id, one) in fleet.iter_mut() {
        let given = &assigned[id];
        let gone: Vec<_> =
            one.held.keys().filter(|name| !given.pipelines.contains_key(*name)).cloned().collect();
        one.ending.extend(gone);
        one.held = given.pipelines.clone();
        one.coming = given.coming.clone();
        one.ready.retain(|name| one.coming.contains(name));
        unassigned.clone_from(&given.unassigned);
    }
    let mut running = BTreeMap::<&String, &String>::new();
    for (id, one) in &*fleet {
        for name in one.held.keys().chain(&one.ending) {
            let other = running.insert(name, id).filter(|other| *other != id);
            assert_eq!(other, None, "{name} runs at {id}, too");
        }
    }
    unassigned
}

/// Ends what is being stopped.
fn end_all(fleet: &mut Fleet) {
    fleet.values_mut().for_each(|one| one.ending.clear());
}

/// Prepares what is coming.
fn prepare_all(fleet: &mut Fleet) {
    fleet.values_mut().for_each(|one| one.ready = one.coming.clone());
}

/// Rounds until nothing changes any more; returns their number and what stays unassigned.
fn settle(fleet: &mut Fleet) -> (usize, BTreeSet<String>) {
    for rounds in 0.. {
        assert!(rounds < 5, "it does not settle: {fleet:?}");
        let before = fleet.clone();
        let unassigned = round(fleet, NOW + rounds as u64);
        end_all(fleet);
        prepare_all(fleet);
        if *fleet == before {
            return (rounds, unassigned);
        }
    }
    unreachable!("the rounds are limited")
}

#[test]
fn an_instance_that_joins_gets_its_share_once_it_is_ready_and_they_are_free() {
    let mut fleet = fleet(2, 9);
    settle(&mut fleet);
    let before = fleet.clone();
    let new = InstanceMetadata { known: names(9), ..InstanceMetadata::default() };
    fleet.insert("m2".into(), new);
    round(&mut fleet, NOW + 100);
    assert_eq!(loads(&fleet), [5, 4, 0], "they run on until it is ready");
    let coming = fleet["m2"].coming.clone();
    assert_eq!(coming.len(), 3);
    let first = coming.first().expect("three").clone();
    fleet.get_mut("m2").expect("it joined").ready.insert(first);
    round(&mut fleet, NOW + 100);
    assert_eq!(loads(&fleet).iter().sum::<usize>(), 8, "one is being stopped");
    assert_eq!(fleet["m2"].coming, coming, "the same ones are coming");
    prepare_all(&mut fleet);
    round(&mut fleet, NOW + 101);
    assert_eq!(loads(&fleet), [3, 3, 0], "none has ended yet");
    let slow = fleet.get_mut("m0").expect("it is there").ending.pop_first().expect("one");
    end_all(&mut fleet);
    fleet.get_mut("m0").expect("it is there").ending.insert(slow.clone());
    round(&mut fleet, NOW + 101);
    assert_eq!(loads(&fleet), [3, 3, 2], "the slow one comes later");
    assert_eq!(fleet["m2"].coming, [slow].into());
    settle(&mut fleet);
    assert_eq!(loads(&fleet), [3, 3, 3]);
    for id in ["m0", "m1"] {
        let kept = &fleet[id].held;
        assert!(
            kept.iter().all(|(name, since)| before[id].held.get(name) == Some(since)),
            "{kept:?}"
        );
    }
    assert_eq!(fleet["m2"].held.values().filter(|since| **since == NOW + 101).count(), 2);
}

#[test]
fn an_instance_that_leaves_runs_its_pipelines_until_the_others_are_ready() {
    let mut fleet = fleet(3, 9);
    settle(&mut fleet);
    fleet.get_mut("m1").expect("it is there").leaving = true;
    round(&mut fleet, NOW);
    assert_eq!(loads(&fleet), [3, 3, 3]);
    prepare_all(&mut fleet);
    round(&mut fleet, NOW);
    assert_eq!(loads(&fleet), [3, 0, 3]);
    fleet.get_mut("m1").expect("it is there").ending.pop_last();
    round(&mut fleet, NOW);
    assert_eq!(loads(&fleet).iter().sum::<usize>(), 7);
    fleet.remove("m1");
    settle(&mut fleet);
    let mut loads = loads(&fleet);
    loads.sort_unstable();
    assert_eq!(loads, [4, 5]);
}

#[test]
fn what_is_prepared_goes_to_another_when_that_is_needed() {
    let mut fleet = fleet(2, 4);
    fleet.get_mut("m1").expect("it is there").known.clear();
    settle(&mut fleet);
    fleet.get_mut("m1").expect("it is there").known = names(4);
    round(&mut fleet, NOW);
    assert_eq!(fleet["m1"].coming.len(), 2);
    // The one that prepares is gone, and so is the one that runs.
    let gone = fleet.remove("m1").expect("it is there");
    fleet.insert("m2".into(), InstanceMetadata { coming: BTreeSet::new(), ..gone });
    settle(&mut fleet);
    assert_eq!(loads(&fleet), [2, 2]);
    fleet.remove("m0");
    settle(&mut fleet);
    assert_eq!(loads(&fleet), [4]);
    // Nobody else has room: nothing runs on for an owner that never comes.
    fleet.get_mut("m2").expect("it is there").leaving = true;
    round(&mut fleet, NOW);
    assert_eq!(loads(&fleet), [0]);
}

#[test]
fn pipelines_without_room_are_named_and_come_when_there_is() {
    let mut fleet = fleet(2, 5);
    fleet.get_mut("m0").expect("it is there").max = Some(1);
    fleet.get_mut("m1").expect("it is there").max = Some(2);
    let (_, unassigned) = settle(&mut fleet);
    assert_eq!((loads(&fleet), unassigned.len()), (vec![1, 2], 2));
    fleet.get_mut("m1").expect("it is there").max = None;
    let (_, unassigned) = settle(&mut fleet);
    assert_eq!((loads(&fleet), unassigned.len()), (vec![1, 4], 0));
    fleet.get_mut("m1").expect("it is there").max = Some(3);
    let (_, unassigned) = settle(&mut fleet);
    assert_eq!((loads(&fleet), unassigned.len()), (vec![1, 3], 1));
}

#[test]
fn what_runs_on_elsewhere_takes_room_until_it_is_ready_there() {
    let mut fleet = fleet(1, 2);
    fleet.get_mut("m0").expect("it is there").max = Some(2);
    settle(&mut fleet);
    let new = InstanceMetadata { known: names(2), ..InstanceMetadata::default() };
    fleet.insert("m1".into(), new);
    round(&mut fleet, NOW);
    assert_eq!(fleet["m1"].coming.len(), 1);
    // Only the first one knows the third.
    fleet.get_mut("m0").expect("it is there").known = names(3);
    let unassigned = round(&mut fleet, NOW);
    assert_eq!((loads(&fleet), unassigned), (vec![2, 0], ["p002".to_owned()].into()));
    let (_, unassigned) = settle(&mut fleet);
    assert_eq!((loads(&fleet), unassigned.len()), (vec![2, 1], 0));
}

#[test]
fn a_full_instance_hands_on_what_another_knows_too() {
    let mut fleet = fleet(2, 2);
    let first = fleet.get_mut("m0").expect("it is there");
    (first.max, first.held) = (Some(1), [("p000".to_owned(), NOW)].into());
    fleet.get_mut("m1").expect("it is there").known.remove("p001");
    let (_, unassigned) = settle(&mut fleet);
    assert!(unassigned.is_empty());
    assert!(fleet["m0"].held.contains_key("p001") && fleet["m1"].held.contains_key("p000"));
}

#[test]
fn of_two_that_claim_a_pipeline_the_later_keeps_it() {
    let mut fleet = fleet(2, 1);
    for (id, since) in [("m0", NOW), ("m1", NOW + 30)] {
        fleet.get_mut(id).expect("it is there").held = [("p000".to_owned(), since)].into();
    }
    let assigned = assign(&fleet, (NOW + 60) * 1000);
    assert!(assigned["m0"].pipelines.is_empty());
    assert_eq!(assigned["m1"].pipelines["p000"], NOW + 30);
}

#[test]
fn a_thousand_pipelines_of_twenty_instances_are_assigned_at_once() {
    let mut fleet = fleet(20, 1000);
    // Restricted, so that paths are searched.
    for (number, one) in fleet.values_mut().enumerate() {
        one.known = one.known.iter().skip(number * 25).cloned().collect();
    }
    let begun = std::time::Instant::now();
    settle(&mut fleet);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(loads(&fleet).iter().sum::<usize>(), 1000);
}

/// Up to 5 instances with settings of their own, and 12 pipelines.
fn fleets() -> impl Strategy<Value = Fleet> {
    let instance = (
        prop::collection::btree_set("p00[0-9]|p01[01]", 0..12),
        prop::option::weighted(0.3, 0..5_usize),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(instance, 1..6).prop_map(|instances| {
        let instances = instances.into_iter().enumerate().map(|(number, (known, max, leaving))| {
            let one = InstanceMetadata { known, max, leaving, ..InstanceMetadata::default() };
            (format!("m{number}"), one)
        });
        instances.collect()
    })
}

/// The number of assigned pipelines, and how uneven the loads are: the lower, the better.
fn quality(loads: &[usize]) -> (Reverse<usize>, usize) {
    (Reverse(loads.iter().sum()), loads.iter().map(|load| load * load).sum())
}

/// The best quality of all assignments that keep the limits.
fn best(fleet: &Fleet) -> (Reverse<usize>, usize) {
    fn search(
        left: &[String],
        fleet: &[&InstanceMetadata],
        loads: &mut Vec<usize>,
    ) -> (Reverse<usize>, usize) {
        let Some((name, left)) = left.split_first() else { return quality(loads) };
        let mut best = search(left, fleet, loads);
        for index in 0..fleet.len() {
            let one = fleet[index];
            let room = loads[index] < one.max.unwrap_or(usize::MAX) && !one.leaving;
            if room && one.known.contains(name) {
                loads[index] += 1;
                best = best.min(search(left, fleet, loads));
                loads[index] -= 1;
            }
        }
        best
    }
    let all: BTreeSet<&String> = fleet.values().flat_map(|one| &one.known).collect();
    let all: Vec<_> = all.into_iter().cloned().collect();
    let instances: Vec<_> = fleet.values().collect();
    search(&all, &instances, &mut vec![0; instances.len()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Of any changes, also while pipelines are being stopped: one owner at most, and an end to it.
    #[test]
    fn a_fleet_that_changes_has_one_owner_for_each_pipeline_and_settles(
        steps in prop::collection::vec((fleets(), any::<u8>()), 1..6)
    ) {
        let mut now = Fleet::new();
        for (next, chance) in steps {
            // The same ids are the same instances with changed settings.
            let mut next = next;
            for (id, one) in &mut next {
                if let Some(before) = now.remove(id) {
                    (one.held, one.ending) = (before.held, before.ending);
                    (one.coming, one.ready) = (before.coming, before.ready);
                }
                // What it knows no more, it stops by itself.
                let gone: Vec<_> = one.held.keys().filter(|it| !one.known.contains(*it)).cloned().collect();
                one.held.retain(|name, _| one.known.contains(name));
                one.coming.retain(|name| one.known.contains(name) && !one.leaving);
                one.ending.extend(gone);
            }
            now = next;
            for id in 0..=chance % 3 {
                round(&mut now, NOW);
                if chance & 4 << id == 0
                    && let Some(one) = now.values_mut().nth(usize::from(id))
                {
                    one.ending.pop_first();
                    one.ready.extend(one.coming.first().cloned());
                }
            }
        }
        end_all(&mut now);
        let (rounds, unassigned) = settle(&mut now);
        prop_assert!(rounds <= 4, "{} rounds", rounds);
        for one in now.values() {
            prop_assert!(one.held.len() <= one.max.unwrap_or(usize::MAX));
            prop_assert!(one.held.keys().all(|name| one.known.contains(name) && !one.leaving));
            prop_assert!(unassigned.iter().all(|name| !one.held.contains_key(name)));
        }
    }

    #[test]
    fn what_instances_know_balances_as_well_as_it_can(
        mut fleet in fleets(), kept in prop::collection::vec((0..5_usize, 0..12_usize), 0..6)
    ) {
        fleet.retain(|id, _| id.as_str() < "m3");
        fleet.values_mut().for_each(|one| one.known.retain(|name| name.as_str() < "p006"));
        for (number, pipeline) in kept {
            let name = format!("p{pipeline:03}");
            let held = fleet.values().any(|one| one.held.contains_key(&name));
            if let Some(one) = fleet.values_mut().nth(number)
                && !held && one.known.contains(&name) && !one.leaving
            {
                one.held.insert(name, NOW);
            }
        }
        settle(&mut fleet);
        prop_assert_eq!(quality(&loads(&fleet)), best(&fleet), "{:?}", fleet);
    }

    /// If all know all: each pipeline that moves either has to leave an instance with too many, or
    /// is needed by one with too few.
    #[test]
    fn no_more_pipelines_move_than_have_to(held in prop::collection::vec(0..5_usize, 1..40), joining in 1..4_usize) {
        let mut fleet = fleet(5 + joining, held.len());
        let names: Vec<_> = names(held.len()).into_iter().collect();
        for (name, owner) in names.iter().zip(&held) {
            let one = fleet.get_mut(&format!("m{owner}")).expect("it is there");
            one.held.insert(name.clone(), NOW);
        }
        let before = fleet.clone();
        settle(&mut fleet);
        let loads = loads(&fleet);
        let (least, most) = (held.len() / fleet.len(), held.len().div_ceil(fleet.len()));
        prop_assert!(loads.iter().all(|load| (least..=most).contains(load)), "{:?}", loads);
        let had = before.values().map(|one| one.held.len());
        let too_many: usize = had.clone().map(|load| load.saturating_sub(most)).sum();
        let too_few: usize = had.map(|load| least.saturating_sub(load)).sum();
        let moved = fleet.iter().map(|(id, one)| {
            one.held.keys().filter(|name| !before[id].held.contains_key(*name)).count()
        });
        prop_assert_eq!(moved.sum::<usize>(), too_many.max(too_few));
    }
}
