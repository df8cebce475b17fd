//! What an event is as a plain record, or why it can't be one.

use rdkafka::message::Headers;

use super::partition::of_key;
use crate::{
    Error, ErrorKind, Event, Result,
    format::MadeRecord,
    kafka::record::{event_headers, record_key, record_place, record_value},
    schema_registry::Prefixes,
};

/// Of a record in a message set: its offset, sizes, checksum and attributes.
const OVERHEAD: usize = 26;

/// An event and what its record is made of.
pub(super) struct Plain<'a> {
    event: &'a Event,
    made: Result<Option<MadeRecord>>,
}

impl<'a> Plain<'a> {
    pub fn new(event: &'a Event, topic: &str, prefixes: &Prefixes) -> Self {
        Plain { event, made: event.made(topic, prefixes) }
    }

    pub fn key(&self) -> &[u8] {
        match &self.made {
            Ok(Some(made)) => &made.key,
            _ => record_key(self.event),
        }
    }

    pub fn value(&self) -> Option<&[u8]> {
        match &self.made {
            Ok(Some(made)) => made.value.as_deref(),
            _ => record_value(self.event),
        }
    }

    /// Its size in a request.
    pub fn size(&self) -> usize {
        OVERHEAD + self.key().len() + self.value().map_or(0, <[u8]>::len)
    }

    /// Its partition, of a topic with so many.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: what it would have to have that a plain record has not; or
    /// why there can be no record of the event.
    pub fn place(&self, partitions: i32) -> Result<i32> {
        let made = self.made.as_ref().map_err(Clone::clone)?;
        // The crate would send either as null, which means something else.
        if self.key().is_empty() {
            return Err(refused("sends no empty key"));
        }
        if self.value().is_some_and(<[u8]>::is_empty) {
            return Err(refused("sends no empty value"));
        }
        if let Some(name) = lost_header(self.event, made.as_ref()) {
            return Err(refused(&format!("sends no headers, and it has {name:?}")));
        }
        let (partition, time) = record_place(self.event);
        match (made.as_ref().and_then(|made| made.partition).or(partition), time) {
            (_, Some(_)) => Err(refused("sends no time, and it asks for one")),
            (Some(partition), _) if (0..partitions).contains(&partition) => Ok(partition),
            (Some(partition), _) => {
                let what = format!("its topic has no partition {partition}");
                Err(Error::new(ErrorKind::RecordRefused, what))
            }
            (None, None) => Ok(of_key(self.key(), partitions)),
        }
    }
}

/// A header that a handler gave it. The others say again what the value says.
fn lost_header<'a>(event: &'a Event, made: Option<&'a MadeRecord>) -> Option<&'a str> {
    let of_handler = event.row().and_then(|row| row.headers.first());
    if let Some((name, _)) = of_handler {
        return Some(name);
    }
    let made = made?;
    let usual = event_headers(event);
    let is_usual = |name: &str, value: Option<&[u8]>| {
        name == "content-type" || usual.iter().any(|own| (own.key, own.value) == (name, value))
    };
    let mut own = made.headers.iter();
    let lost = own.find(|(name, value)| !is_usual(name, value.as_deref()));
    lost.map(|(name, _)| &**name)
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::RecordRefused, format!("kafka.client = \"kafka\" {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::{Lsn, emit::Fact, event::Change};

    fn event(fact: Fact) -> Event {
        let raw = fact.to_event().expect("valid").encode_to_vec();
        Event::parse(raw.into(), Lsn::ZERO).expect("well formed")
    }

    fn place(event: &Event) -> Result<i32> {
        Plain::new(event, "t", &Prefixes::default()).place(6)
    }

    fn why(place: Result<i32>) -> String {
        let error = place.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RecordRefused);
        error.to_string()
    }

    #[test]
    fn it_goes_where_its_key_or_its_emitter_says() {
        let by_key = place(&event(Fact::new("user", "21", "e"))).expect("a place");
        assert_eq!(by_key, of_key(b"21", 6));
        let named = place(&event(Fact::new("user", "21", "e").partition(5))).expect("a place");
        assert_eq!(named, 5);
        let beyond = place(&event(Fact::new("user", "21", "e").partition(6)));
        assert_eq!(why(beyond), "its topic has no partition 6");
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        let usual = event(Fact::new("user", "u1", "e").metadata("tenant", "7"));
        let timed = event(Fact::new("user", "u1", "e").timestamp_ms(7));
        let client = "kafka.client = \"kafka\"";
        assert_eq!(why(place(&timed)), format!("{client} sends no time, and it asks for one"));
        let headers = vec![("tenant".into(), Some(Bytes::from_static(b"7")))];
        let change = Change { headers, ..Change::default() };
        let changed = usual.clone().changed(change).expect("legal");
        let text = format!("{client} sends no headers, and it has \"tenant\"");
        assert_eq!(why(place(&changed)), text);
        let made = |change: fn(&mut MadeRecord)| {
            let mut made = MadeRecord::usual(&usual);
            change(&mut made);
            Plain { event: &usual, made: Ok(Some(made)) }.place(6)
        };
        made(|_| ()).expect("what the value says again may be left out");
        let own = made(|made| made.set_header("event_type", Bytes::from_static(b"another")));
        assert!(why(own).contains("\"event_type\""));
        assert!(why(made(|made| made.key = Bytes::new())).contains("empty key"));
        assert!(why(made(|made| made.value = Some(Bytes::new()))).contains("empty value"));
        made(|made| made.value = None).expect("a tombstone is a record");
    }
}
