//! The aggregates whose events go to the table of held events, with `dead_letter.policy =
//! "hold-aggregate"`: a plain struct. [`crate::dead_letter`] has the design.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Error, Event, Refusal,
    dead_letter::{RefusedBefore, aggregate_hash},
    event::StreamPosition,
    receipts::FILTERED_LANE,
};

/// What is known of the held aggregates; the table has the last word.
pub(crate) struct HeldAggregates {
    held: HashMap<u64, Hold>,
    last_number: u32,
    refused_before: RefusedBefore,
    /// Positions of the last events sent in the open transaction, by aggregate; none without
    /// exactly-once.
    sent: Option<HashMap<u64, StreamPosition>>,
}

/// A held aggregate.
#[derive(Clone, Copy)]
struct Hold {
    /// Number of the refusal that it is held for, from 1. An event that was given back for an earlier
    /// one has to wait again.
    number: u32,
    /// Number of its events on their way to the table.
    writing: u32,
}

/// Effect of the held aggregates on an event.
pub(super) enum Diversion {
    /// It is sent.
    None,
    /// It goes to the table, for the refusal with this number.
    Held(Refusal, u32),
}

impl HeldAggregates {
    /// Begins with these hashes from the table.
    pub fn new(hashes: Vec<u64>, refused_before: RefusedBefore, in_transactions: bool) -> Self {
        let hold = |hash| (hash, Hold { number: 1, writing: 0 });
        HeldAggregates {
            held: hashes.into_iter().map(hold).collect(),
            last_number: 1,
            refused_before,
            sent: in_transactions.then(HashMap::new),
        }
    }

    /// Holds the aggregate of an event that was refused; gives the number of the refusal.
    pub(super) fn hold(&mut self, event: &Event) -> u32 {
        // After 2^32 refusals, an event would have to be given back for the very same number.
        self.last_number = self.last_number.wrapping_add(1).max(1);
        let number = self.last_number;
        let hold = self.held.entry(hash(event)).or_insert(Hold { number, writing: 0 });
        hold.number = number;
        number
    }

    /// True if [`divert`](Self::divert) may divert the event.
    pub(super) fn may_divert(&self, event: &Event, topic: &Arc<str>) -> bool {
        // What is not sent can't overtake anything.
        **topic != *FILTERED_LANE && self.held.contains_key(&hash(event))
            || self.sent.is_some() && self.refused_before.error(event, topic).is_some()
    }

    /// Decides about an event for a topic; `cleared` is the refusal for which it was given back, or 0.
    pub(super) fn divert(&mut self, event: &Event, topic: &Arc<str>, cleared: u32) -> Diversion {
        if event.refusal().is_some() || **topic == *FILTERED_LANE {
            return Diversion::None;
        }
        if self.sent.is_some()
            && let Some(error) = self.refused_before.error(event, topic)
        {
            let number = self.hold(event);
            return Diversion::Held(Refusal::first_held(error, Some(Arc::clone(topic))), number);
        }
        match self.held.get(&hash(event)) {
            Some(hold) if hold.number != cleared => {
                Diversion::Held(Refusal::waiting(Arc::clone(topic)), hold.number)
            }
            _ => Diversion::None,
        }
    }

    /// Notes that an event goes to the table.
    pub(super) fn writes(&mut self, event: &Event) {
        let number = self.last_number;
        self.held.entry(hash(event)).or_insert(Hold { number, writing: 0 }).writing += 1;
    }

    /// Notes that the table has answered for an event; `is_released` if its aggregate is not held.
    pub(super) fn written(&mut self, event: &Event, is_released: bool) {
        let hash = hash(event);
        let Some(hold) = self.held.get_mut(&hash) else { return };
        hold.writing = hold.writing.saturating_sub(1);
        // While others are on their way to the table, later ones have to come behind them.
        if is_released && hold.writing == 0 {
            self.held.remove(&hash);
        }
    }

    /// Notes that an event is sent in the open transaction.
    pub(super) fn sends(&mut self, event: &Event) {
        if let Some(sent) = &mut self.sent {
            let position = event.stream_position();
            let last = sent.entry(hash(event)).or_insert(position);
            *last = position.max(*last);
        }
    }

    /// Notes that the next transaction is open.
    pub(super) fn transaction_ended(&mut self) {
        if let Some(sent) = &mut self.sent {
            sent.clear();
        }
    }

    /// True if a later event of its aggregate was sent in the open transaction.
    pub(super) fn is_overtaken(&self, event: &Event) -> bool {
        let last = self.sent.as_ref().and_then(|sent| sent.get(&hash(event)));
        last.is_some_and(|last| *last > event.stream_position())
    }

    /// True with exactly-once.
    pub(super) fn in_transactions(&self) -> bool {
        self.sent.is_some()
    }

    /// Remembers an event that the topic refused, for the time when it is read again.
    pub(super) fn remember(&self, event: &Event, topic: &Arc<str>, error: Error) {
        self.refused_before.add(event, topic, error);
    }
}

fn hash(event: &Event) -> u64 {
    aggregate_hash(event.aggregate_type(), event.aggregate_id())
}
