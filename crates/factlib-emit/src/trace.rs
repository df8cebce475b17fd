//! Sets the trace context of a fact: W3C's `traceparent` and `tracestate`, and the Go library's
//! `trace_info`.

use crate::{Fact, reserved};

/// Parses the trace id and the parent id of a `traceparent`, such as
/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. Later versions may have more fields
/// after the flags.
///
/// <https://www.w3.org/TR/trace-context/#traceparent-header-field-values>
pub fn ids(traceparent: &str) -> Option<(&str, &str)> {
    let hex = |part: &str, length| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        part.len() == length && part.bytes().all(digit)
    };
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (version && id(trace, 32) && id(span, 16) && hex(flags, 2)).then_some((trace, span))
}

impl Fact {
    /// Sets the trace that the fact belongs to, as a W3C `traceparent`. The relay sends it as the
    /// header `traceparent`, besides `trace_id` and `span_id`. Emitting a fact with a malformed
    /// `traceparent` fails.
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        let traceparent = traceparent.into();
        let fact = match ids(&traceparent) {
            Some((trace, span)) => self.trace(trace, span),
            None => self,
        };
        fact.trace_metadata(reserved::TRACEPARENT, traceparent)
    }

    /// Sets the state of other tracing systems, as a W3C `tracestate`. The relay sends it as the
    /// header `tracestate`.
    pub fn tracestate(self, tracestate: impl Into<String>) -> Self {
        self.trace_metadata(reserved::TRACESTATE, tracestate)
    }

    /// Sets the current OpenTelemetry trace and span, if there are any.
    #[cfg(feature = "opentelemetry")]
    #[cfg_attr(docsrs, doc(cfg(feature = "opentelemetry")))]
    pub fn current_trace(self) -> Self {
        use opentelemetry::trace::TraceContextExt;

        let context = opentelemetry::Context::current();
        let span = context.span().span_context().clone();
        if !span.is_valid() {
            return self;
        }
        let (trace, id) = (span.trace_id(), span.span_id());
        let fact = self.traceparent(format!("00-{trace}-{id}-{:02x}", span.trace_flags()));
        match span.trace_state().header() {
            state if state.is_empty() => fact,
            state => fact.tracestate(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_a_trace_and_a_header() {
        let fact = Fact::new("a", "1", "e").traceparent(PARENT).tracestate("congo=t61rcWkgMzE");
        let trace = fact.to_event().expect("valid").trace_info.expect("a trace");
        assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.span_id, "00f067aa0ba902b7");
        assert_eq!(trace.metadata["traceparent"], PARENT);
        assert_eq!(trace.metadata["tracestate"], "congo=t61rcWkgMzE");
    }

    #[test]
    fn a_malformed_traceparent_is_refused() {
        let zero = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        for parent in ["", "00", &PARENT.to_uppercase(), &zero, &format!("{PARENT}-1"), "ff-a-b-c"]
        {
            let error = Fact::new("a", "1", "e").traceparent(parent).to_event().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidFact, "{parent}");
        }
        let later = format!("cc{}-more", &PARENT[2..]);
        assert!(Fact::new("a", "1", "e").traceparent(later).to_event().is_ok());
    }

    #[cfg(feature = "opentelemetry")]
    #[test]
    fn the_current_span_is_taken() {
        use opentelemetry::trace::{
            SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
        };

        let without = Fact::new("a", "1", "e").current_trace().to_event().expect("valid");
        assert_eq!(without.trace_info, None);
        let context = opentelemetry::Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").expect("an id"),
            SpanId::from_hex("00f067aa0ba902b7").expect("an id"),
            TraceFlags::SAMPLED,
            true,
            TraceState::from_key_value([("k", "v")]).expect("a state"),
        ));
        let _guard = context.attach();
        let event = Fact::new("a", "1", "e").current_trace().to_event().expect("valid");
        let trace = event.trace_info.expect("a trace");
        assert_eq!(
            (&trace.metadata["traceparent"][..], &trace.metadata["tracestate"][..]),
            (PARENT, "k=v")
        );
    }
}
