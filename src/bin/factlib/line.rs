//! Parses a fact from one line of JSON, as `emit --stdin` and `route` read it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use factlib::{Error, ErrorKind, Result, emit::Fact};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    // Raw, to keep numbers and the order of keys as written.
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

/// Parses the fact on a line.
///
/// # Errors
/// [`ErrorKind::InvalidFact`]: says what is wrong, and at which column.
pub fn fact(text: &str) -> Result<Fact> {
    let line: Line = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let location = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&location).unwrap_or(&message);
        invalid(format!("{message} at column {}", error.column()))
    })?;
    let payload = match (line.payload, line.payload_base64) {
        (Some(_), Some(_)) => return Err(invalid("both payload and payload_base64 are given")),
        (Some(json), None) => Bytes::from(String::from(Box::<str>::from(json))),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(payload) => payload.into(),
            Err(error) => return Err(invalid("payload_base64 is not base64").caused_by(error)),
        },
        (None, None) => Bytes::new(),
    };
    let mut fact =
        Fact::new(line.aggregate_type, line.aggregate_id, line.event_type).payload(payload);
    for (key, value) in line.metadata {
        fact = fact.metadata(key, value);
    }
    if let Some(id) = line.id {
        let id =
            Uuid::parse_str(&id).map_err(|error| invalid("id is not a UUID").caused_by(error))?;
        fact = fact.id(id);
    }
    match (line.trace_id, line.span_id) {
        (Some(trace), Some(span)) => Ok(fact.trace(trace, span)),
        (None, None) => Ok(fact),
        _ => Err(invalid("trace_id and span_id go together")),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidFact, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACT: &str = r#""aggregate_type":"user","aggregate_id":"u1","event_type":"created""#;

    #[test]
    fn a_line_may_have_any_payload() {
        for more in [
            "",
            r#","payload":{"b":1,"a":1.0}"#,
            r#","payload":"text""#,
            r#","payload_base64":"AP8=""#,
            r#","metadata":{"k":"v"},"id":"01890a5d-ac96-774b-bcce-b302099a8057""#,
            r#","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7""#,
        ] {
            let line = format!("{{{FACT}{more}}}");
            assert!(fact(&line).is_ok(), "{line}: {:?}", fact(&line).err());
        }
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        let line = |more: &str| format!("{{{FACT}{more}}}");
        for (line, what) in [
            ("{".to_owned(), "EOF while parsing an object at column 1"),
            (r#"{"aggregate_id":"u1"}"#.into(), "missing field `aggregate_type` at column 21"),
            (line(r#","x":1"#), "unknown field `x`"),
            (line(r#","payload":1,"payload_base64":"AA==""#), "both payload and payload_base64"),
            (line(r#","payload_base64":"?""#), "payload_base64 is not base64"),
            (line(r#","id":"7""#), "id is not a UUID"),
            (line(r#","span_id":"7""#), "trace_id and span_id go together"),
        ] {
            let error = fact(&line).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(what), "{line}: {error}");
        }
    }
}
