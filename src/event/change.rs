//! Applies a handler's changes to an event before it is sent.

use bytes::Bytes;
use prost::Message;

use super::{Event, RowRecord};
use crate::{
    Error, ErrorKind, Result,
    record::{Headers, is_legal_header},
};

/// Changes to an event; fields that are not set stay as they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub id: Option<String>,
    pub event_type: Option<String>,
    pub payload: Option<Bytes>,
    pub key: Option<String>,
    /// Headers to add behind those that the event has.
    pub headers: Headers,
}

impl Event {
    /// Returns a changed copy of the event.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if the event can't be decoded or a header name is not legal.
    pub(crate) fn changed(&self, change: Change) -> Result<Event> {
        let Change { id, event_type, payload, key, headers } = change;
        let mut event = self.clone();
        if id.is_some() || event_type.is_some() || payload.is_some() {
            let mut wire = self.decode()?;
            event.head.texts.rename(id.as_deref(), event_type.as_deref());
            wire.id = id.unwrap_or(wire.id);
            wire.event_type = event_type.unwrap_or(wire.event_type);
            if let Some(payload) = payload {
                wire.payload = payload;
                event.row.iter_mut().for_each(|row| row.is_tombstone = false);
            }
            let payload_is_value = self.row().is_some_and(|row| row.payload_is_value);
            event.raw = if payload_is_value { wire.payload } else { wire.encode_to_vec().into() };
        }
        if let Some(key) = key {
            event.head.overrides.get_or_insert_default().key = Some(key.into());
        }
        if let Some((name, _)) = headers.iter().find(|(name, _)| !is_legal_header(name)) {
            let what = format!("the name of header {name:?} has a NUL, which can't be sent");
            return Err(Error::new(ErrorKind::RecordRefused, what));
        }
        if !headers.is_empty() {
            event.row.get_or_insert_with(|| Box::new(RowRecord::default())).headers.extend(headers);
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lsn, emit::Fact, format};

    fn event() -> Event {
        let fact = Fact::new("user", "u1", "created").payload("old").metadata("tenant", "7");
        let raw = fact.to_event().expect("valid").encode_to_vec();
        Event::parse(raw.into(), Lsn::new(7)).expect("well formed")
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_to_the_byte() {
        let event = event();
        let same = event.changed(Change::default()).expect("nothing to refuse");
        assert_eq!(same.raw().as_ptr(), event.raw().as_ptr());
        assert!(same.row().is_none());
    }

    #[test]
    fn what_is_changed_is_so_in_value_key_and_headers() {
        let change = Change {
            id: Some("i2".into()),
            event_type: Some("seen".into()),
            payload: Some(Bytes::from_static(b"new")),
            key: Some("k".into()),
            headers: vec![("h".into(), Some(Bytes::from_static(b"v")))],
        };
        let changed = event().changed(change).expect("legal");
        let wire = changed.decode().expect("well formed");
        assert_eq!(
            (&wire.id[..], &wire.event_type[..], &wire.payload[..]),
            ("i2", "seen", &b"new"[..])
        );
        assert_eq!(wire.metadata["tenant"], "7");
        let record = format::default_record(&changed);
        assert_eq!((changed.lsn(), &record.key[..]), (Lsn::new(7), &b"k"[..]));
        assert_eq!(record.value.as_ref(), Some(changed.raw()));
        let has = |name: &str| {
            let header = record.headers.iter().find(|(key, _)| key == name);
            header.and_then(|(_, value)| value.as_deref())
        };
        assert_eq!((has("event_id"), has("event_type")), (Some(&b"i2"[..]), Some(&b"seen"[..])));
        assert_eq!(has("h"), Some(&b"v"[..]));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_refused() {
        let headers = vec![("n\0l".into(), None)];
        let error = event().changed(Change { headers, ..Change::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordRefused);
        let text = "the name of header \"n\\0l\" has a NUL, which can't be sent";
        assert_eq!(error.to_string(), text);
    }
}
