//! Converts values by their base types, from PostgreSQL's text or binary format. The session pins the
//! settings on which the text format depends.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value as Json;

use super::binary;
use crate::config::TimeUnit;

/// OIDs of the types of `pg_type` that need parsing, or are known in binary.
pub(super) mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// These types by their names in `pg_catalog`: for a domain, the stream has the base type's name.
const TYPES: [(&str, u32); 17] = [
    ("bool", oid::BOOL),
    ("bytea", oid::BYTEA),
    ("name", oid::NAME),
    ("int8", oid::INT8),
    ("int2", oid::INT2),
    ("int4", oid::INT4),
    ("text", oid::TEXT),
    ("json", oid::JSON),
    ("bpchar", oid::BPCHAR),
    ("varchar", oid::VARCHAR),
    ("date", oid::DATE),
    ("time", oid::TIME),
    ("timestamp", oid::TIMESTAMP),
    ("timestamptz", oid::TIMESTAMPTZ),
    ("numeric", oid::NUMERIC),
    ("uuid", oid::UUID),
    ("jsonb", oid::JSONB),
];

pub(super) const SECONDS_OF_DAY: i64 = 86_400;
/// PostgreSQL's epoch, 2000-01-01, in days since 1970-01-01.
pub(super) const EPOCH_2000_DAYS: i64 = 10_957;

/// A number this far from the commit's time may be in another unit than the configured one.
const FAR_NS: i64 = 10 * 365 * SECONDS_OF_DAY * 1_000_000_000;

/// Returns the OID of a type of `pg_catalog` if it needs parsing, or is known in binary.
pub(super) fn base_type_oid(name: &str) -> Option<u32> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
}

/// Converts a text: `bytea` is decoded, `boolean` spelled out, `char(n)` loses its padding, and all
/// else stays as PostgreSQL writes it.
pub(super) fn content(type_oid: u32, text: &[u8]) -> Option<Cow<'_, [u8]>> {
    match (type_oid, text) {
        (oid::BYTEA, _) => bytea(text).map(Cow::Owned),
        (oid::BOOL, b"t") => Some(spelled_out(true)),
        (oid::BOOL, b"f") => Some(spelled_out(false)),
        (oid::BPCHAR, _) => Some(without_padding(text)),
        _ => Some(Cow::Borrowed(text)),
    }
}

/// Converts a value in binary to the same.
pub(super) fn content_of_binary(type_oid: u32, value: &[u8]) -> Option<Cow<'_, [u8]>> {
    match type_oid {
        oid::BYTEA => Some(Cow::Borrowed(value)),
        oid::BOOL => binary::boolean(value).map(spelled_out),
        oid::BPCHAR => Some(without_padding(value)),
        _ => binary::text(type_oid, value),
    }
}

fn spelled_out(value: bool) -> Cow<'static, [u8]> {
    Cow::Owned((if value { "true" } else { "false" }).into())
}

fn without_padding(text: &[u8]) -> Cow<'_, [u8]> {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    Cow::Borrowed(text.get(..end).unwrap_or_default())
}

/// Formats bytes as PostgreSQL writes a `bytea`: `\\x`, and two digits for each byte. An event's
/// binary id has this form, too.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default());
    "\\x".chars().chain(digits).collect()
}

/// Parses a `bytea` in either `bytea_output`, `hex` or `escape`.
pub(super) fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let Some(hex) = text.strip_prefix(b"\\x") else { return escaped(text) };
    let (pairs, rest) = hex.as_chunks::<2>();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
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
        oid::INT8 | oid::INT4 => {
            let number = text.parse().map_err(|_| UnusableTime::OutOfRange)?;
            number_ns(unit, number, commit_ns)
        }
        _ => timestamp_ns(text).ok_or(UnusableTime::OutOfRange),
    }
}

/// Reads a time in binary, as [`time_ns`] does.
pub(super) fn time_ns_of_binary(
    type_oid: u32,
    unit: TimeUnit,
    value: &[u8],
    commit_ns: i64,
) -> Result<i64, UnusableTime> {
    let number = binary::integer(value).ok_or(UnusableTime::OutOfRange)?;
    match type_oid {
        oid::INT8 | oid::INT4 => number_ns(unit, number, commit_ns),
        _ => unix_ns(number).ok_or(UnusableTime::OutOfRange),
    }
}

/// Converts microseconds since 2000-01-01 to Unix nanoseconds. `infinity` does not fit.
pub(super) fn unix_ns(us_since_2000: i64) -> Option<i64> {
    let (seconds, us) = (us_since_2000.div_euclid(1_000_000), us_since_2000.rem_euclid(1_000_000));
    let seconds = seconds.checked_add(EPOCH_2000_DAYS * SECONDS_OF_DAY)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(us * 1_000)
}

fn number_ns(unit: TimeUnit, number: i64, commit_ns: i64) -> Result<i64, UnusableTime> {
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
pub(super) fn timestamp_ns(text: &str) -> Option<i64> {
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
    // The column's usual default.
    if json == b"{}" {
        return Some(BTreeMap::new());
    }
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
        for of in [content, content_of_binary] {
            let of = |text: &'static str| of(oid::BPCHAR, text.as_bytes()).expect("a text");
            assert_eq!([&*of("ab   "), &*of("  "), &*of(" a ")], [&b"ab"[..], b"", b" a"]);
        }
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
            let _ = (timestamp_ns(&text), time_ns(oid::INT8, TimeUnit::S, &text, i64::MIN));
            let _ = (bytea(&bytes), json_object_texts(&bytes));
        }

        #[test]
        fn times_with_any_digits_are_read_or_refused(text in "[0-9]{1,20}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?[+-][0-9]{2}(:[0-9]{2}){0,3}") {
            let _ = timestamp_ns(&text);
        }
    }
}
