//! Receipts as records of a topic: encodes the events of a part by column, and decodes them.
//!
//! One record has the receipts of many events, because a record for each would double the number
//! of records. `proto/factlib/receipts/v1/receipts.proto` describes the value.

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::{
    EndedPart,
    ended::kept_error,
    receipt::{Fate, Receipt, RecordPlace},
};
use crate::{Error, ErrorKind, Event, Lsn, Result, dead_letter::kept_text};

/// Upper bound for the numbers of a receipt, in bytes: position, partition and offset or route.
const NUMBER_BYTES: usize = 32;
/// Upper bound for the tag and the length of a text, in bytes.
const TEXT_BYTES: usize = 6;

const DELIVERED: i32 = 1;
const FILTERED: i32 = 2;
const PARKED: i32 = 3;

/// The value of a record. The schema says what each field means.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReceiptBatch {
    #[prost(string, tag = "1")]
    pub slot: String,
    #[prost(int64, tag = "2")]
    pub at_ms: i64,
    #[prost(int32, tag = "3")]
    pub fate: i32,
    #[prost(string, tag = "4")]
    pub topic: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub uuids: Bytes,
    #[prost(string, repeated, tag = "6")]
    pub ids: Vec<String>,
    #[prost(sint64, repeated, tag = "7")]
    pub lsns: Vec<i64>,
    #[prost(int32, repeated, tag = "8")]
    pub partitions: Vec<i32>,
    #[prost(sint64, repeated, tag = "9")]
    pub offsets: Vec<i64>,
    #[prost(string, repeated, tag = "10")]
    pub errors: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    pub intended_topics: Vec<String>,
    #[prost(sint32, repeated, tag = "12")]
    pub routes: Vec<i32>,
    #[prost(string, repeated, tag = "13")]
    pub aggregate_types: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    pub aggregate_ids: Vec<String>,
}

/// Encodes the receipts of a part as values of records, each of at most `max_bytes` if it has
/// several receipts.
pub(super) fn encode(slot: &str, part: &EndedPart, max_bytes: usize) -> Vec<Bytes> {
    let mut encoder = Encoder::new(slot, part, max_bytes);
    for index in 0..part.events.len() {
        encoder.add(index);
    }
    encoder.finish()
}

/// The number and offset of the last record of a partition.
type LastOffset = (i32, i64);

struct Encoder<'a> {
    slot: &'a str,
    part: &'a EndedPart,
    max_bytes: usize,
    batch: ReceiptBatch,
    uuids: Vec<u8>,
    count: usize,
    /// Upper bound for the size of the batch.
    bytes: usize,
    has_offsets: bool,
    last_lsn: i64,
    last_offsets: Vec<LastOffset>,
    done: Vec<Bytes>,
}

impl<'a> Encoder<'a> {
    fn new(slot: &'a str, part: &'a EndedPart, max_bytes: usize) -> Self {
        Encoder {
            slot,
            part,
            max_bytes,
            batch: ReceiptBatch::default(),
            uuids: Vec::with_capacity(part.events.len() * 16),
            count: 0,
            bytes: 0,
            has_offsets: true,
            last_lsn: 0,
            last_offsets: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Adds the receipt of one event, if it has one.
    fn add(&mut self, index: usize) {
        let Some((event, place)) = self.part.ended(index) else { return };
        let fate = match (event.refusal(), self.part.is_filtered()) {
            (Some(_), _) => PARKED,
            (None, true) => FILTERED,
            (None, false) => DELIVERED,
        };
        let texts = Texts::of(event, fate);
        let bytes = NUMBER_BYTES + texts.bytes();
        let has_offset = place.is_none_or(|place| place.offset.is_some());
        let fits = self.bytes + bytes <= self.max_bytes
            && self.batch.fate == fate
            && self.batch.ids.is_empty() == texts.uuid.is_some()
            && self.has_offsets == has_offset
            // Columns are whole or empty.
            && self.batch.partitions.is_empty() == place.is_none();
        if self.count == 0 || !fits {
            self.end_batch();
            (self.batch.fate, self.has_offsets) = (fate, has_offset);
            self.bytes = self.slot.len() + self.part.topic.len() + NUMBER_BYTES + 3 * TEXT_BYTES;
        }
        self.bytes += bytes;
        let batch = &mut self.batch;
        match texts.uuid {
            Some(uuid) => self.uuids.extend_from_slice(uuid.as_bytes()),
            None => batch.ids.push(texts.id),
        }
        let lsn = event.lsn().as_u64() as i64;
        batch.lsns.push(lsn.wrapping_sub(std::mem::replace(&mut self.last_lsn, lsn)));
        if let Some(place) = place {
            batch.partitions.push(place.partition);
            if let Some(offset) = place.offset {
                let last = last_of(&mut self.last_offsets, place.partition);
                batch.offsets.push(offset.wrapping_sub(std::mem::replace(last, offset)));
            }
        }
        if let Some((error, intended_topic)) = texts.refusal {
            batch.errors.push(error);
            batch.intended_topics.push(intended_topic);
        }
        if fate == FILTERED {
            batch.routes.push(self.part.route(index).map_or(-1, |route| route as i32));
        }
        if let Some((kind, id)) = texts.aggregate {
            batch.aggregate_types.push(kind);
            batch.aggregate_ids.push(id);
        }
        self.count += 1;
    }

    fn end_batch(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.slot = self.slot.to_owned();
        batch.at_ms = self.part.at_ms;
        if batch.fate != FILTERED {
            batch.topic = self.part.topic.to_string();
        }
        batch.uuids = std::mem::take(&mut self.uuids).into();
        self.done.push(batch.encode_to_vec().into());
        (self.count, self.last_lsn) = (0, 0);
        self.last_offsets.clear();
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.end_batch();
        self.done
    }
}

/// The texts of a receipt.
struct Texts {
    uuid: Option<Uuid>,
    /// Empty if the id is a UUID.
    id: String,
    /// Error and intended topic of a parked event.
    refusal: Option<(String, String)>,
    /// Type and id of the aggregate, unless the record has them.
    aggregate: Option<(String, String)>,
}

impl Texts {
    fn of(event: &Event, fate: i32) -> Self {
        let uuid = canonical(event.id());
        let aggregate = || (kept_text(event.aggregate_type()), kept_text(event.aggregate_id()));
        Texts {
            uuid,
            id: uuid.map_or_else(|| kept_text(event.id()), |_| String::new()),
            refusal: event.refusal().map(|refusal| {
                let topic = refusal.topic.as_deref().unwrap_or_default();
                (kept_error(&refusal.error), kept_text(topic))
            }),
            aggregate: (fate != DELIVERED).then(aggregate),
        }
    }

    /// Upper bound for their size.
    fn bytes(&self) -> usize {
        let of = |text: &str| TEXT_BYTES + text.len();
        let pair =
            |pair: &Option<(String, String)>| pair.as_ref().map_or(0, |(a, b)| of(a) + of(b));
        let id = self.uuid.map_or_else(|| of(&self.id), |uuid| uuid.as_bytes().len());
        id + pair(&self.refusal) + pair(&self.aggregate)
    }
}

/// The last offset of a partition in a batch; 0 before the first.
fn last_of(last: &mut Vec<LastOffset>, partition: i32) -> &mut i64 {
    // Records of one partition mostly follow each other, and a topic has few.
    let place = match last.iter().rposition(|(known, _)| *known == partition) {
        Some(place) => place,
        None => {
            last.push((partition, 0));
            last.len() - 1
        }
    };
    &mut last[place].1
}

/// The UUID that this text is; none unless it is exactly as UUIDs are usually written.
fn canonical(id: &str) -> Option<Uuid> {
    let uuid = (id.len() == 36).then(|| Uuid::try_parse(id).ok())??;
    id.bytes().all(|byte| !byte.is_ascii_uppercase()).then_some(uuid)
}

/// The id to look for in the records of the topic.
pub(super) struct Wanted {
    /// As receipts have it.
    id: String,
    uuid: Option<Uuid>,
}

impl Wanted {
    pub fn new(id: &str) -> Self {
        Wanted { id: kept_text(id), uuid: canonical(id) }
    }

    /// Unix milliseconds before which the event was not emitted, as its id has it.
    pub fn since_ms(&self) -> Option<i64> {
        let (seconds, nanos) = self.uuid?.get_timestamp()?.to_unix();
        i64::try_from(seconds).ok()?.checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))
    }

    /// Finds the event's receipts in the value of a record.
    ///
    /// # Errors
    /// The value is not a batch of receipts.
    pub fn find(&self, value: &Bytes, found: &mut Vec<Receipt>) -> Result<()> {
        let batch = ReceiptBatch::decode(value.clone()).map_err(|error| {
            Error::new(ErrorKind::Protocol, "a record is no receipt").caused_by(error)
        })?;
        match &self.uuid {
            Some(uuid) => {
                let ids = batch.uuids.chunks_exact(16).enumerate();
                let own = ids.filter(|(_, id)| *id == uuid.as_bytes());
                own.for_each(|(place, _)| found.extend(batch.receipt(&self.id, place)));
            }
            None => {
                let ids = batch.ids.iter().enumerate();
                let own = ids.filter(|(_, id)| **id == self.id);
                own.for_each(|(place, _)| found.extend(batch.receipt(&self.id, place)));
            }
        }
        Ok(())
    }
}

impl ReceiptBatch {
    /// The receipt at this place; none if it is of a kind that this version does not know.
    fn receipt(&self, id: &str, place: usize) -> Option<Receipt> {
        let until = self.lsns.iter().take(place + 1);
        let lsn = until.fold(0_i64, |lsn, step| lsn.wrapping_add(*step));
        let text = |texts: &[String]| texts.get(place).filter(|text| !text.is_empty()).cloned();
        let fate = match self.fate {
            DELIVERED => Fate::Delivered(self.record(place)?),
            FILTERED => Fate::Filtered {
                route: self.routes.get(place).and_then(|route| usize::try_from(*route).ok()),
            },
            PARKED => Fate::Parked {
                record: self.record(place),
                error: text(&self.errors).unwrap_or_default(),
                intended_topic: text(&self.intended_topics),
            },
            _ => return None,
        };
        Some(Receipt {
            event_id: id.to_owned(),
            slot: self.slot.clone(),
            lsn: Lsn::new(lsn as u64),
            at_ms: self.at_ms,
            aggregate_type: text(&self.aggregate_types),
            aggregate_id: text(&self.aggregate_ids),
            fate,
        })
    }

    fn record(&self, place: usize) -> Option<RecordPlace> {
        let partition = *self.partitions.get(place)?;
        let steps = self.partitions.iter().zip(&self.offsets).take(place + 1);
        let own = steps.filter(|(other, _)| **other == partition);
        let offset = own.fold(0_i64, |offset, (_, step)| offset.wrapping_add(*step));
        let offset = (!self.offsets.is_empty()).then_some(offset);
        Some(RecordPlace { topic: self.topic.clone(), partition, offset })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Refusal, proto::OutboxEvent, record::Place, routing::Plans};

    const MAX_BYTES: usize = 160 << 10;

    const SCHEMA: &str = include_str!("../../proto/factlib/receipts/v1/receipts.proto");

    fn event(id: &str, lsn: u64) -> Event {
        let event = OutboxEvent {
            id: id.into(),
            aggregate_type: "user".into(),
            aggregate_id: "u1".into(),
            ..Default::default()
        };
        Event::parse(event.encode_to_vec().into(), Lsn::new(lsn)).expect("well formed")
    }

    fn found(values: &[Bytes], id: &str) -> Vec<Receipt> {
        let mut found = Vec::new();
        for value in values {
            Wanted::new(id).find(value, &mut found).expect("a batch of receipts");
        }
        found
    }

    /// Each event is found as the part has it, and in no more than this many records.
    fn assert_found(part: &EndedPart, records: usize) {
        let values = encode("slot", part, MAX_BYTES);
        assert!(values.iter().all(|value| value.len() <= MAX_BYTES));
        assert_eq!(values.len(), records);
        for mut expected in part.receipts("slot") {
            if let Fate::Delivered(_) = expected.fate {
                // The record has it.
                (expected.aggregate_type, expected.aggregate_id) = (None, None);
            }
            assert_eq!(found(&values, &expected.event_id), [expected]);
        }
    }

    fn place(partition: i32, offset: i64) -> Option<Place> {
        Some(Place { partition, offset: Some(offset) })
    }

    #[test]
    fn the_schema_has_the_numbers_of_the_code() {
        let code = include_str!("wire.rs");
        let fields = SCHEMA.lines().filter_map(|line| {
            let (field, number) = line.trim().strip_suffix(';')?.split_once(" = ")?;
            Some((field.split_once(' ')?.1.rsplit(' ').next()?, number))
        });
        let mut count = 0;
        for (name, number) in fields {
            let declared = format!("tag = \"{number}\")]\n    pub {name}: ");
            assert!(code.contains(&declared), "{name} = {number}");
            count += 1;
        }
        assert_eq!(count, code.matches("#[prost(").count() - 1);
    }

    #[test]
    fn delivered_events_are_found_where_their_records_are() {
        let ids: Vec<_> = (0..100).map(|_| Uuid::now_v7().to_string()).collect();
        let events = ids.iter().zip(0..).map(|(id, n)| event(id, 1_000 + n * n)).collect();
        // Partitions alternate, and one record is missing.
        let places =
            (0..100).map(|n| place(n as i32 % 3, 50_000 * (n % 3) + n)).collect::<Vec<_>>();
        let mut lacking = places.clone();
        lacking[40] = None;
        let part = EndedPart::sent("t".into(), Arc::new(events), lacking);
        assert_found(&part, 1);
        assert_eq!(found(&encode("slot", &part, MAX_BYTES), &ids[40]), []);
    }

    #[test]
    fn ids_of_any_kind_and_offsets_that_are_not_known_are_found_too() {
        let id = "01A20D6F-7F41-7100-929C-F9E4F1AB7EB7";
        let events = vec![
            event("order-7", 5),
            event(id, 6),
            event(&id.to_lowercase(), 7),
            event(&Uuid::now_v7().to_string(), 8),
        ];
        let places =
            vec![place(0, 1), place(0, 2), place(0, 3), Some(Place { partition: 1, offset: None })];
        assert_found(&EndedPart::sent("t".into(), Arc::new(events), places), 3);
    }

    #[test]
    fn parked_events_say_why_and_filtered_ones_that_no_route_takes_them() {
        let error = || Error::new(ErrorKind::RecordTooLarge, "too large");
        let refusal = Refusal { topic: Some("user".into()), ..Refusal::new(error()) };
        let events =
            vec![event("a", 5).refused(refusal), event("b", 6).refused(Refusal::new(error()))];
        let part =
            EndedPart::sent("letters".into(), Arc::new(events.clone()), vec![place(0, 9); 2]);
        assert_found(&part, 1);
        assert_found(&EndedPart::kept("letters".into(), Arc::new(events)), 1);
        let filtered = vec![event("c", 7), event("d", 8)];
        assert_found(&EndedPart::filtered(Arc::new(filtered), Plans::default()), 1);
    }

    #[test]
    fn a_large_part_becomes_several_records() {
        let count = 4_000;
        let events = (0..count).map(|n| event(&Uuid::now_v7().to_string(), n as u64)).collect();
        let places = (0..count).map(|n| place(0, n)).collect();
        assert_found(&EndedPart::sent("t".into(), Arc::new(events), places), 2);
    }

    #[test]
    fn a_record_is_as_small_as_its_topic_wants_it() {
        let error = || Error::new(ErrorKind::RecordRefused, "e".repeat(5_000));
        let long = |n: u64| event(&format!("{n}{}", "ü".repeat(1_000)), u64::MAX / (n + 1));
        let parked = (0..50).map(|n| long(n).refused(Refusal::new(error()))).collect();
        let sent = (0..50).map(|n| event(&Uuid::now_v7().to_string(), n << 40)).collect();
        let places = |count| (0..count).map(|n| place(n as i32 % 7, n << 50)).collect::<Vec<_>>();
        for part in [
            EndedPart::sent("letters".into(), Arc::new(parked), places(50)),
            EndedPart::sent("t".into(), Arc::new(sent), places(50)),
        ] {
            for max_bytes in [1, 300, 2_000, 20_000] {
                let values = encode("slot", &part, max_bytes);
                let large = values.iter().filter(|value| value.len() > max_bytes);
                for value in large {
                    let batch = ReceiptBatch::decode(value.clone()).expect("a batch");
                    assert_eq!(batch.lsns.len(), 1, "{} bytes", value.len());
                }
                for receipt in part.receipts("slot") {
                    assert_eq!(found(&values, &receipt.event_id).len(), 1);
                }
            }
        }
    }

    #[test]
    fn long_ids_are_found_by_their_beginning() {
        let id = format!("a\0{}", "ü".repeat(1_000));
        let part = EndedPart::sent("t".into(), Arc::new(vec![event(&id, 5)]), vec![place(0, 1)]);
        let values = encode("slot", &part, MAX_BYTES);
        let receipts = found(&values, &id);
        assert_eq!(receipts.len(), 1);
        assert!(receipts[0].event_id.len() <= 258, "{}", receipts[0].event_id);
        assert_eq!(found(&values, "a\0ü"), []);
    }

    #[test]
    fn the_id_says_when_to_begin() {
        let id = "01a20d6f-7f41-7100-929c-f9e4f1ab7eb7";
        assert_eq!(Wanted::new(id).since_ms(), Some(0x01a2_0d6f_7f41));
        assert_eq!(Wanted::new(&Uuid::nil().to_string()).since_ms(), None);
        assert_eq!(Wanted::new("order-7").since_ms(), None);
    }

    #[test]
    fn what_is_no_receipt_is_an_error() {
        let error = Wanted::new("a").find(&Bytes::from_static(b"\xff"), &mut Vec::new());
        assert_eq!(error.expect_err("no receipt").kind(), ErrorKind::Protocol);
    }
}
