//! Formats times and foreign bytes for display; control characters in hostile input are escaped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use factlib::dead_letter::Letter;
use humantime_serde::re::humantime::{format_rfc3339_millis, format_rfc3339_seconds};

/// The last millisecond of the year 9999, the latest time that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_999;

/// Formats a time as RFC 3339 in UTC.
pub fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = Duration::from_millis(LAST_MS);
    format_rfc3339_seconds(UNIX_EPOCH + since.min(last)).to_string()
}

/// The time at which the letter was parked, as RFC 3339 in UTC.
pub fn parked(letter: &Letter) -> String {
    millis(letter.parked_ms())
}

/// Formats a Unix time in milliseconds as RFC 3339 in UTC.
pub fn millis(unix_ms: i64) -> String {
    let ms = u64::try_from(unix_ms).unwrap_or_default().min(LAST_MS);
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// Escapes control characters, which could move a terminal's cursor or end the line.
pub fn plain(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().collect(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// UTF-8 as it is and `true`, or else base64 and `false`.
pub fn text_or_base64(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (STANDARD.encode(bytes), false),
    }
}

/// Formats bytes on one line; base64 with that prefix if they are not UTF-8.
pub fn shown(bytes: &[u8]) -> String {
    match text_or_base64(bytes) {
        (text, true) => plain(&text),
        (base64, false) => format!("base64 {base64}"),
    }
}

/// Shortens a text to `width` characters, the last of which is an ellipsis.
pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_stay_on_their_line() {
        assert_eq!(plain("a\n\u{1b}[2Jb\tü"), "a\\n\\u{1b}[2Jb\\tü");
        assert_eq!(shown(b"\xff\n"), "base64 /wo=");
        assert_eq!(shown(b""), "");
    }

    #[test]
    fn a_shortened_text_ends_with_an_ellipsis() {
        assert_eq!(
            (cut("abc", 3), cut("abcd", 3), cut("ab", 0)),
            ("abc".into(), "ab…".into(), "…".into())
        );
    }

    #[test]
    fn no_time_is_too_late_or_too_early() {
        assert_eq!(time(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(time(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), "9999-12-31T23:59:59Z");
    }
}
