//! An event as it was read from the WAL: its bytes, and the decoded fields that the relay needs.

mod change;
mod head;
mod overrides;
mod table_row;
mod texts;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;
use prost::Message as _;

pub(crate) use self::{change::Change, table_row::RowFields};
use self::{head::Head, overrides::Overrides, texts::Texts};
use crate::{
    Error, ErrorKind, Lsn, Result,
    proto::{OutboxEvent, TraceInfo},
    record::Headers,
};

/// Values of `created_at` that are microseconds: every time from 1973 to 5138 is within this range
/// in microseconds, and beyond it in nanoseconds.
const MICROSECONDS: std::ops::Range<i64> = 100_000_000_000_000..100_000_000_000_000_000;

/// An event of a committed transaction.
///
/// Its [`raw`](Self::raw) bytes are the `OutboxEvent` protobuf as the emitter wrote it, unknown
/// fields included. They, and all texts here, are slices of the bytes read from the socket. For a
/// row of an outbox table, the bytes are built from the row; with Debezium's conventions they are
/// the payload alone. The relay does not decode the payload; handlers that need it call
/// [`decode`](Self::decode).
#[derive(Clone)]
pub struct Event {
    raw: Bytes,
    head: Head,
    lsn: Lsn,
    transaction: Option<TransactionInfo>,
    refusal: Option<Arc<Refusal>>,
    row: Option<Box<RowRecord>>,
}

/// Properties of a record that are not in its `OutboxEvent`: set by an outbox table's row or by a
/// handler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RowRecord {
    /// The prefix of its default topic; none for the pipeline's own prefix.
    pub topic_prefix: Option<Arc<str>>,
    /// Additional headers; the value is none if the column is NULL.
    pub headers: Headers,
    /// The value is the payload alone, and the headers follow Debezium's conventions.
    pub payload_is_value: bool,
    /// The payload is NULL, so the record has no value.
    pub is_tombstone: bool,
    /// The record's time, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The record's key as bytes, if it is not the text of the aggregate's id.
    pub key: Option<Bytes>,
    /// The record's header `id`, if it is not the event's id.
    pub id_header: Option<Bytes>,
    /// The record's partition.
    pub partition: Option<i32>,
    /// For a row that is not an event: the header that says how to read it.
    pub parked: Option<String>,
}

/// The reason why an event can never be delivered to its topic or its handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The refusal.
    pub error: Error,
    /// The topic it should have gone to; none if that could not be determined.
    pub topic: Option<Arc<str>>,
    /// The aggregate type of the handler that refused it, [`ANY`](crate::handlers::ANY) for the
    /// handler of all other types; none if a topic refused it.
    pub handler: Option<Arc<str>>,
    /// True if the event's bytes go to the table of dead letters.
    pub(crate) kept: bool,
    /// True if nothing is wrong with the event: it waits behind one of its aggregate that can't be
    /// delivered.
    pub(crate) waits: bool,
}

impl Refusal {
    /// Creates a refusal without a topic or a handler.
    pub(crate) fn new(error: Error) -> Self {
        // A record too large for its topic is probably too large for the dead-letter topic.
        let kept = error.kind() == ErrorKind::RecordTooLarge;
        Refusal { error, topic: None, handler: None, kept, waits: false }
    }

    /// Creates that of an event for `topic` that can't be delivered and holds back the later ones
    /// of its aggregate.
    pub(crate) fn first_held(error: Error, topic: Option<Arc<str>>) -> Self {
        Refusal { topic, kept: false, ..Refusal::new(error) }
    }

    /// Creates that of an event for `topic` that waits behind such an event.
    pub(crate) fn waiting(topic: Arc<str>) -> Self {
        let what = "an earlier event of its aggregate can't be delivered";
        let error = Error::new(ErrorKind::RecordBlocked, what);
        Refusal { waits: true, ..Refusal::first_held(error, Some(topic)) }
    }
}

/// The transaction that an event was committed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Transaction id, as `pg_current_xact_id()` cut to 32 bits.
    pub xid: u32,
    /// Commit time, Unix nanoseconds.
    pub commit_time_ns: i64,
    /// Position of the commit record, which orders transactions.
    pub(crate) commit_lsn: Lsn,
    /// Number of the event in its transaction, from 1, the same each time that it is read.
    pub(crate) ordinal: u64,
}

/// Position of an event in the stream. Its own LSN does not order it: all rows of a COPY that share
/// a page have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamPosition {
    /// Position of the commit record; of a non-transactional message, its own.
    pub commit_lsn: Lsn,
    /// Number of the event in its transaction, from 1; 0 without a transaction.
    pub ordinal: u64,
}

impl Event {
    /// Parses an `OutboxEvent`; `lsn` is the position of the logical message.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if the bytes are not an `OutboxEvent`, or its aggregate type is
    /// empty.
    pub fn parse(raw: Bytes, lsn: Lsn) -> Result<Self> {
        let refused = || {
            let what = format!("the logical message at {lsn} is no OutboxEvent");
            Error::new(ErrorKind::RecordRefused, what)
        };
        let (mut head, has_metadata) =
            Head::read(&raw).map_err(|error| refused().caused_by(error))?;
        if has_metadata {
            head.overrides = Overrides::read(&raw).map_err(|error| {
                let what = format!("the logical message at {lsn} can't be sent as it says");
                Error::new(ErrorKind::RecordRefused, what).caused_by(error)
            })?;
        }
        let overrides = head.overrides.as_mut();
        if let Some(more) = overrides.and_then(|overrides| overrides.trace.take()) {
            head.trace = Some(merged(head.trace.take(), more));
        }
        if head.texts.aggregate_type().is_empty() {
            return Err(refused().caused_by("its aggregate_type is empty"));
        }
        Ok(Event { raw, head, lsn, transaction: None, refusal: None, row: None })
    }

    /// Creates the event of a parked row; `raw` is its record's value.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), if the value is the whole event.
    pub(crate) fn from_row(
        event: OutboxEvent,
        raw: Bytes,
        row: RowRecord,
        lsn: Lsn,
    ) -> Result<Self> {
        let mut event = if row.payload_is_value {
            let texts = [&*event.id, &event.aggregate_type, &event.aggregate_id, &event.event_type];
            let head = Head {
                texts: Texts::copied(texts),
                created_at_ns: event.created_at,
                trace: event.trace_info.map(Box::new),
                overrides: None,
            };
            Event { raw, head, lsn, transaction: None, refusal: None, row: None }
        } else {
            Event::parse(raw, lsn)?
        };
        event.row = Some(Box::new(row));
        Ok(event)
    }

    /// Properties of the record that a table's row or a handler set.
    pub(crate) fn row(&self) -> Option<&RowRecord> {
        self.row.as_deref()
    }

    /// Creates an event from bytes under our prefix that are not an `OutboxEvent`; `error` is the
    /// reason. Its texts are all empty.
    pub(crate) fn malformed(raw: Bytes, lsn: Lsn, error: Error) -> Self {
        let refusal = Some(Arc::new(Refusal::new(error)));
        let head = Head::default();
        Event { raw, head, lsn, transaction: None, refusal, row: None }
    }

    /// Creates an event from a row of an outbox table that is not one. `raw` is the row as JSON,
    /// and `header` says how to read it.
    pub(crate) fn malformed_row(raw: Bytes, header: String, lsn: Lsn, error: Error) -> Self {
        let row = RowRecord { parked: Some(header), ..RowRecord::default() };
        Event { row: Some(Box::new(row)), ..Event::malformed(raw, lsn, error) }
    }

    /// Marks the event as refused.
    pub(crate) fn refused(self, refusal: Refusal) -> Self {
        Event { refusal: Some(Arc::new(refusal)), ..self }
    }

    /// Marks a dead letter that is too large for its topic: its bytes go to the table.
    pub(crate) fn kept_in_table(self) -> Self {
        let kept = self.refusal.as_deref().map(|refusal| Refusal { kept: true, ..refusal.clone() });
        Event { refusal: kept.map(Arc::new), ..self }
    }

    /// Takes the refusal from an event that need not wait any longer.
    pub(crate) fn released(self) -> Self {
        Event { refusal: None, ..self }
    }

    /// The refusal of an event on its way to the dead letters; none for every other event.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_deref()
    }

    pub(crate) fn set_transaction(&mut self, transaction: TransactionInfo) {
        self.transaction = Some(transaction);
    }

    /// Position in the stream.
    pub(crate) fn stream_position(&self) -> StreamPosition {
        match self.transaction {
            Some(TransactionInfo { commit_lsn, ordinal, .. }) => {
                StreamPosition { commit_lsn, ordinal }
            }
            None => StreamPosition { commit_lsn: self.lsn, ordinal: 0 },
        }
    }

    /// The value of its record: the `OutboxEvent` as it was emitted, or the payload alone if its
    /// table follows Debezium's conventions.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The event's id: a UUID if factlib created it, empty if the emitter gave none.
    pub fn id(&self) -> &str {
        self.head.texts.id()
    }

    /// The type of the aggregate that the event is about; never empty.
    pub fn aggregate_type(&self) -> &str {
        self.head.texts.aggregate_type()
    }

    /// The id of the aggregate that the event is about. Events of one aggregate keep their order.
    pub fn aggregate_id(&self) -> &str {
        self.head.texts.aggregate_id()
    }

    /// Type and id of its aggregate.
    pub(crate) fn aggregate(&self) -> (ByteString, ByteString) {
        let share = |text| self.head.texts.share(text);
        (share(self.aggregate_type()), share(self.aggregate_id()))
    }

    /// The event type: a name for what happened.
    pub fn event_type(&self) -> &str {
        self.head.texts.event_type()
    }

    /// The time at which it happened, by its emitter, in Unix nanoseconds.
    ///
    /// The Go library's Python client writes microseconds: a value that would be before 1973 in
    /// nanoseconds is taken as microseconds. The event's bytes stay as they are.
    pub fn created_at_ns(&self) -> i64 {
        let created_at = self.head.created_at_ns;
        if MICROSECONDS.contains(&created_at) {
            created_at.saturating_mul(1_000)
        } else {
            created_at
        }
    }

    /// The key of its record: the aggregate id, unless its metadata overrides it. If the aggregate
    /// id is a `bytea`, the record's key is its bytes, and this is their text.
    pub fn key(&self) -> &str {
        self.override_key().map_or(self.aggregate_id(), |key| key)
    }

    /// The record's key as bytes, if they differ from [`key`](Self::key).
    pub(crate) fn binary_key(&self) -> Option<&Bytes> {
        if self.override_key().is_some() { None } else { self.row()?.key.as_ref() }
    }

    /// The record's key as bytes.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        self.binary_key().map_or(self.key().as_bytes(), |key| key)
    }

    fn override_key(&self) -> Option<&ByteString> {
        self.head.overrides.as_ref().and_then(|overrides| overrides.key.as_ref())
    }

    /// The partition that its metadata or its table's row sets, if any.
    pub fn partition(&self) -> Option<i32> {
        let overrides = self.head.overrides.as_ref();
        overrides.and_then(|overrides| overrides.partition).or_else(|| self.row()?.partition)
    }

    /// The record's time that its metadata sets, if any, in Unix milliseconds.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.head.overrides.as_ref()?.timestamp_ms
    }

    /// The record's time, as its metadata or its table's row sets it, in Unix milliseconds.
    pub(crate) fn record_time_ms(&self) -> Option<i64> {
        let of_row = self.row().and_then(|row| row.timestamp_ms);
        // To some clients, 0 means that no time is set.
        self.timestamp_ms().or(of_row).filter(|ms| *ms > 0)
    }

    /// The trace it was emitted in.
    pub fn trace(&self) -> Option<&TraceInfo> {
        self.head.trace.as_deref()
    }

    /// Position of the logical message or the row in the WAL.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The transaction it was committed in; none for a non-transactional message.
    pub fn transaction(&self) -> Option<TransactionInfo> {
        self.transaction
    }

    /// Decodes the whole event, payload and metadata included.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if a field that [`parse`](Self::parse) skipped is malformed.
    pub fn decode(&self) -> Result<OutboxEvent> {
        if self.row().is_some_and(|row| row.payload_is_value) {
            return Ok(OutboxEvent {
                id: self.id().into(),
                aggregate_type: self.aggregate_type().into(),
                aggregate_id: self.aggregate_id().into(),
                event_type: self.event_type().into(),
                payload: self.raw.clone(),
                created_at: self.head.created_at_ns,
                ..Default::default()
            });
        }
        OutboxEvent::decode(self.raw.clone()).map_err(|error| {
            let what = format!("the logical message at {} is no OutboxEvent", self.lsn);
            Error::new(ErrorKind::RecordRefused, what).caused_by(error)
        })
    }
}

/// Completes `trace_info` with the trace from the metadata.
fn merged(trace: Option<Box<TraceInfo>>, more: Box<TraceInfo>) -> Box<TraceInfo> {
    let Some(mut trace) = trace else { return more };
    for (own, other) in [(&mut trace.trace_id, more.trace_id), (&mut trace.span_id, more.span_id)] {
        if own.is_empty() {
            *own = other;
        }
    }
    for (key, value) in more.metadata {
        trace.metadata.entry(key).or_insert(value);
    }
    trace
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("aggregate_type", &self.aggregate_type())
            .field("aggregate_id", &self.aggregate_id())
            .field("event_type", &self.event_type())
            .field("lsn", &format_args!("{}", self.lsn))
            .field("bytes", &self.raw.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(event: &OutboxEvent) -> Bytes {
        event.encode_to_vec().into()
    }

    #[test]
    fn texts_are_slices_of_the_message() {
        let wire = OutboxEvent {
            id: "i".into(),
            aggregate_type: "user".into(),
            aggregate_id: "user123".into(),
            payload: Bytes::from_static(b"payload"),
            created_at: 7,
            ..Default::default()
        };
        let raw = raw(&wire);
        let event = Event::parse(raw.clone(), Lsn::new(1)).expect("well formed");
        assert_eq!(
            (event.id(), event.aggregate_type(), event.aggregate_id()),
            ("i", "user", "user123")
        );
        assert_eq!((event.created_at_ns(), event.trace()), (7, None));
        assert!(raw.as_ptr_range().contains(&event.aggregate_id().as_ptr()));
        assert_eq!(event.raw().as_ptr(), raw.as_ptr());
        assert_eq!(event.decode().expect("well formed"), wire);
    }

    #[test]
    fn a_time_in_microseconds_is_told_by_its_magnitude() {
        for (written, ns) in [
            (1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
            (0, 0),
            (-1, -1),
        ] {
            let wire = OutboxEvent {
                aggregate_type: "a".into(),
                created_at: written,
                ..Default::default()
            };
            let event = Event::parse(raw(&wire), Lsn::ZERO).expect("well formed");
            assert_eq!(event.created_at_ns(), ns);
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_position() {
        for bytes in [&b"\xff\xff"[..], b"", b"\x0a\x02\xff\xfe", b"\x12\x7f"] {
            let error = Event::parse(Bytes::copy_from_slice(bytes), Lsn::new(0x10)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::RecordRefused);
            assert!(error.to_string().contains("0/10"), "{error}");
        }
    }
}
