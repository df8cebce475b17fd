//! OpenTelemetry spans of parts: one for each part on its way to its topic, linked to the spans in
//! which its events were emitted, and one for each event whose emitter's trace is sampled.
//!
//! A part's span is a trace of its own, because its events come from many. An event's span is in the
//! emitter's trace; it begins at the commit, so that the time in the WAL is in it, too. Where the time
//! in PostgreSQL is later than ours, it begins when the part was made.
//!
//! Without [`SpanMaker`], nothing of this costs anything.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytestring::ByteString;
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    trace::{
        Link, Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState, Tracer,
    },
};

use crate::{Error, Event};

/// Maximum number of links of a span, as in OpenTelemetry's own default.
const MAX_LINKS: usize = 128;
/// Bit of the flags of a `traceparent`.
const SAMPLED: u8 = 1;

/// Makes the spans of one pipeline.
pub(crate) struct SpanMaker {
    tracer: BoxedTracer,
    slot: Arc<str>,
}

/// Open spans of a part. If it is dropped before [`delivered`](Self::delivered), they end with an
/// error.
pub(super) struct PartSpans {
    part: BoxedSpan,
    /// Event ids with their spans.
    events: Vec<(ByteString, BoxedSpan)>,
    ended: bool,
}

impl SpanMaker {
    /// Takes the process's tracer provider.
    pub fn new(slot: &str) -> Self {
        SpanMaker { tracer: global::tracer("factlib"), slot: slot.into() }
    }

    /// Begins the spans of a part.
    pub(super) fn part(&self, topic: &Arc<str>, events: &[Event]) -> PartSpans {
        let emitters: Vec<_> = events.iter().map(emitter).collect();
        let now = SystemTime::now();
        let system = KeyValue::new("messaging.system", "kafka");
        let destination = KeyValue::new("messaging.destination.name", Arc::clone(topic));
        let slot = KeyValue::new("factlib.slot", Arc::clone(&self.slot));
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let part = self
            .tracer
            .span_builder(format!("send {topic}"))
            .with_kind(SpanKind::Producer)
            .with_start_time(now)
            .with_links(links(emitters.iter().flatten()))
            .with_attributes([
                system.clone(),
                destination.clone(),
                slot.clone(),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.operation.name", "send"),
                KeyValue::new("messaging.batch.message_count", count),
            ]);
        // Nothing that happens to be current here is its parent.
        let part = self.tracer.build_with_context(part, &Context::new());
        let of_event = |(event, emitter): (&Event, Option<SpanContext>)| {
            let emitter = emitter.filter(SpanContext::is_sampled)?;
            let span = self
                .tracer
                .span_builder(format!("relay {topic}"))
                .with_kind(SpanKind::Internal)
                .with_start_time(committed_at(event).filter(|at| *at < now).unwrap_or(now))
                .with_links(vec![Link::with_context(part.span_context().clone())])
                .with_attributes([
                    system.clone(),
                    destination.clone(),
                    slot.clone(),
                    KeyValue::new("messaging.message.id", event.id().to_owned()),
                    KeyValue::new("factlib.event_type", event.event_type().to_owned()),
                    KeyValue::new("factlib.aggregate_type", event.aggregate_type().to_owned()),
                    KeyValue::new("factlib.aggregate_id", event.aggregate_id().to_owned()),
                    KeyValue::new("factlib.lsn", event.lsn().to_string()),
                ]);
            let parent = Context::new().with_remote_span_context(emitter);
            Some((event.id().into(), self.tracer.build_with_context(span, &parent)))
        };
        let events = events.iter().zip(emitters).filter_map(of_event).collect();
        PartSpans { part, events, ended: false }
    }
}

impl PartSpans {
    /// Notes a failure after which what is left of the part is sent again.
    pub fn failed(&mut self, error: &Error) {
        self.part.record_error(error);
    }

    /// Ends the spans: all events are acknowledged but for these, which are refused.
    pub fn delivered<'a>(mut self, refused: impl Iterator<Item = (&'a Event, &'a Error)>) {
        self.ended = true;
        for (event, error) in refused {
            self.part.record_error(error);
            self.part.set_status(Status::error("events were refused"));
            let span = self.events.iter_mut().find(|(id, _)| **id == *event.id());
            if let Some((_, span)) = span {
                span.set_status(Status::error(error.to_string()));
            }
        }
    }
}

impl Drop for PartSpans {
    /// A span ends when it is dropped.
    fn drop(&mut self) {
        if !self.ended {
            let why = "not acknowledged before the relay restarted; sent again";
            let spans = self.events.iter_mut().map(|(_, span)| span).chain([&mut self.part]);
            spans.for_each(|span| span.set_status(Status::error(why)));
        }
    }
}

/// Links to these spans, each once: events of one request share theirs.
fn links<'a>(emitters: impl Iterator<Item = &'a SpanContext>) -> Vec<Link> {
    let mut seen = HashSet::new();
    let new = emitters.filter(|emitter| seen.insert((emitter.trace_id(), emitter.span_id())));
    new.take(MAX_LINKS).map(|emitter| Link::with_context(emitter.clone())).collect()
}

/// The span in which an event was emitted; not sampled unless its `traceparent` says so.
fn emitter(event: &Event) -> Option<SpanContext> {
    let trace = event.trace()?;
    let trace_id = TraceId::from_hex(&trace.trace_id).ok()?;
    let span_id = SpanId::from_hex(&trace.span_id).ok()?;
    let parent = trace.metadata.get("traceparent");
    let flags = parent.and_then(|parent| parent.split('-').nth(3)).unwrap_or_default();
    let flags = u8::from_str_radix(flags, 16).unwrap_or_default() & SAMPLED;
    let state = TraceState::NONE;
    let context = SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, state);
    context.is_valid().then_some(context)
}

fn committed_at(event: &Event) -> Option<SystemTime> {
    let nanos = u64::try_from(event.transaction()?.commit_time_ns).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}
