//! Refused records that transactions remember.
//!
//! A transaction in which a record was refused can't be committed: it is aborted and done again
//! without that record. When a batch was refused, nobody knows which record is the cause: its
//! records are suspects, and are tried one by one before the next transaction begins.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::record::{LetterForm, record_place};
use crate::{Error, Event, Lsn, schema_registry::Prefixes};

/// Shared by the sessions of a pipeline.
#[derive(Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    refused: HashMap<Fingerprint, Refusal>,
    suspects: Vec<Suspect>,
}

/// Identifies a record: one event may become several records, and a dead letter.
type Fingerprint = (Arc<str>, Lsn, LetterForm, u64);

struct Refusal {
    error: Error,
    /// The open transaction leaves the event out.
    heeded: bool,
}

/// A record of a batch that was refused.
pub(crate) struct Suspect {
    pub topic: Arc<str>,
    pub event: Event,
    pub prefixes: Prefixes,
}

impl Refusals {
    /// The event's record was refused for good.
    pub fn note(&self, topic: &Arc<str>, event: &Event, error: &Error) {
        let refusal = Refusal { error: error.clone(), heeded: false };
        self.lock().refused.insert(fingerprint(topic, event), refusal);
    }

    /// The event's record was in a batch that was refused.
    pub fn suspect(&self, topic: &Arc<str>, event: &Event, prefixes: &Prefixes) {
        let (topic, event, prefixes) = (Arc::clone(topic), event.clone(), prefixes.clone());
        self.lock().suspects.push(Suspect { topic, event, prefixes });
    }

    /// True where there are any.
    pub fn has_suspects(&self) -> bool {
        !self.lock().suspects.is_empty()
    }

    /// The suspects so far, in the order in which they were sent.
    pub fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut self.lock().suspects)
    }

    /// The refusal of the event, if there was one; the open transaction then leaves the event out.
    pub fn of(&self, topic: &Arc<str>, event: &Event) -> Option<Error> {
        let mut known = self.lock();
        if known.refused.is_empty() {
            return None;
        }
        let refusal = known.refused.get_mut(&fingerprint(topic, event))?;
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

fn fingerprint(topic: &Arc<str>, event: &Event) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    (event.id(), event.key(), event.raw(), record_place(event)).hash(&mut hasher);
    event.row().map(|row| &row.headers).hash(&mut hasher);
    (Arc::clone(topic), event.lsn(), LetterForm::of(event), hasher.finish())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::{ErrorKind, proto::OutboxEvent};

    fn event() -> Event {
        let fact = OutboxEvent { aggregate_type: "order".into(), ..OutboxEvent::default() };
        Event::parse(fact.encode_to_vec().into(), Lsn::new(7)).expect("an event")
    }

    fn too_large() -> Error {
        Error::new(ErrorKind::RecordTooLarge, "too large")
    }

    #[test]
    fn a_refusal_is_known_until_a_transaction_without_the_event_is_committed() {
        let event = event();
        let (topic, other): (Arc<str>, Arc<str>) = ("orders".into(), "letters".into());
        let refusals = Refusals::default();
        refusals.note(&topic, &event, &too_large());
        assert!(refusals.of(&other, &event).is_none());
        // One that did not come as far as the event.
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_some());
        refusals.undone();
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_some());
        refusals.committed();
        assert!(refusals.of(&topic, &event).is_none());
    }

    #[test]
    fn a_letter_whose_bytes_are_in_the_table_is_another_record() {
        let topic: Arc<str> = "letters".into();
        let letter =
            event().refused(crate::Refusal::new(Error::new(ErrorKind::RecordRefused, "no topic")));
        let refusals = Refusals::default();
        refusals.note(&topic, &letter, &too_large());
        assert!(refusals.of(&topic, &letter).is_some());
        assert!(refusals.of(&topic, &letter.kept_in_table()).is_none());
    }

    #[test]
    fn suspects_are_tried_once() {
        let refusals = Refusals::default();
        refusals.suspect(&"t".into(), &event(), &Prefixes::default());
        let suspects = refusals.take_suspects();
        assert_eq!((suspects.len(), refusals.take_suspects().len()), (1, 0));
    }
}
