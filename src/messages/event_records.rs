//! Makes the records of a topic part's events, one by one when they are sent.

use std::sync::Arc;

use super::TopicBatch;
use crate::{
    Error, ErrorKind, Event, Result, dead_letter,
    format::{self, Prefixes, SchemaRef},
    kafka::in_flight::InFlightBatch,
    receipts::{EndedPart, ReceiptSender},
    record::{BorrowedRecord, Places, Record, RecordBatch, Records},
    routing::Plans,
};

/// Events of one topic, with the plans and prefixes for their records.
pub(crate) struct EventRecords {
    topic: Arc<str>,
    events: Arc<Vec<Event>>,
    plans: Plans,
    prefixes: Prefixes,
}

impl TopicBatch {
    /// Lists the schemas of the records' values. An event whose schema can't be determined is
    /// refused when its record is made.
    pub(crate) fn schema_refs(&self) -> impl Iterator<Item = SchemaRef> {
        let plans = self.ack.plans();
        let events = self.events.iter().enumerate();
        events.filter_map(|(index, event)| plans.of(index)?.schema_ref(event, &self.topic).ok()?)
    }

    /// Converts it into a batch of records, with these prefixes before values that have a schema.
    pub(crate) fn into_records(self, prefixes: Prefixes) -> RecordBatch {
        let TopicBatch { topic, events, ack } = self;
        let plans = ack.plans().clone();
        RecordBatch {
            records: Arc::new(EventRecords { topic, events, plans, prefixes }),
            places: None,
            answer: Box::new(move |answer| ack.answer_for_records(answer)),
        }
    }

    /// Like [`into_records`](Self::into_records), and what ends gets a receipt before it counts as
    /// done. Until then, the part holds `in_flight`, so that no other actor sends it again.
    pub(crate) fn into_records_with_receipts(
        self,
        prefixes: Prefixes,
        receipts: ReceiptSender,
        in_flight: InFlightBatch,
    ) -> RecordBatch {
        let TopicBatch { topic, events, ack } = self;
        let plans = ack.plans().clone();
        let (of, sent) = (Arc::clone(&topic), Arc::clone(&events));
        let places = Arc::new(Places::new(events.len()));
        let noted = Arc::clone(&places);
        RecordBatch {
            records: Arc::new(EventRecords { topic, events, plans, prefixes }),
            places: Some(places),
            answer: Box::new(move |answer| {
                let ended = EndedPart::sent(of, sent, noted.take());
                receipts.write(ended, move || {
                    ack.answer_for_records(answer);
                    drop(in_flight);
                });
            }),
        }
    }
}

impl Records for EventRecords {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    fn len(&self) -> usize {
        self.events.len()
    }

    fn record(&self, index: usize) -> Result<Record> {
        let Some(event) = self.events.get(index) else {
            return Err(Error::new(ErrorKind::ActorFailed, "there is no such event"));
        };
        match (event.refusal(), self.plans.of(index)) {
            (Some(refusal), _) => Ok(dead_letter::record(event, refusal)),
            (None, Some(plan)) => plan.framed_record(event, &self.topic, &self.prefixes),
            (None, None) => Ok(format::default_record(event)),
        }
    }

    fn with_record(&self, index: usize, then: &mut dyn FnMut(BorrowedRecord<'_>)) -> Result<()> {
        match self.events.get(index) {
            Some(event) if event.refusal().is_none() && self.plans.of(index).is_none() => {
                format::with_default_record(event, then);
            }
            _ => then(self.record(index)?.borrowed()),
        }
        Ok(())
    }

    fn describe(&self, index: usize) -> String {
        self.events.get(index).map_or_else(String::new, |event| {
            format!("event {} at {}", dead_letter::kept_text(event.id()), event.lsn())
        })
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, index: usize, record: &Record) -> Option<String> {
        let event = self.events.get(index)?;
        let of_handler = event.row().and_then(|row| row.headers.first());
        if let Some((name, _)) = of_handler {
            return Some(name.to_string());
        }
        self.plans.of(index)?;
        // The headers of every event repeat what is in the value.
        let usual = format::event_headers(event);
        let is_usual = |name: &str| name == "content-type";
        let mut own = record.headers.iter();
        let own = own.find(|header| !is_usual(&header.0) && !usual.contains(header));
        own.map(|(name, _)| name.to_string())
    }
}
