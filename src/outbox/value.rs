//! Columns in PostgreSQL's text format; the session is pinned to ISO dates and UTC.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value as Json;

/// OIDs of `pg_type` that are written in a way of their own.
pub(super) mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const INT8: u32 = 20;
    pub const INT4: u32 = 23;
    pub const JSON: u32 = 114;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const JSONB: u32 = 3802;
}

const SECONDS_OF_DAY: i64 = 86_400;

/// A column's content: `bytea` decoded, `boolean` in words, all else as it is written.
pub(super) fn content(type_oid: u32, text: Bytes) -> Option<Bytes> {
    match (type_oid, &text[..]) {
        (oid::BYTEA, _) => bytea(&text).map(Bytes::from),
        (oid::BOOL, b"t") => Some(Bytes::from_static(b"true")),
        (oid::BOOL, b"f") => Some(Bytes::from_static(b"false")),
        _ => Some(text),
    }
}

/// `bytea` as `bytea_output` writes it, `hex` or `escape`.
fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let Some(hex) = text.strip_prefix(b"\\x") else { return escaped(text) };
    let (pairs, rest) = hex.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn escaped(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        text = match text {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// True for a type that [`time_ns`] reads.
pub(super) fn is_time(type_oid: u32) -> bool {
    use oid::{INT4, INT8, TIMESTAMP, TIMESTAMPTZ};
    matches!(type_oid, TIMESTAMPTZ | TIMESTAMP | INT8 | INT4)
}

/// A point in time in Unix nanoseconds: a time (UTC where it has no offset), or a
/// number of milliseconds.
pub(super) fn time_ns(type_oid: u32, text: &str) -> Option<i64> {
    match type_oid {
        oid::INT8 | oid::INT4 => text.parse::<i64>().ok()?.checked_mul(1_000_000),
        _ => timestamp_ns(text),
    }
}

/// `2026-11-24 07:11:03.123456+01:30`.
fn timestamp_ns(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    if year.len() < 4 {
        return None;
    }
    let (month, day) = (digits(month)?, digits(day)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(number(year)?, month, day)?;
    let (clock, offset) = match clock.find(['+', '-']) {
        Some(at) => (clock.get(..at)?, offset_seconds(clock.get(at..)?)?),
        None => (clock, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (h, m, s) = (parts.next()?, parts.next()?, parts.next()?);
    let (h, m, s) = (digits(h)?, digits(m)?, digits(s)?);
    if h > 24 || m > 59 || s > 60 || fraction.len() > 9 {
        return None;
    }
    let scale = 10_i64.checked_pow(9 - u32::try_from(fraction.len()).ok()?)?;
    let nanos = if fraction.is_empty() { 0 } else { number(fraction)?.checked_mul(scale)? };
    let seconds = days.checked_mul(SECONDS_OF_DAY)? + h * 3_600 + m * 60 + s - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// `+01`, `-03:30`, `+00:19:32`: east of Greenwich.
fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, text) = match text.split_at_checked(1)? {
        ("-", rest) => (-1, rest),
        (_, rest) => (1, rest),
    };
    let mut seconds = 0;
    for (part, scale) in text.splitn(3, ':').zip([3_600, 60, 1]) {
        seconds += digits(part)? * scale;
    }
    Some(sign * seconds)
}

/// Two digits.
fn digits(text: &str) -> Option<i64> {
    if text.len() == 2 { number(text) } else { None }
}

fn number(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Days of the Gregorian calendar, counted in years that begin in March: the leap day
/// is then the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE_1970: i64 = 719_468;
    let year = year.checked_sub((month <= 2).into())?;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - BEFORE_1970)
}

/// A JSON object as texts: a text as it is, anything else as JSON writes it; null is left out.
pub(super) fn texts(json: &[u8]) -> Option<BTreeMap<String, String>> {
    let object: serde_json::Map<String, Json> = serde_json::from_slice(json).ok()?;
    let entries = object.into_iter().filter_map(|(key, value)| match value {
        Json::Null => None,
        Json::String(text) => Some((key, text)),
        other => Some((key, other.to_string())),
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_every_offset() {
        let ns = |text| time_ns(oid::TIMESTAMPTZ, text);
        assert_eq!(ns("1970-01-01 00:00:00+00"), Some(0));
        assert_eq!(ns("2000-02-29 12:00:00.5+00"), Some(951_825_600_500_000_000));
        assert_eq!(ns("2026-11-24 07:11:03.123456+05:30"), Some(1_795_484_463_123_456_000));
        assert_eq!(ns("2026-11-24 07:11:03-00:00:30"), Some(1_795_504_293_000_000_000));
        assert_eq!(ns("1969-12-31 23:59:59.999999+00"), Some(-1_000));
        assert_eq!(time_ns(oid::TIMESTAMP, "2000-01-01 00:00:00"), Some(946_684_800_000_000_000));
        assert_eq!(time_ns(oid::INT8, "1700000000123"), Some(1_700_000_000_123_000_000));
    }

    #[test]
    fn what_is_no_time_that_fits_is_refused() {
        for text in [
            "",
            "infinity",
            "-infinity",
            "2026-11-24",
            "24/11/2026 07:11:03 UTC",
            "2026-13-01 00:00:00+00",
            "0044-03-15 12:00:00+00 BC",
            "294276-12-31 23:59:59+00",
            "99999999999999999-01-01 00:00:00+00",
            "2026-11-24 07:11:03+",
            "2026-11-24 07:11:03+é",
        ] {
            assert_eq!(time_ns(oid::TIMESTAMPTZ, text), None, "{text}");
        }
        assert_eq!(time_ns(oid::INT8, "9223372036854775807"), None);
    }

    #[test]
    fn bytea_is_read_in_both_formats() {
        assert_eq!(bytea(b"\\x00fFa0"), Some(vec![0, 0xff, 0xa0]));
        assert_eq!((bytea(b"\\x"), bytea(b"")), (Some(vec![]), Some(vec![])));
        assert_eq!(bytea(b"a\\\\b\\000\\377"), Some(b"a\\b\0\xff".to_vec()));
        for text in [&b"\\x0"[..], b"\\xzz", b"\\", b"\\9", b"\\400"] {
            assert_eq!(bytea(text), None, "{text:?}");
        }
    }

    #[test]
    fn metadata_is_an_object_of_texts() {
        let json = br#"{"a": "x", "n": 1, "b": true, "o": {"k": [1, null]}, "none": null}"#;
        let texts = texts(json).expect("an object");
        let of = |key: &str| texts.get(key).map(String::as_str);
        assert_eq!((of("a"), of("n"), of("b")), (Some("x"), Some("1"), Some("true")));
        assert_eq!((of("o"), of("none")), (Some(r#"{"k":[1,null]}"#), None));
        for other in [&b"[]"[..], b"1", b"null", b"{", b"\xff"] {
            assert_eq!(super::texts(other), None);
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(bytea(format!("\\x{hex}").as_bytes()), Some(bytes));
        }

        #[test]
        fn hostile_texts_are_read_or_refused(text: String, bytes: Vec<u8>) {
            let _ = (time_ns(oid::TIMESTAMPTZ, &text), time_ns(oid::INT8, &text));
            let _ = (bytea(&bytes), texts(&bytes));
        }

        #[test]
        fn times_with_any_digits_are_read_or_refused(text in "[0-9]{1,20}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?[+-][0-9]{2}(:[0-9]{2}){0,3}") {
            let _ = time_ns(oid::TIMESTAMPTZ, &text);
        }
    }
}
