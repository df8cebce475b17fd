//! Splits a refused batch: takes out the records at fault, and sends the others again.

use std::collections::VecDeque;

use super::{Batch, Event, PartitionQueue, answer::in_rising_order};
#[cfg(test)]
use super::{advanced, model};

impl<B: Batch> PartitionQueue<B> {
    /// Splits a refused batch: records at fault get their final result, the others are sent again.
    /// If the broker names no record, the halves are sent again, down to single records.
    pub(super) fn refused(
        &mut self,
        place: usize,
        records: &[u32],
        end: fn(B) -> Event<B>,
        events: &mut Vec<Event<B>>,
    ) {
        self.replace(place, |batch| {
            let (count, mut rest) = (batch.records(), Vec::new());
            let at_fault = in_rising_order(records, count);
            if count == 1 {
                events.push(end(batch));
            } else if at_fault.is_empty() {
                let (first, second) = batch.split_at(count / 2);
                rest.extend([first, second]);
            } else {
                cut_out(batch, &at_fault, &mut rest, |batch| events.push(end(batch)));
            }
            rest
        });
    }

    /// Stops the queue at a record: what stands before it is sent again, without the records at
    /// fault; everything behind it is not.
    pub(super) fn stop(
        &mut self,
        place: usize,
        refused: &[u32],
        at: u32,
        events: &mut Vec<Event<B>>,
    ) {
        self.is_stopped = true;
        let mut behind: VecDeque<_> = self.entries.drain(place + 1..).collect();
        let mut rest_of_batch = None;
        self.replace(place, |batch| {
            let (at, mut rest) = (at.min(batch.records() - 1), Vec::new());
            let (before, batch) = match at {
                0 => (None, batch),
                at => {
                    let (before, batch) = batch.split_at(at);
                    (Some(before), batch)
                }
            };
            let (one, others) = match batch.records() {
                1 => (batch, None),
                _ => {
                    let (one, others) = batch.split_at(1);
                    (one, Some(others))
                }
            };
            if let Some(before) = before {
                let at_fault = in_rising_order(refused, before.records());
                cut_out(before, &at_fault, &mut rest, |batch| events.push(Event::Refused(batch)));
            }
            events.push(Event::Refused(one));
            rest_of_batch = others;
            rest
        });
        if let Some(batch) = rest_of_batch {
            let entry = self.entry(batch);
            behind.push_front(entry);
        }
        #[cfg(test)]
        match self.mutation {
            Some(model::Mutation::SendsBehindAStop) => self.entries.append(&mut behind),
            Some(model::Mutation::DropsBeforeAStop) => {
                behind.extend(self.entries.drain(place..));
            }
            _ => {}
        }
        self.behind.append(&mut behind);
    }

    /// Replaces a refused batch by the parts of it that are sent again.
    fn replace(&mut self, place: usize, cut: impl FnOnce(B) -> Vec<B>) {
        let Some(entry) = self.entries.remove(place) else { return };
        let base_sequence = entry.base_sequence;
        #[cfg(test)]
        let count = entry.batch.records();
        // An earlier attempt may have used these sequence numbers, so fewer records cannot reuse
        // them.
        self.needs_epoch |= entry.is_uncertain;
        // The broker accepted no batch behind the refused one, so these batches get new numbers.
        for entry in self.entries.iter_mut().skip(place) {
            entry.base_sequence = None;
        }
        self.next_sequence = base_sequence.unwrap_or(self.next_sequence);
        #[cfg(test)]
        if self.mutation == Some(model::Mutation::SequenceAdvancedOnRefusal) {
            self.next_sequence = advanced(self.next_sequence, count);
        }
        for batch in cut(entry.batch).into_iter().rev() {
            let entry = self.entry(batch);
            self.entries.insert(place, entry);
        }
    }
}

/// Takes the records at fault, in rising order, out of a batch; the records between them stay
/// together.
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
