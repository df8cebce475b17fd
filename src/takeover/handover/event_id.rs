//! The id of an event, as it is in the outbox and in the header of a record.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::Event;

/// Headers that may hold an event's id: that of Debezium's outbox router, and that of factlib.
const ID_HEADERS: [&str; 2] = ["id", "event_id"];

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
        let value = |wanted: &str| {
            let (_, value) = headers.iter().find(|(name, _)| name == wanted)?;
            std::str::from_utf8(value.as_deref()?).ok()
        };
        let text = header.into_iter().chain(ID_HEADERS).find_map(value)?;
        let text = without_envelope(text);
        (!text.is_empty()).then(|| EventId::of(&text))
    }
}

/// Takes a text out of what Kafka Connect's header converters make of it: `"text"` in JSON, and
/// `{"schema": …, "payload": "text"}`.
fn without_envelope(text: &str) -> Cow<'_, str> {
    if !text.starts_with(['"', '{']) {
        return Cow::Borrowed(text);
    }
    match serde_json::from_str(text) {
        Ok(Value::String(text)) => Cow::Owned(text),
        Ok(Value::Object(mut with_schema)) => match with_schema.remove("payload") {
            Some(Value::String(text)) => Cow::Owned(text),
            Some(Value::Number(number)) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(text),
        },
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "406c07f3-26f0-4eea-a50c-109940064b8f";

    fn id(headers: &[(&str, &str)], header: Option<&str>) -> Option<EventId> {
        let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
        EventId::of_headers(&headers.collect::<Vec<_>>(), header)
    }

    #[test]
    fn the_id_is_read_from_the_header_as_each_converter_writes_it() {
        let with_schema = format!(r#"{{"schema":{{"type":"string"}},"payload":"{ID}"}}"#);
        for value in [ID, &format!("\"{ID}\""), &with_schema] {
            let found = id(&[("other", "1"), ("id", value)], None);
            assert_eq!(found, Some(EventId::of(ID)), "{value}");
        }
        assert_eq!(id(&[("event_id", "7")], None), Some(EventId::of("7")));
        assert_eq!(id(&[("key", "7"), ("id", "8")], Some("key")), Some(EventId::of("7")));
        assert_eq!(id(&[("id", "8")], Some("key")), Some(EventId::of("8")));
        assert_eq!(id(&[("id", "")], None), None);
        assert_eq!(id(&[("id", "{")], None), Some(EventId::of("{")));
    }

    #[test]
    fn ids_are_equal_only_if_their_texts_are() {
        assert_eq!(EventId::of(ID), EventId::Uuid(Uuid::try_parse(ID).expect("a UUID").as_u128()));
        for other in [ID.to_uppercase(), ID.replace('-', ""), format!("{{{ID}}}")] {
            assert_ne!(EventId::of(&other), EventId::of(ID), "{other}");
        }
    }
}
