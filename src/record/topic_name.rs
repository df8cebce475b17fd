//! Checks topic names against Kafka's rules.

use crate::{Error, ErrorKind, Result};

/// Kafka's limit for the length of a topic name.
const TOPIC_MAX: usize = 249;

/// Checks a topic name against Kafka's rules.
///
/// # Errors
/// [`ErrorKind::RecordRefused`] with the text `what`; its remedy is Kafka's rules and `remedy`.
pub(crate) fn legal_topic(name: &str, what: impl FnOnce() -> String, remedy: &str) -> Result<()> {
    if is_legal_topic(name) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::RecordRefused, what()).remedy(format!(
        "Kafka allows letters, digits, '.', '_' and '-', and {TOPIC_MAX} of them; {remedy}"
    )))
}

/// True if Kafka allows the topic name.
pub(crate) fn is_legal_topic(name: &str) -> bool {
    let some = !name.is_empty() && name != "." && name != "..";
    some && name.len() <= TOPIC_MAX && name.bytes().all(is_legal_in_topic)
}

/// True if Kafka allows the character in a topic name.
pub(crate) fn is_legal_in_topic(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_that_kafka_refuses_are_refused() {
        assert!(is_legal_topic("factlib.user"));
        for name in ["", ".", "..", "us er", "usér", "a/b", "a\0b", &"x".repeat(250)] {
            let error = legal_topic(name, || "not legal".into(), "another").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::RecordRefused);
        }
    }
}
