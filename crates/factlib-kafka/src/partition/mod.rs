//! The send queue of one partition: a state machine for numbering, pipelining and retrying
//! batches, without sockets or a clock.
//!
//! # Life of a batch
//! [`push`](PartitionQueue::push) queues it. [`next_send`](PartitionQueue::next_send) returns it
//! with a [`Token`] and the producer epoch and base sequence for its header.
//! [`answered`](PartitionQueue::answered) takes the broker's answer for the token;
//! [`connection_lost`](PartitionQueue::connection_lost) marks the answers of all batches in flight
//! as lost. A batch leaves the queue as an [`Event`]: acknowledged, refused, or not sent.
//!
//! # Pipelining
//! A broker without any batch of this producer id and epoch accepts any first sequence number
//! (KAFKA-14312, KAFKA-15591). With two batches in flight, the broker could briefly refuse the
//! first, accept the second, and from then on refuse the first for ever. So only **one batch is in
//! flight until a batch is acknowledged in this epoch, and only one again after any error**;
//! otherwise up to [`MAX_IN_FLIGHT`], the number of batches that a broker recognises as duplicates
//! (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
//!
//! # Failure
//! After an answer other than an acknowledgement, the queue sends nothing until all answers have
//! arrived. Then it sends the remaining batches again from the oldest on, with the same sequence
//! numbers. If these numbers have become invalid, a new epoch begins: the broker accepts it from
//! sequence 0, and refuses late batches of the old epoch.
//!
//! # Stopping
//! [`Answer::Stopped`] names a refused record behind which nothing may be sent. The queue still
//! sends what stands before that record; everything behind it leaves the queue as
//! [`Event::NotSent`], and the queue accepts nothing more.

use std::collections::VecDeque;

mod answer;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod model;
mod refusal;

pub use self::answer::{Answer, Event};

/// Maximum batches in flight: as many as a broker recognises as duplicates.
pub const MAX_IN_FLIGHT: usize = 5;

/// Records that are sent, acknowledged and refused together.
pub trait Batch: Sized {
    /// Returns the number of records: at least one, at most `i32::MAX`.
    fn records(&self) -> u32;

    /// Splits the batch into its first `at` records and the others; `0 < at < records`.
    fn split_at(self, at: u32) -> (Self, Self);
}

/// Identifies one attempt to send a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

/// A batch to be sent now, with the producer fields of its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Send<'a, B> {
    /// Identifies this attempt in [`PartitionQueue::answered`].
    pub token: Token,
    /// The batch to send.
    pub batch: &'a B,
    /// Producer epoch; belongs to the producer id of the last restart.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

/// The queue of one partition.
pub struct PartitionQueue<B> {
    /// Batches without a result, oldest first. The first `sent` of them are in flight, or were
    /// when the first error came.
    entries: VecDeque<Entry<B>>,
    sent: usize,
    /// Batches behind a record that stopped the queue, until all answers have arrived.
    behind: VecDeque<Entry<B>>,
    is_stopped: bool,
    in_flight: VecDeque<Flight>,
    next_token: u64,
    next_id: u64,
    epoch: i16,
    /// Sequence number for the first entry without one.
    next_sequence: i32,
    /// True if a batch was acknowledged in this epoch and nothing has failed since.
    is_confirmed: bool,
    /// True after a failure: the queue sends nothing until all answers have arrived.
    is_rewinding: bool,
    needs_epoch: bool,
    /// True if the queue may raise the epoch itself. In transactions, the coordinator assigns
    /// epochs.
    raises_epoch: bool,
    #[cfg(test)]
    mutation: Option<model::Mutation>,
}

struct Entry<B> {
    id: u64,
    batch: B,
    /// Sequence number in the present epoch; none before the first attempt in this epoch.
    base_sequence: Option<i32>,
    /// True if the batch was sent in this epoch and the result of an attempt is unknown.
    is_uncertain: bool,
}

struct Flight {
    token: Token,
    entry: u64,
    answer: Option<Answer>,
}

impl<B: Batch> PartitionQueue<B> {
    /// Creates an empty queue for a producer id whose epoch on this partition is `epoch`.
    pub fn new(epoch: i16) -> Self {
        PartitionQueue {
            entries: VecDeque::new(),
            sent: 0,
            behind: VecDeque::new(),
            is_stopped: false,
            in_flight: VecDeque::new(),
            next_token: 0,
            next_id: 0,
            epoch,
            next_sequence: 0,
            is_confirmed: false,
            is_rewinding: false,
            needs_epoch: false,
            raises_epoch: true,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Creates an empty queue for transactions. When sequence numbers become invalid, this queue
    /// needs a new producer id or epoch instead of raising the epoch itself.
    pub fn in_transactions(epoch: i16) -> Self {
        PartitionQueue { raises_epoch: false, ..PartitionQueue::new(epoch) }
    }

    /// Queues a batch behind the others. The queue must not be stopped.
    pub fn push(&mut self, batch: B) {
        let entry = self.entry(batch);
        self.entries.push_back(entry);
    }

    /// Returns true if every batch has its final result.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.behind.is_empty()
    }

    /// Returns true once a record has stopped the queue: it accepts no more batches.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Returns the batch of an attempt whose answer is awaited.
    pub fn batch(&mut self, token: Token) -> Option<&mut B> {
        let flight = self.in_flight.iter().find(|flight| flight.token == token)?;
        let mut entries = self.entries.iter_mut().chain(&mut self.behind);
        entries.find(|entry| entry.id == flight.entry).map(|entry| &mut entry.batch)
    }

    /// Returns true if a batch pushed now would be returned by [`next_send`](Self::next_send) at
    /// once.
    pub fn has_room(&self) -> bool {
        self.sent == self.entries.len() && !self.is_stopped && self.may_send()
    }

    /// Returns true if a batch has to be sent, or sent again.
    pub fn waits(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Returns the number of batches whose answers are awaited.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the producer epoch on this partition.
    pub fn epoch(&self) -> i16 {
        self.epoch
    }

    /// Returns true if the epochs of the producer id are used up, or if sequence numbers are lost
    /// in a transaction. No batch is sent until [`restart`](Self::restart) sets a new id or epoch.
    pub fn needs_producer_id(&self) -> bool {
        let is_last = !self.raises_epoch || self.epoch == i16::MAX;
        self.needs_epoch && is_last && self.in_flight.is_empty()
    }

    /// Continues with a new producer id or epoch, from the oldest batch. Nothing may be in flight.
    pub fn restart(&mut self, epoch: i16) {
        debug_assert!(self.in_flight.is_empty(), "answers are awaited");
        self.begin_epoch(epoch);
    }

    /// Must be called after a long idle time, in which the broker may have forgotten the producer
    /// (`producer.id.expiration.ms`).
    pub fn rested(&mut self) {
        self.is_confirmed = false;
    }

    /// Returns the next batch that may be sent now, and counts it as in flight.
    pub fn next_send(&mut self) -> Option<Send<'_, B>> {
        if !self.may_send() {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        let base_sequence = match entry.base_sequence {
            Some(sequence) => sequence,
            None => {
                let sequence = self.next_sequence;
                self.next_sequence = advanced(sequence, entry.batch.records());
                *entry.base_sequence.insert(sequence)
            }
        };
        let token = Token(self.next_token);
        self.next_token += 1;
        self.sent += 1;
        self.in_flight.push_back(Flight { token, entry: entry.id, answer: None });
        Some(Send { token, batch: &entry.batch, epoch: self.epoch, base_sequence })
    }

    /// Takes the answer to an attempt, and returns the batches that now have a final result.
    /// Ignores an answer for a batch that is no longer in flight.
    pub fn answered(&mut self, token: Token, answer: Answer) -> Vec<Event<B>> {
        let flight = self.in_flight.iter_mut().find(|flight| flight.token == token);
        let Some(flight) = flight else { return Vec::new() };
        flight.answer = Some(answer);
        self.settle()
    }

    /// Marks the answers of all batches in flight as lost.
    pub fn connection_lost(&mut self) -> Vec<Event<B>> {
        for flight in &mut self.in_flight {
            flight.answer.get_or_insert(Answer::Unknown);
        }
        self.settle()
    }

    fn may_send(&self) -> bool {
        !self.is_rewinding && !self.needs_epoch && self.in_flight.len() < self.limit()
    }

    fn limit(&self) -> usize {
        #[cfg(test)]
        if self.mutation == Some(model::Mutation::TwoAtTheStart) {
            return if self.is_confirmed { MAX_IN_FLIGHT } else { 2 };
        }
        if self.is_confirmed { MAX_IN_FLIGHT } else { 1 }
    }

    /// Processes the answers in the order of sending.
    fn settle(&mut self) -> Vec<Event<B>> {
        let mut events = Vec::new();
        while let Some(answer) = self.in_flight.front_mut().and_then(|flight| flight.answer.take())
        {
            let Some(flight) = self.in_flight.pop_front() else { break };
            let place = self.entries.iter().position(|entry| entry.id == flight.entry);
            match place {
                Some(place) => self.end(place, answer, &mut events),
                None => self.end_behind(flight.entry, &answer, &mut events),
            }
        }
        if self.in_flight.is_empty() {
            events.extend(self.behind.drain(..).map(|entry| Event::NotSent(entry.batch)));
            if self.is_rewinding {
                self.rewind();
            }
        }
        events
    }

    fn end(&mut self, place: usize, answer: Answer, events: &mut Vec<Event<B>>) {
        #[cfg(test)]
        let answer = self.mutated(answer);
        match answer {
            // Applies even behind a failed batch: an appended batch is not sent again.
            Answer::Acknowledged => {
                let Some(entry) = self.entries.remove(place) else { return };
                self.sent -= 1;
                self.is_confirmed = !self.is_rewinding;
                events.push(Event::Acknowledged(entry.batch));
                return;
            }
            Answer::NotNow => {}
            Answer::Unknown => self.entries[place].is_uncertain = true,
            // Behind a failed batch, this answer is expected.
            Answer::SequenceLost => self.needs_epoch |= !self.is_rewinding,
            Answer::Refused(records) => self.refused(place, &records, Event::Refused, events),
            Answer::TooLarge => self.refused(place, &[], Event::TooLarge, events),
            Answer::Stopped { refused, at } => self.stop(place, &refused, at, events),
        }
        self.is_rewinding = true;
    }

    /// Takes the answer for a batch behind a record that stopped the queue.
    fn end_behind(&mut self, id: u64, answer: &Answer, events: &mut Vec<Event<B>>) {
        let place = self.behind.iter().position(|entry| entry.id == id);
        if *answer == Answer::Acknowledged
            && let Some(entry) = place.and_then(|place| self.behind.remove(place))
        {
            events.push(Event::Acknowledged(entry.batch));
        }
    }

    /// Sends the remaining batches again after all answers have arrived, one at a time at first.
    fn rewind(&mut self) {
        (self.is_rewinding, self.is_confirmed, self.sent) = (false, false, 0);
        #[cfg(test)]
        if self.mutation == Some(model::Mutation::RetryOutOfOrder) && self.entries.len() > 1 {
            self.entries.swap(0, 1);
        }
        // An earlier attempt of such a batch may still arrive, with numbers that now belong to
        // another batch.
        let is_renumbered = |entry: &Entry<B>| entry.is_uncertain && entry.base_sequence.is_none();
        self.needs_epoch |= self.entries.iter().any(is_renumbered);
        if self.needs_epoch && self.raises_epoch && self.epoch < i16::MAX {
            self.begin_epoch(self.epoch + 1);
        }
    }

    fn begin_epoch(&mut self, epoch: i16) {
        self.epoch = epoch;
        (self.next_sequence, self.sent) = (0, 0);
        (self.is_confirmed, self.needs_epoch, self.is_rewinding) = (false, false, false);
        for entry in &mut self.entries {
            (entry.base_sequence, entry.is_uncertain) = (None, false);
        }
    }

    fn entry(&mut self, batch: B) -> Entry<B> {
        let id = self.next_id;
        self.next_id += 1;
        Entry { id, batch, base_sequence: None, is_uncertain: false }
    }

    #[cfg(test)]
    fn mutated(&self, answer: Answer) -> Answer {
        match (self.mutation, answer) {
            (Some(model::Mutation::UnknownIsAcknowledged), Answer::Unknown) => Answer::Acknowledged,
            (_, answer) => answer,
        }
    }
}

/// Advances a sequence number, which wraps around after `i32::MAX` (KIP-98).
fn advanced(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    next as i32
}
