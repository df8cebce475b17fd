//! The id of an event, as it is in the outbox and in the header of a record.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    Event,
    record::{DEBEZIUM_ID_HEADER, EVENT_ID_HEADER, event_id, without_envelope},
};

/// An event's id, in little memory: millions of them are held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum EventId {
    /// A UUID in its usual form.
    Uuid(u128),
    Text(Box<str>),
}

impl EventId {
    /// Two ids are equal if their texts are.
    pub fn of(text: &str) -> Self {
        let uuid = Uuid::try_parse(text).ok();
        let usual = uuid
            .filter(|uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text);
        usual.map_or_else(|| EventId::Text(text.into()), |uuid| EventId::Uuid(uuid.as_u128()))
    }

    /// Returns the id that the record of an event has. It is that of the row's column, with its
    /// blanks, where records are made as Debezium's.
    pub fn of_event(event: &Event) -> Self {
        let in_header = event.row().and_then(|row| row.id_header.as_deref());
        match in_header.and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) => EventId::of(&without_envelope(id)),
            None => EventId::of(event.id()),
        }
    }

    /// Returns the id of the event of a record with these headers, from this header or else the
    /// usual ones, which records of factlib have.
    pub fn of_headers(headers: &[(String, Option<Bytes>)], header: Option<&str>) -> Option<Self> {
        let usual = [DEBEZIUM_ID_HEADER, EVENT_ID_HEADER];
        let id = event_id(headers, header.into_iter().chain(usual))?;
        Some(EventId::of(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "406c07f3-26f0-4eea-a50c-109940064b8f";

    #[test]
    fn ids_are_equal_only_if_their_texts_are() {
        assert_eq!(EventId::of(ID), EventId::Uuid(Uuid::try_parse(ID).expect("a UUID").as_u128()));
        for other in [ID.to_uppercase(), ID.replace('-', ""), format!("{{{ID}}}")] {
            assert_ne!(EventId::of(&other), EventId::of(ID), "{other}");
        }
    }
}
