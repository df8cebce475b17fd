//! What an event is as a plain record, or why it can't be one.

use super::partition::of_key;
use crate::{
    Error, ErrorKind, Event, Result,
    kafka::record::{event_headers, record_key, record_place, record_value},
};
use rdkafka::message::Headers;

/// Of a record in a message set: its offset, sizes, checksum and attributes.
const OVERHEAD: usize = 26;

/// The partition of the event's record, of a topic with so many.
///
/// # Errors
/// [`ErrorKind::RecordRefused`]: what it would have to have that a plain record has not.
pub(super) fn place(event: &Event, partitions: i32) -> Result<i32> {
    // The crate would send either as null, which means something else.
    if record_key(event).is_empty() {
        return Err(refused("sends no empty key"));
    }
    if record_value(event).is_some_and(<[u8]>::is_empty) {
        return Err(refused("sends no empty value"));
    }
    if let Some(name) = lost_header(event) {
        return Err(refused(&format!("sends no headers, and it has {name:?}")));
    }
    match record_place(event) {
        (_, Some(_)) => Err(refused("sends no time, and it asks for one")),
        (Some(partition), _) if (0..partitions).contains(&partition) => Ok(partition),
        (Some(partition), _) => {
            let what = format!("its topic has no partition {partition}");
            Err(Error::new(ErrorKind::RecordRefused, what))
        }
        (None, None) => Ok(of_key(record_key(event), partitions)),
    }
}

/// Its size in a request.
pub(super) fn size(event: &Event) -> usize {
    OVERHEAD + record_key(event).len() + record_value(event).map_or(0, <[u8]>::len)
}

/// A header that a handler gave it. The others say again what the value says.
fn lost_header(event: &Event) -> Option<&str> {
    let made = event.made()?;
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
