//! What an event is as a plain record, or why it can't be one.

use super::partition::of_key;
use crate::{
    Error, ErrorKind, Event, Result,
    format::MadeRecord,
    kafka::record::{event_headers, record_key, record_place, record_value},
};
use rdkafka::message::Headers;

/// Of a record in a message set: its offset, sizes, checksum and attributes.
const OVERHEAD: usize = 26;

/// An event and what its record is made of.
pub(super) struct Plain<'a> {
    event: &'a Event,
    made: Result<Option<MadeRecord>>,
}

impl<'a> Plain<'a> {
    pub fn new(event: &'a Event) -> Self {
        Plain { event, made: event.made() }
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
fn lost_header<'a>(event: &Event, made: Option<&'a MadeRecord>) -> Option<&'a str> {
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
