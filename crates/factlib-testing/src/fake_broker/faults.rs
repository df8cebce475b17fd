//! The script of faults: which requests fail, and how.

use std::time::Duration;

use super::{Api, Code};

/// A fault for some of the coming requests.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub number: u64,
    pub api: Api,
    pub broker: Option<i32>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    /// Matching requests that pass before the fault begins.
    pub skipped: usize,
    /// Requests that the fault still hits.
    pub remaining: usize,
    pub effect: Effect,
}

/// Consequence of a fault.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// The request has no effect and is answered with this.
    Answer(Refusal),
    /// The request has its effect and is answered with this all the same.
    AnswerAfterwards(Refusal),
    /// The connection is closed before the request has an effect.
    HangUp,
    /// The request has its effect, and the connection is closed without an answer.
    HangUpAfterwards,
    /// The broker waits before it handles the request.
    Delay(Duration),
    /// The answer asks the client to pause for this time.
    Throttle(Duration),
}

/// An error in an answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub code: Code,
    pub message: Option<String>,
    /// Records of the batch that are at fault, for Produce.
    pub records: Vec<i32>,
}

/// Everything that happens to one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    hits: Vec<(Scope, Effect)>,
}

/// Topic and partition that a fault is limited to.
type Scope = (Option<String>, Option<i32>);

/// A topic in a request and one of its partitions; none if the request concerns the whole topic.
pub(super) type Place = (String, Option<i32>);

/// Takes from the script what happens to a request that concerns these topics and partitions. For
/// each of them the first fault that fits counts.
pub(super) fn take(faults: &mut [Fault], broker: i32, api: Api, places: &[Place]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<&Place> = places.iter().collect();
    let mut is_first = true;
    for fault in faults {
        let is_meant = fault.api == api && fault.broker.is_none_or(|id| id == broker);
        if !is_meant || fault.remaining == 0 {
            continue;
        }
        let scope = (fault.topic.clone(), fault.partition);
        let is_unlimited = scope.0.is_none();
        let is_hit = match places.is_empty() {
            true => is_unlimited && is_first,
            false => left.iter().any(|place| contains(&scope, place)),
        };
        if !is_hit {
            continue;
        }
        left.retain(|place| !contains(&scope, place));
        is_first = false;
        if fault.skipped > 0 {
            fault.skipped -= 1;
            continue;
        }
        fault.remaining -= 1;
        plan.hits.push((scope, fault.effect.clone()));
    }
    plan
}

fn contains((topic, partition): &Scope, place: &Place) -> bool {
    topic.as_ref().is_none_or(|topic| *topic == place.0)
        && partition.is_none_or(|partition| place.1.is_none_or(|own| own == partition))
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// Time to wait before the request is handled.
    pub fn delay(&self) -> Duration {
        self.sum(|effect| match effect {
            Effect::Delay(time) => Some(*time),
            _ => None,
        })
    }

    /// Time for which the client is asked to pause.
    pub fn throttle_ms(&self) -> i32 {
        let time = self.sum(|effect| match effect {
            Effect::Throttle(time) => Some(*time),
            _ => None,
        });
        i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
    }

    pub fn hangs_up(&self) -> bool {
        self.hits.iter().any(|(_, effect)| matches!(effect, Effect::HangUp))
    }

    pub fn hangs_up_after_effect(&self) -> bool {
        self.hits.iter().any(|(_, effect)| matches!(effect, Effect::HangUpAfterwards))
    }

    /// Returns the error for a request that concerns no topic.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.hits.iter().find_map(|(_, effect)| match effect {
            Effect::Answer(refusal) => Some(refusal),
            _ => None,
        })
    }

    /// Returns the error for one topic, or for a partition of it, that has no effect.
    pub fn refusal_of(&self, topic: &str, partition: Option<i32>) -> Option<&Refusal> {
        self.find(topic, partition, |effect| match effect {
            Effect::Answer(refusal) => Some(refusal),
            _ => None,
        })
    }

    /// Returns the error that hides that the request had its effect on a partition.
    pub fn refusal_after_effect(&self, topic: &str, partition: Option<i32>) -> Option<&Refusal> {
        self.find(topic, partition, |effect| match effect {
            Effect::AnswerAfterwards(refusal) => Some(refusal),
            _ => None,
        })
    }

    fn find<'a>(
        &'a self,
        topic: &str,
        partition: Option<i32>,
        pick: impl Fn(&'a Effect) -> Option<&'a Refusal>,
    ) -> Option<&'a Refusal> {
        let place = (topic.to_owned(), partition);
        let hits = self.hits.iter().filter(|(scope, _)| contains(scope, &place));
        hits.map(|(_, effect)| effect).find_map(pick)
    }

    fn sum(&self, pick: impl Fn(&Effect) -> Option<Duration>) -> Duration {
        self.hits.iter().filter_map(|(_, effect)| pick(effect)).sum()
    }
}
