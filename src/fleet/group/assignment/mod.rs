//! Assigns each pipeline to one of the instances that know it: runs on the leader of the group.
//!
//! The assignment is balanced, keeps `fleet.max_pipelines`, and moves as few pipelines as it can.
//! It is cooperative: a pipeline that moves is *coming* at its new owner, which starts it and waits for
//! the slot. When that one is ready, the pipeline is missing in the assignment of the instance that runs
//! it, and it is given to the new owner in the round after it has been let go.
//!
//! Each pipeline first goes where it is prepared, else stays at the instance that runs it, else goes to
//! the least loaded one that knows it. Then pipelines move along paths: from an instance to one with at
//! least two less, if need be by way of others, as each instance may know other pipelines. While such a
//! path is left there is a better assignment, and without one there is none (Harvey et al.,
//! "Semi-matchings for bipartite graphs and load balancing", 2006).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use super::messages::{InstanceAssignment, InstanceMetadata};

/// Assigns the pipelines; `now_ms` is the Unix time. The keys are the ids of the members, and the
/// result has all of them.
pub(crate) fn assign(
    members: &BTreeMap<String, InstanceMetadata>,
    now_ms: u64,
) -> BTreeMap<String, InstanceAssignment> {
    let instances: Vec<&InstanceMetadata> = members.values().collect();
    let mut plan = Plan::new(&instances);
    plan.place_all();
    plan.balance();
    let mut unassigned = plan.unassigned();
    let given: Vec<_> = (0..members.len()).map(|one| plan.given(one, now_ms / 1000)).collect();
    unassigned.extend(given.iter().flat_map(|given| given.waiting.iter().cloned()));
    let assigned = members.keys().zip(given).map(|(id, given)| {
        let assignment = InstanceAssignment {
            pipelines: given.runs,
            coming: given.coming,
            instances: members.len(),
            unassigned: unassigned.clone(),
            round: now_ms,
        };
        (id.clone(), assignment)
    });
    assigned.collect()
}

/// A pipeline while it is assigned; instances are numbers.
struct Pipeline<'a> {
    name: &'a str,
    /// Instances that know it and are not leaving.
    candidates: Vec<usize>,
    /// Instance that runs it, with the time since when.
    runner: Option<(usize, u64)>,
    /// Instance that prepares it.
    preparer: Option<usize>,
    /// Instances that are ready to run it once its slot is free.
    ready: BTreeSet<usize>,
    /// Instances that run it, or are stopping it.
    occupants: BTreeSet<usize>,
    owner: Option<usize>,
}

struct Plan<'a> {
    pipelines: Vec<Pipeline<'a>>,
    limits: Vec<usize>,
    /// Pipelines by owner.
    owned: Vec<BTreeSet<usize>>,
}

/// A path of moves: each pipeline with its new owner, the last one first.
type Moves = Vec<(usize, usize)>;

impl<'a> Plan<'a> {
    fn new(instances: &[&'a InstanceMetadata]) -> Self {
        let mut pipelines = BTreeMap::<&str, Pipeline<'_>>::new();
        for (index, instance) in instances.iter().enumerate() {
            for name in instance.known.iter().filter(|_| !instance.leaving) {
                let pipeline = pipelines.entry(name).or_insert_with(|| Pipeline::new(name));
                pipeline.candidates.push(index);
            }
        }
        for (index, instance) in instances.iter().enumerate() {
            for name in instance.held.keys().chain(&instance.ending) {
                let Some(pipeline) = pipelines.get_mut(name.as_str()) else { continue };
                pipeline.occupants.insert(index);
                let Some(since) = instance.held.get(name) else { continue };
                // Of two that claim it, the earlier one has lost it without knowing.
                let is_latest = pipeline.runner.is_none_or(|(_, other)| *since > other);
                if is_latest && !instance.ending.contains(name) {
                    pipeline.runner = Some((index, *since));
                }
            }
            for name in instance.coming.iter().filter(|_| !instance.leaving) {
                let Some(pipeline) = pipelines.get_mut(name.as_str()) else { continue };
                pipeline.preparer = Some(index);
                if instance.ready.contains(name) {
                    pipeline.ready.insert(index);
                }
            }
        }
        Plan {
            pipelines: pipelines.into_values().collect(),
            limits: instances.iter().map(|one| one.max.unwrap_or(usize::MAX)).collect(),
            owned: vec![BTreeSet::new(); instances.len()],
        }
    }

    /// Leaves pipelines where they run or are prepared, and places all others.
    fn place_all(&mut self) {
        let mut order: Vec<usize> = (0..self.pipelines.len()).collect();
        // Above a limit, those that have run longest stay.
        order.sort_by_key(|index| self.pipelines[*index].runner.map(|(_, since)| since));
        for index in order {
            let one = &self.pipelines[index];
            let runner = one.runner.map(|(runner, _)| runner);
            let mut owners = one.preparer.into_iter().chain(runner);
            let knows = |owner: &usize| one.candidates.contains(owner) && self.has_room(*owner);
            if let Some(owner) = owners.find(knows) {
                self.give(index, owner);
            }
        }
        let mut free: Vec<usize> =
            (0..self.pipelines.len()).filter(|it| self.pipelines[*it].owner.is_none()).collect();
        free.sort_by_key(|index| self.pipelines[*index].candidates.len());
        for index in free {
            self.place(index);
        }
    }

    /// Gives a pipeline to the least loaded instance that knows it. If all of them are full, one may
    /// hand on a pipeline to another instance.
    fn place(&mut self, index: usize) {
        let candidates = self.pipelines[index].candidates.clone();
        let with_room = candidates.iter().copied().filter(|one| self.has_room(*one));
        if let Some(least) = with_room.min_by_key(|one| self.owned[*one].len()) {
            return self.give(index, least);
        }
        for candidate in candidates {
            if let Some(moves) = self.path(candidate, |plan, other| plan.has_room(other)) {
                self.apply(moves);
                return self.give(index, candidate);
            }
        }
    }

    /// Moves pipelines from the most to the least loaded instances until no move makes it better.
    fn balance(&mut self) {
        loop {
            let mut order: Vec<usize> = (0..self.owned.len()).collect();
            order.sort_by_key(|one| Reverse(self.owned[*one].len()));
            let found = order.into_iter().find_map(|from| {
                let load = self.owned[from].len();
                self.path(from, |plan, to| plan.owned[to].len() + 2 <= load && plan.has_room(to))
            });
            let Some(moves) = found else { return };
            self.apply(moves);
        }
    }

    /// Finds the shortest path of moves from an instance to one that `is_end` accepts, to the least
    /// loaded of several.
    fn path(&self, from: usize, is_end: impl Fn(&Self, usize) -> bool) -> Option<Moves> {
        // How each instance is reached: the pipeline that moves there, and its owner.
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; self.owned.len()];
        let mut lengths = vec![0; self.owned.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            let unreached = |reached: &[Option<_>]| {
                (0..reached.len()).filter(|one| *one != from && reached[*one].is_none()).count()
            };
            let mut left = unreached(&reached);
            if left == 0 {
                break;
            }
            for index in self.cheapest_first(at) {
                for to in &self.pipelines[index].candidates {
                    if *to != from && reached[*to].is_none() {
                        reached[*to] = Some((index, at));
                        lengths[*to] = lengths[at] + 1;
                        queue.push_back(*to);
                        left -= 1;
                    }
                }
                if left == 0 {
                    break;
                }
            }
        }
        let ends = (0..reached.len()).filter(|one| reached[*one].is_some() && is_end(self, *one));
        let mut at = ends.min_by_key(|one| (lengths[*one], self.owned[*one].len()))?;
        let mut moves = Vec::new();
        while let Some((index, before)) = reached[at] {
            moves.push((index, at));
            at = before;
        }
        Some(moves)
    }

    /// The pipelines of an instance: first those that do not run there yet, then the latest.
    fn cheapest_first(&self, owner: usize) -> Vec<usize> {
        let mut pipelines: Vec<usize> = self.owned[owner].iter().copied().collect();
        pipelines.sort_by_key(|index| match self.pipelines[*index].runner {
            Some((runner, since)) if runner == owner => Some(Reverse(since)),
            _ => None,
        });
        pipelines
    }

    fn has_room(&self, instance: usize) -> bool {
        self.owned[instance].len() < self.limits[instance]
    }

    fn apply(&mut self, moves: Moves) {
        for (index, to) in moves {
            self.give(index, to);
        }
    }

    fn give(&mut self, index: usize, to: usize) {
        if let Some(before) = self.pipelines[index].owner.replace(to) {
            self.owned[before].remove(&index);
        }
        self.owned[to].insert(index);
    }

    /// The pipelines that an instance runs now, those that it prepares, and those that have to wait
    /// until it has handed on others: with them, it would run more than it may.
    fn given(&self, instance: usize, now: u64) -> Given {
        let mut given = Given::default();
        let mut free = Vec::new();
        for one in &self.pipelines {
            let Some(owner) = one.owner else { continue };
            match one.runner.filter(|(runner, _)| *runner == instance) {
                Some((_, since)) if owner == instance || !one.ready.contains(&owner) => {
                    given.runs.insert(one.name.to_owned(), since);
                }
                None if owner == instance => {
                    match one.occupants.iter().all(|occupant| *occupant == instance) {
                        true => free.push(one.name),
                        false => _ = given.coming.insert(one.name.to_owned()),
                    }
                }
                _ => {}
            }
        }
        for name in free {
            match given.runs.len() < self.limits[instance] {
                true => _ = given.runs.insert(name.to_owned(), now),
                false => _ = given.waiting.insert(name.to_owned()),
            }
        }
        given
    }

    fn unassigned(&self) -> BTreeSet<String> {
        let unowned = self.pipelines.iter().filter(|one| one.owner.is_none());
        unowned.map(|one| one.name.to_owned()).collect()
    }
}

/// What an instance is given.
#[derive(Default)]
struct Given {
    runs: BTreeMap<String, u64>,
    coming: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

impl<'a> Pipeline<'a> {
    fn new(name: &'a str) -> Self {
        Pipeline {
            name,
            candidates: Vec::new(),
            runner: None,
            preparer: None,
            ready: BTreeSet::new(),
            occupants: BTreeSet::new(),
            owner: None,
        }
    }
}

#[cfg(test)]
mod tests;
