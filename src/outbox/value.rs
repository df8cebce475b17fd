//! Parses values in PostgreSQL's text format by their base types. The session pins the settings on
//! which the format depends.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value as Json;

use crate::config::TimeUnit;

/// OIDs of the types of `pg_type` that need parsing or checking.
pub(super) mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const INT8: u32 = 20;
    pub const INT4: u32 = 23;
    pub const JSON: u32 = 114;
    pub const BPCHAR: u32 = 1042;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const JSONB: u32 = 3802;
}

/// These types by their names in `pg_catalog`: for a domain, the stream has the base type's name.
const TYPES: [(&str, u32); 9] = [
    ("bool", oid::BOOL),
    ("bytea", oid::BYTEA),
    ("int8", oid::INT8),
    ("int4", oid::INT4),
    ("json", oid::JSON),
    ("bpchar", oid::BPCHAR),
    ("timestamp", oid::TIMESTAMP),
    ("timestamptz", oid::TIMESTAMPTZ),
    ("jsonb", oid::JSONB),
];

const SECONDS_OF_DAY: i64 = 86_400;

/// A number this far from the commit's time may be in another unit than the configured one.
const FAR_NS: i64 = 10 * 365 * SECONDS_OF_DAY * 1_000_000_000;

/// Returns the OID of a type of `pg_catalog` if it needs parsing or checking.
pub(super) fn base_type_oid(name: &str) -> Option<u32> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
}

/// Converts a value: `bytea` is decoded, `boolean` spelled out, `char(n)` loses its padding, and all
/// else stays as PostgreSQL writes it.
pub(super) fn content(type_oid: u32, text: Bytes) -> Option<Bytes> {
    match (type_oid, &text[..]) {
        (oid::BYTEA, _) => bytea(&text).map(Bytes::from),
        (oid::BOOL, b"t") => Some(Bytes::from_static(b"true")),
        (oid::BOOL, b"f") => Some(Bytes::from_static(b"false")),
        (oid::BPCHAR, _) => {
            let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            Some(text.slice(..end))
        }
        _ => Some(text),
    }
}

/// Formats bytes as PostgreSQL writes a `bytea`: `\\x`, and two digits for each byte. An event's
/// binary id has this form, too.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Parses a `bytea` in either `bytea_output`, `hex` or `escape`.
pub(super) fn bytea(text: &[u8]) -> Option<Vec<u8>> {
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

/// The reason why a row's time can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnusableTime {
    /// Not representable in 64 bits of nanoseconds: before 1677, after 2262, or `infinity`.
    OutOfRange,
    /// Far from the commit's time in the configured unit, and near it in this one.
    OtherUnit(TimeUnit),
}

/// Parses a time to Unix nanoseconds: a timestamp (UTC if it has no offset), or a number in `unit`.
pub(super) fn time_ns(
    type_oid: u32,
    unit: TimeUnit,
    text: &str,
    commit_ns: i64,
) -> Result<i64, UnusableTime> {
    match type_oid {
        oid::INT8 | oid::INT4 => number_ns(unit, text, commit_ns),
        _ => timestamp_ns(text).ok_or(UnusableTime::OutOfRange),
    }
}

fn number_ns(unit: TimeUnit, text: &str, commit_ns: i64) -> Result<i64, UnusableTime> {
    let number: i64 = text.parse().map_err(|_| UnusableTime::OutOfRange)?;
    let by = |unit: TimeUnit| number.checked_mul(unit.nanoseconds());
    let is_near = |ns: i64| ns.checked_sub(commit_ns).is_some_and(|far| far.abs() < FAR_NS);
    let time = by(unit);
    if time.is_some_and(is_near) {
        return time.ok_or(UnusableTime::OutOfRange);
    }
    match TimeUnit::ALL.into_iter().find(|other| by(*other).is_some_and(is_near)) {
        Some(other) => Err(UnusableTime::OtherUnit(other)),
        None => time.ok_or(UnusableTime::OutOfRange),
    }
}

/// Parses `2026-11-24 07:11:03.123456+01:30`.
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

/// Parses `+01`, `-03:30` or `+00:19:32` to seconds east of Greenwich.
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

/// Parses exactly two digits.
fn digits(text: &str) -> Option<i64> {
    if text.len() == 2 { number(text) } else { None }
}

fn number(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Counts days in the Gregorian calendar. Years begin in March here, so that the leap day is the
/// last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE_1970: i64 = 719_468;
    let year = year.checked_sub((month <= 2).into())?;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - BEFORE_1970)
}

/// Reads a JSON object as a map of texts: strings as they are, other values as JSON; nulls are left
/// out.
pub(super) fn json_object_texts(json: &[u8]) -> Option<BTreeMap<String, String>> {
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
        let ns = timestamp_ns;
        assert_eq!(ns("1970-01-01 00:00:00+00"), Some(0));
        assert_eq!(ns("2000-02-29 12:00:00.5+00"), Some(951_825_600_500_000_000));
        assert_eq!(ns("2026-11-24 07:11:03.123456+05:30"), Some(1_795_484_463_123_456_000));
        assert_eq!(ns("2026-11-24 07:11:03-00:00:30"), Some(1_795_504_293_000_000_000));
        assert_eq!(ns("1969-12-31 23:59:59.999999+00"), Some(-1_000));
        assert_eq!(ns("2000-01-01 00:00:00"), Some(946_684_800_000_000_000));
    }

    #[test]
    fn a_number_is_read_by_its_unit_unless_another_one_fits_so_much_better() {
        let commit = 1_795_484_463_000_000_000;
        let read = |unit, text| time_ns(oid::INT8, unit, text, commit);
        for (unit, text, ns) in [
            (TimeUnit::S, "1700000000", 1_700_000_000_000_000_000),
            (TimeUnit::Ms, "1700000000123", 1_700_000_000_123_000_000),
            (TimeUnit::Us, "1700000000123456", 1_700_000_000_123_456_000),
            (TimeUnit::Ns, "1700000000123456789", 1_700_000_000_123_456_789),
            (TimeUnit::Ms, "-1", -1_000_000),
            (TimeUnit::Ms, "0", 0),
        ] {
            assert_eq!(read(unit, text), Ok(ns), "{text}");
        }
        for (unit, text, other) in [
            (TimeUnit::Ms, "1700000000", TimeUnit::S),
            (TimeUnit::Ms, "1700000000123456", TimeUnit::Us),
            (TimeUnit::Ms, "1700000000123456789", TimeUnit::Ns),
            (TimeUnit::Us, "1700000000123", TimeUnit::Ms),
        ] {
            assert_eq!(read(unit, text), Err(UnusableTime::OtherUnit(other)), "{text}");
        }
        assert_eq!(read(TimeUnit::Ms, "9223372036854775807"), Err(UnusableTime::OutOfRange));
    }

    #[test]
    fn blanks_that_fill_a_char_up_are_not_of_its_content() {
        let of = |text: &'static str| content(oid::BPCHAR, Bytes::from_static(text.as_bytes()));
        assert_eq!(of("ab   ").as_deref(), Some(&b"ab"[..]));
        assert_eq!((of("  ").as_deref(), of(" a ").as_deref()), (Some(&b""[..]), Some(&b" a"[..])));
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
            assert_eq!(timestamp_ns(text), None, "{text}");
        }
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
        let texts = json_object_texts(json).expect("an object");
        let of = |key: &str| texts.get(key).map(String::as_str);
        assert_eq!((of("a"), of("n"), of("b")), (Some("x"), Some("1"), Some("true")));
        assert_eq!((of("o"), of("none")), (Some(r#"{"k":[1,null]}"#), None));
        for other in [&b"[]"[..], b"1", b"null", b"{", b"\xff"] {
            assert_eq!(super::json_object_texts(other), None);
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(bytea(hex(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn hostile_texts_are_read_or_refused(text: String, bytes: Vec<u8>) {
            let _ = (timestamp_ns(&text), number_ns(TimeUnit::S, &text, i64::MIN));
            let _ = (bytea(&bytes), json_object_texts(&bytes));
        }

        #[test]
        fn times_with_any_digits_are_read_or_refused(text in "[0-9]{1,20}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?[+-][0-9]{2}(:[0-9]{2}){0,3}") {
            let _ = timestamp_ns(&text);
        }
    }
}
