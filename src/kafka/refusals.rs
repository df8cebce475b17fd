//! Refused records that transactions remember.
//!
//! A transaction in which a record was refused can't be committed: it is aborted and done again
//! without that record. When a batch was refused, nobody knows which record is the cause: its
//! records are suspects, and are tried one by one before the next transaction begins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Error,
    record::{RecordId, Records},
};

/// Shared by the sessions of a pipeline.
#[derive(Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    refused: HashMap<RecordId, Refusal>,
    suspects: Vec<Suspect>,
}

struct Refusal {
    error: Error,
    /// The open transaction leaves the event out.
    heeded: bool,
}

/// A record of a batch that was refused.
pub(crate) struct Suspect {
    pub records: Arc<dyn Records>,
    pub index: usize,
}

impl Refusals {
    /// The record was refused for good.
    pub fn note(&self, record: RecordId, error: &Error) {
        let refusal = Refusal { error: error.clone(), heeded: false };
        self.lock().refused.insert(record, refusal);
    }

    /// The record was in a batch that was refused.
    pub fn suspect(&self, records: &Arc<dyn Records>, index: usize) {
        self.lock().suspects.push(Suspect { records: Arc::clone(records), index });
    }

    /// True if there are any.
    pub fn has_suspects(&self) -> bool {
        !self.lock().suspects.is_empty()
    }

    /// The suspects so far, in the order in which they were sent.
    pub fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut self.lock().suspects)
    }

    /// The refusal of the record, if there was one; the open transaction then leaves its event out.
    pub fn of(&self, records: &dyn Records, index: usize) -> Option<Error> {
        let mut known = self.lock();
        if known.refused.is_empty() {
            return None;
        }
        let refusal = known.refused.get_mut(&records.id(index))?;
        refusal.heeded = true;
        Some(refusal.error.clone())
    }

    /// Forgets refusals that the committed transaction heeded: their events do not come again.
    /// Others may be of a later transaction.
    pub fn committed(&self) {
        self.lock().refused.retain(|_, refusal| !refusal.heeded);
    }

    /// Keeps refusals that an aborted transaction heeded: their events come again.
    pub fn undone(&self) {
        self.lock().refused.values_mut().for_each(|refusal| refusal.heeded = false);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{
        ErrorKind, Event, Lsn,
        messages::{AckToken, ByteWindow, TopicBatch, probe::probe},
        proto::OutboxEvent,
    };

    fn event() -> Event {
        let fact = OutboxEvent { aggregate_type: "order".into(), ..OutboxEvent::default() };
        Event::parse(fact.encode_to_vec().into(), Lsn::new(7)).expect("an event")
    }

    fn record(topic: &str, event: Event) -> Arc<dyn Records> {
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        let ack = AckToken::new((0, 0, 0), 1, probe().0, permit);
        let batch = TopicBatch { topic: topic.into(), events: Arc::new(vec![event]), ack };
        batch.into_records(Default::default()).records
    }

    fn too_large() -> Error {
        Error::new(ErrorKind::RecordTooLarge, "too large")
    }

    #[actix::test]
    async fn a_refusal_is_known_until_a_transaction_without_the_event_is_committed() {
        let (record, other) = (record("orders", event()), record("letters", event()));
        let refusals = Refusals::default();
        refusals.note(record.id(0), &too_large());
        assert!(refusals.of(&*other, 0).is_none());
        // One that did not come as far as the event.
        refusals.committed();
        assert!(refusals.of(&*record, 0).is_some());
        refusals.undone();
        refusals.committed();
        assert!(refusals.of(&*record, 0).is_some());
        refusals.committed();
        assert!(refusals.of(&*record, 0).is_none());
    }

    #[actix::test]
    async fn a_letter_whose_bytes_are_in_the_table_is_another_record() {
        let letter =
            event().refused(crate::Refusal::new(Error::new(ErrorKind::RecordRefused, "no topic")));
        let refusals = Refusals::default();
        let whole = record("letters", letter.clone());
        refusals.note(whole.id(0), &too_large());
        assert!(refusals.of(&*whole, 0).is_some());
        assert!(refusals.of(&*record("letters", letter.kept_in_table()), 0).is_none());
    }

    #[actix::test]
    async fn suspects_are_tried_once() {
        let refusals = Refusals::default();
        refusals.suspect(&record("t", event()), 0);
        let suspects = refusals.take_suspects();
        assert_eq!((suspects.len(), refusals.take_suspects().len()), (1, 0));
    }
}
