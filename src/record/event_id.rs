//! Reads the id of an event from the headers of its record.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

/// Header of factlib's records.
pub(crate) const EVENT_ID_HEADER: &str = "event_id";
/// Header of the records of Debezium's outbox router, and of those that are made equal to them.
pub(crate) const DEBEZIUM_ID_HEADER: &str = "id";

/// Returns the text of the first of these headers that a record has; none if that is empty.
pub(crate) fn event_id<'h>(
    headers: &'h [(String, Option<Bytes>)],
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> Option<Cow<'h, str>> {
    let text = |wanted: &str| {
        let (_, value) = headers.iter().find(|(name, _)| name == wanted)?;
        std::str::from_utf8(value.as_deref()?).ok()
    };
    let text = names.into_iter().find_map(|name| text(name.as_ref()))?;
    Some(without_envelope(text)).filter(|id| !id.is_empty())
}

/// Takes a text out of what Kafka Connect's header converters make of it: `"text"` in JSON, and
/// `{"schema": …, "payload": "text"}`.
pub(crate) fn without_envelope(text: &str) -> Cow<'_, str> {
    if !text.starts_with(['"', '{']) {
        return Cow::Borrowed(text);
    }
    match serde_json::from_str(text) {
        Ok(Value::String(text)) => Cow::Owned(text),
        Ok(Value::Object(mut with_schema)) => match with_schema.remove("payload") {
            Some(Value::String(text)) => Cow::Owned(text),
            Some(Value::Number(number)) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(text),
        },
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_the_header_as_each_converter_writes_it() {
        let id = |headers: &[(&str, &str)], names: &[&str]| {
            let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), text(value)));
            event_id(&headers.collect::<Vec<_>>(), names).map(Cow::into_owned)
        };
        let with_schema = r#"{"schema":{"type":"string"},"payload":"7"}"#;
        for value in ["7", "\"7\"", with_schema] {
            let found = id(&[("other", "1"), ("id", value)], &["event_id", "id"]);
            assert_eq!(found.as_deref(), Some("7"), "{value}");
        }
        assert_eq!(id(&[("id", "7"), ("key", "8")], &["key", "id"]).as_deref(), Some("8"));
        assert_eq!(id(&[("id", "7")], &["key", "id"]).as_deref(), Some("7"));
        assert_eq!(id(&[("id", "7")], &["key"]), None);
        assert_eq!(id(&[("id", "")], &["id"]), None);
        assert_eq!(id(&[("id", "{")], &["id"]).as_deref(), Some("{"));
    }
}
