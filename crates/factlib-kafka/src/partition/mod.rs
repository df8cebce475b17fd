//! The batches of one partition on their way to its leader: a state machine without sockets
//! and clock.
//!
//! # Life of a batch
//! [`push`](PartitionQueue::push) queues it. [`next_send`](PartitionQueue::next_send) hands it
//! out with the producer epoch and the base sequence that belong into its header, and a
//! [`Token`]. [`answered`](PartitionQueue::answered) takes the broker's answer to that token;
//! [`connection_lost`](PartitionQueue::connection_lost) stands for all answers that can't come
//! any more. A batch leaves the queue as an [`Event`]: acknowledged, or refused.
//!
//! # Pipelining
//! A broker that knows no batch of this producer id and epoch on a partition takes any first
//! sequence number (KAFKA-14312, KAFKA-15591). With two batches in flight it could refuse the
//! first for a moment and take the second, and would then refuse the first for ever. So there is
//! **one batch in flight until one was acknowledged in this epoch, and one again after any
//! error**; otherwise up to [`MAX_IN_FLIGHT`], the number of batches that a broker recognises
//! when they are sent again (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
//!
//! # Failure
//! After the first answer that is no acknowledgement nothing is sent until all answers are in.
//! What is left then goes again, from the oldest batch on, with the same sequence numbers. Where
//! these can't serve any more, a new epoch begins: a broker takes it with sequence 0, and refuses
//! whatever of the old epoch is still on its way.

use std::collections::VecDeque;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod model;

/// Batches in flight at most, as many as a broker recognises when they come again.
pub const MAX_IN_FLIGHT: usize = 5;

/// Records that are sent, acknowledged and refused together.
pub trait Batch: Sized {
    /// Number of its records: at least one, at most `i32::MAX`.
    fn records(&self) -> u32;

    /// Two batches with its first `at` records and the others; `0 < at < records`.
    fn split_at(self, at: u32) -> (Self, Self);
}

/// One sending of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

/// A batch to be sent now, and what its header says of the producer.
#[derive(Debug, PartialEq, Eq)]
pub struct Send<'a, B> {
    /// Names this sending in [`PartitionQueue::answered`].
    pub token: Token,
    /// The batch to send.
    pub batch: &'a B,
    /// Goes with the producer id that the epoch counts from.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

/// A broker's answer to one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Appended and replicated, or recognised as such from an earlier sending.
    Acknowledged,
    /// Not appended now; the same bytes may be taken later: the leader moved, replicas are
    /// missing, the broker is busy.
    NotNow,
    /// Nobody knows: the request timed out, on the broker or here.
    Unknown,
    /// Nothing was appended, because of these records, by their places in the batch. Where the
    /// broker names none, all are under suspicion.
    Refused(Vec<u32>),
    /// Nothing was appended: the batch is larger than the topic takes.
    TooLarge,
    /// The sequence does not follow what the broker has (`OUT_OF_ORDER_SEQUENCE_NUMBER`), or it
    /// knows nothing of the producer (`UNKNOWN_PRODUCER_ID`).
    SequenceLost,
}

/// The end of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<B> {
    /// Its records are safe.
    Acknowledged(B),
    /// This one record will never be taken.
    Refused(B),
    /// This one record is larger than the topic takes.
    TooLarge(B),
}

/// The queue of one partition.
pub struct PartitionQueue<B> {
    /// The oldest first; the first `sent` are in flight, or were when the first error came.
    entries: VecDeque<Entry<B>>,
    sent: usize,
    in_flight: VecDeque<Flight>,
    next_token: u64,
    next_id: u64,
    epoch: i16,
    /// Sequence number of the first entry that has none yet.
    next_sequence: i32,
    /// A batch was acknowledged in this epoch, and nothing failed since.
    is_confirmed: bool,
    /// Something failed: nothing is sent until all answers are in.
    is_rewinding: bool,
    needs_epoch: bool,
    /// A new epoch is taken without asking; not so in transactions, where it is the coordinator's.
    raises_epoch: bool,
    #[cfg(test)]
    mutation: Option<model::Mutation>,
}

struct Entry<B> {
    id: u64,
    batch: B,
    /// Sequence number in the present epoch; none before it is first sent there.
    base_sequence: Option<i32>,
    /// It was sent in this epoch, and nobody knows what became of it.
    is_uncertain: bool,
}

struct Flight {
    token: Token,
    entry: u64,
    answer: Option<Answer>,
}

impl<B: Batch> PartitionQueue<B> {
    /// An empty queue, for a producer id whose epoch on this partition is `epoch`.
    pub fn new(epoch: i16) -> Self {
        PartitionQueue {
            entries: VecDeque::new(),
            sent: 0,
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

    /// An empty queue in transactions: where sequence numbers can't serve any more, it asks for a
    /// producer id in place of beginning an epoch.
    pub fn in_transactions(epoch: i16) -> Self {
        PartitionQueue { raises_epoch: false, ..PartitionQueue::new(epoch) }
    }

    /// Queues a batch behind the others.
    pub fn push(&mut self, batch: B) {
        let entry = self.entry(batch);
        self.entries.push_back(entry);
    }

    /// True when every batch has ended.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True where [`next_send`](Self::next_send) would send a batch that is pushed now, at once.
    pub fn has_room(&self) -> bool {
        self.sent == self.entries.len() && self.may_send()
    }

    /// True where a batch is yet to be sent, or to be sent again.
    pub fn waits(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Batches whose answers are awaited.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The producer epoch on this partition.
    pub fn epoch(&self) -> i16 {
        self.epoch
    }

    /// True when the epochs of the producer id are used up, or in transactions an epoch is lost:
    /// no batch is sent until [`restart`](Self::restart) has a new id or epoch.
    pub fn needs_producer_id(&self) -> bool {
        let is_last = !self.raises_epoch || self.epoch == i16::MAX;
        self.needs_epoch && is_last && self.in_flight.is_empty()
    }

    /// Goes on with a new producer id, from the oldest batch. Nothing may be in flight.
    pub fn restart(&mut self, epoch: i16) {
        debug_assert!(self.in_flight.is_empty(), "answers are awaited");
        self.begin_epoch(epoch);
    }

    /// The broker may have forgotten the producer meanwhile (`producer.id.expiration.ms`): call
    /// it after a long rest.
    pub fn rested(&mut self) {
        self.is_confirmed = false;
    }

    /// The next batch that may be sent now, which then counts as in flight.
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

    /// Takes the answer to a sending, and gives the batches that have ended. An answer to what
    /// is not in flight any more says nothing.
    pub fn answered(&mut self, token: Token, answer: Answer) -> Vec<Event<B>> {
        let flight = self.in_flight.iter_mut().find(|flight| flight.token == token);
        let Some(flight) = flight else { return Vec::new() };
        flight.answer = Some(answer);
        self.settle()
    }

    /// No further answer comes to what is in flight.
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

    /// Works off answers in the order of sending.
    fn settle(&mut self) -> Vec<Event<B>> {
        let mut events = Vec::new();
        while let Some(answer) = self.in_flight.front_mut().and_then(|flight| flight.answer.take())
        {
            let Some(flight) = self.in_flight.pop_front() else { break };
            let place = self.entries.iter().position(|entry| entry.id == flight.entry);
            let Some(place) = place else { continue };
            self.end(place, answer, &mut events);
        }
        if self.is_rewinding && self.in_flight.is_empty() {
            self.rewind();
        }
        events
    }

    fn end(&mut self, place: usize, answer: Answer, events: &mut Vec<Event<B>>) {
        #[cfg(test)]
        let answer = self.mutated(answer);
        match answer {
            // Also behind a batch that failed: what was appended once is not sent again.
            Answer::Acknowledged => {
                let Some(entry) = self.entries.remove(place) else { return };
                self.sent -= 1;
                self.is_confirmed = !self.is_rewinding;
                events.push(Event::Acknowledged(entry.batch));
                return;
            }
            Answer::NotNow => {}
            Answer::Unknown => self.entries[place].is_uncertain = true,
            // Behind a batch that failed, that is how it has to be.
            Answer::SequenceLost => self.needs_epoch |= !self.is_rewinding,
            Answer::Refused(records) => self.refused(place, &records, Event::Refused, events),
            Answer::TooLarge => self.refused(place, &[], Event::TooLarge, events),
        }
        self.is_rewinding = true;
    }

    /// Cuts a refused batch: what is at fault ends, the rest goes again. Where nothing is named,
    /// halves go again until it is one record.
    fn refused(
        &mut self,
        place: usize,
        records: &[u32],
        end: fn(B) -> Event<B>,
        events: &mut Vec<Event<B>>,
    ) {
        let Some(entry) = self.entries.remove(place) else { return };
        let base_sequence = entry.base_sequence;
        let count = entry.batch.records();
        let known = records.iter().any(|record| *record < count);
        // Its numbers may be taken already, and so can't be given to fewer records.
        self.needs_epoch |= entry.is_uncertain;
        let mut rest = Vec::new();
        if count == 1 {
            events.push(end(entry.batch));
        } else if known {
            let mut at_fault: Vec<_> =
                records.iter().copied().filter(|record| *record < count).collect();
            at_fault.sort_unstable();
            at_fault.dedup();
            cut_out(entry.batch, &at_fault, &mut rest, |batch| events.push(end(batch)));
        } else {
            let (first, second) = entry.batch.split_at(count / 2);
            rest.extend([first, second]);
        }
        // Behind it no batch was taken: their numbers move up.
        for entry in self.entries.iter_mut().skip(place) {
            entry.base_sequence = None;
        }
        self.next_sequence = base_sequence.unwrap_or(self.next_sequence);
        #[cfg(test)]
        if self.mutation == Some(model::Mutation::SequenceAdvancedOnRefusal) {
            self.next_sequence = advanced(self.next_sequence, count);
        }
        for batch in rest.into_iter().rev() {
            let entry = self.entry(batch);
            self.entries.insert(place, entry);
        }
    }

    /// All answers are in: what is left goes again, one by one at first.
    fn rewind(&mut self) {
        (self.is_rewinding, self.is_confirmed, self.sent) = (false, false, 0);
        #[cfg(test)]
        if self.mutation == Some(model::Mutation::RetryOutOfOrder) && self.entries.len() > 1 {
            self.entries.swap(0, 1);
        }
        // A sending of theirs may yet arrive, under numbers that others have by then.
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

/// Takes the records at fault, in rising order, out of a batch; what is between them stays together.
fn cut_out<B: Batch>(batch: B, at_fault: &[u32], rest: &mut Vec<B>, mut ended: impl FnMut(B)) {
    let (mut left, mut begin) = (Some(batch), 0);
    for record in at_fault {
        let Some(mut batch) = left.take() else { return };
        if *record > begin {
            let (sound, others) = batch.split_at(*record - begin);
            rest.push(sound);
            batch = others;
        }
        if batch.records() > 1 {
            let (one, others) = batch.split_at(1);
            ended(one);
            left = Some(others);
        } else {
            ended(batch);
        }
        begin = *record + 1;
    }
    rest.extend(left);
}

/// Sequence numbers wrap round after `i32::MAX` (KIP-98).
fn advanced(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    next as i32
}
