//! Makes a plain record of an event's record, or says why that is impossible.

use factlib_kafka::partitioner::of_key;

use crate::{
    Error, ErrorKind, Result,
    record::{Record, Records},
};

/// Of a record in a message set: its offset, sizes, checksum and attributes.
const OVERHEAD: usize = 26;

/// A record, if there can be one.
pub(super) struct Plain {
    record: Result<Record>,
    /// The name of a header that says more than the value, which would be lost.
    lost_header: Option<String>,
}

impl Plain {
    pub fn new(records: &dyn Records, index: usize) -> Self {
        let record = records.record(index);
        let lost_header = record.as_ref().ok().and_then(|made| records.own_header(index, made));
        Plain { record, lost_header }
    }

    pub fn key(&self) -> &[u8] {
        self.record.as_ref().map_or(&[][..], |record| &record.key[..])
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.record.as_ref().ok()?.value.as_deref()
    }

    /// Its size in a request.
    pub fn size(&self) -> usize {
        OVERHEAD + self.key().len() + self.value().map_or(0, <[u8]>::len)
    }

    /// Its partition in a topic with this number of partitions.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`]: what it would have to have that a plain record has not; or
    /// why there can be no record of the event.
    pub fn partition(&self, partitions: i32) -> Result<i32> {
        let record = self.record.as_ref().map_err(Clone::clone)?;
        // The crate would send either as null, which means something else.
        if self.key().is_empty() {
            return Err(refused("sends no empty key"));
        }
        if self.value().is_some_and(<[u8]>::is_empty) {
            return Err(refused("sends no empty value"));
        }
        if let Some(name) = &self.lost_header {
            return Err(refused(&format!("sends no headers, and it has {name:?}")));
        }
        match (record.partition, record.timestamp_ms) {
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

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::RecordRefused, format!("kafka.client = \"kafka\" {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::{
        Event, Lsn,
        config::{Config, Format, Route},
        emit::Fact,
        event::Change,
        messages::{AckToken, ByteWindow, TopicBatch, probe::probe},
        routing::{CachedRoutes, OutgoingEvents, Routed},
    };

    fn event(fact: Fact) -> Event {
        let raw = fact.to_event().expect("valid").encode_to_vec();
        Event::parse(raw.into(), Lsn::ZERO).expect("well formed")
    }

    fn place_of(events: OutgoingEvents) -> Result<i32> {
        let (events, plans) = events.into_parts();
        let permit = ByteWindow::new(1).try_acquire(1).expect("room");
        let ack = AckToken::new((0, 0, 0), 1, probe().0, permit).with_plans(plans);
        let batch = TopicBatch { topic: "t".into(), events: Arc::new(events), ack };
        Plain::new(&*batch.into_records(Default::default()).records, 0).partition(6)
    }

    fn place(event: &Event) -> Result<i32> {
        place_of(vec![event.clone()].into())
    }

    /// By a route, to JSON.
    fn routed(event: &Event, change: fn(&mut Route)) -> Result<i32> {
        let mut route = Route { format: Some(Format::Json), ..Route::default() };
        change(&mut route);
        let mut config = Config { route: vec![route], ..Config::default() };
        config.kafka.topic_prefix = Some("t".into());
        let mut routing = CachedRoutes::new(&config).expect("routes that can be used");
        let Routed::One(_, outgoing) = routing.route(event.clone()) else { panic!("one record") };
        assert!(outgoing.plan.is_some());
        place_of([outgoing].into_iter().collect())
    }

    fn why(place: Result<i32>) -> String {
        let error = place.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::RecordRefused);
        error.to_string()
    }

    #[actix::test]
    async fn it_goes_where_its_key_or_its_emitter_says() {
        let by_key = place(&event(Fact::new("user", "21", "e"))).expect("a place");
        assert_eq!(by_key, of_key(b"21", 6));
        let named = place(&event(Fact::new("user", "21", "e").partition(5))).expect("a place");
        assert_eq!(named, 5);
        let beyond = place(&event(Fact::new("user", "21", "e").partition(6)));
        assert_eq!(why(beyond), "its topic has no partition 6");
    }

    #[actix::test]
    async fn what_would_be_lost_is_refused() {
        let usual = event(Fact::new("user", "u1", "e").metadata("tenant", "7"));
        let timed = event(Fact::new("user", "u1", "e").timestamp_ms(7));
        let client = "kafka.client = \"kafka\"";
        assert_eq!(why(place(&timed)), format!("{client} sends no time, and it asks for one"));
        let headers = vec![("tenant".into(), Some(Bytes::from_static(b"7")))];
        let change = Change { headers, ..Change::default() };
        let changed = usual.clone().changed(change).expect("legal");
        let text = format!("{client} sends no headers, and it has \"tenant\"");
        assert_eq!(why(place(&changed)), text);
        routed(&usual, |_| ()).expect("what the value says again may be left out");
        let own = routed(&usual, |route| _ = route.headers.insert("event_type".into(), "x".into()));
        assert!(why(own).contains("\"event_type\""));
        let keyless = routed(&usual, |route| route.key = Some(String::new()));
        assert!(why(keyless).contains("empty key"));
        let empty = routed(&usual, |route| route.format = Some(Format::Raw));
        assert!(why(empty).contains("empty value"));
        routed(&usual, |route| route.tombstone = true).expect("a tombstone is a record");
    }
}
