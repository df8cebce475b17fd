//! Writes values in PostgreSQL's binary format as the text that the server would send for them.
//!
//! Only types whose text follows from their bytes alone are known here. `real` and `double
//! precision` are not: the server avoids some of the shortest texts of a number.

use std::borrow::Cow;

use super::value::{EPOCH_2000_DAYS, SECONDS_OF_DAY, hex, oid};

/// Digits of one group of a `numeric`.
const GROUP_DIGITS: usize = 4;

/// True for a type that [`text`] can write.
pub(super) fn is_known(type_oid: u32) -> bool {
    use oid::*;
    matches!(
        type_oid,
        BOOL | BYTEA
            | NAME
            | INT8
            | INT2
            | INT4
            | TEXT
            | JSON
            | BPCHAR
            | VARCHAR
            | DATE
            | TIME
            | TIMESTAMP
            | TIMESTAMPTZ
            | NUMERIC
            | UUID
            | JSONB
    )
}

/// Writes a value as text; none for an unknown type, or bytes that are not a value of the type.
pub(super) fn text(type_oid: u32, value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = match type_oid {
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON => {
            return Some(Cow::Borrowed(value));
        }
        oid::JSONB => return jsonb(value).map(Cow::Borrowed),
        oid::BYTEA => hex(value),
        oid::BOOL => (if boolean(value)? { "t" } else { "f" }).to_owned(),
        oid::INT2 | oid::INT4 | oid::INT8 => integer(value)?.to_string(),
        oid::NUMERIC => numeric(value)?,
        oid::UUID => {
            let uuid = uuid::Uuid::from_slice(value).ok()?;
            (*uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).to_owned()
        }
        oid::DATE => date(value)?,
        oid::TIME => clock(i64::from_be_bytes(value.try_into().ok()?)),
        oid::TIMESTAMP => timestamp(value, "")?,
        oid::TIMESTAMPTZ => timestamp(value, "+00")?,
        _ => return None,
    };
    Some(Cow::Owned(text.into_bytes()))
}

pub(super) fn boolean(value: &[u8]) -> Option<bool> {
    if let [byte] = value { Some(*byte != 0) } else { None }
}

/// Reads a `jsonb`: a version, and the text.
pub(super) fn jsonb(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[1])
}

/// Reads a `smallint`, `integer` or `bigint`.
pub(super) fn integer(value: &[u8]) -> Option<i64> {
    match *value {
        [a, b] => Some(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
        _ => Some(i64::from_be_bytes(value.try_into().ok()?)),
    }
}

/// Writes a `numeric`: groups of four digits, of which the first has the weight 10000^weight.
fn numeric(value: &[u8]) -> Option<String> {
    let (fields, rest) = value.as_chunks::<2>();
    let [count, weight, sign, scale, groups @ ..] = fields else { return None };
    let scale = usize::from(u16::from_be_bytes(*scale));
    let sign = match u16::from_be_bytes(*sign) {
        0x0000 => "",
        0x4000 => "-",
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    if !rest.is_empty() || groups.len() != usize::from(u16::from_be_bytes(*count)) {
        return None;
    }
    // The groups before the decimal point, also those of zeros that are not sent.
    let weight = i16::from_be_bytes(*weight);
    let group = |at: i32| {
        let group = usize::try_from(at).ok().and_then(|at| groups.get(at));
        format!("{:04}", group.map_or(0, |group| u16::from_be_bytes(*group)))
    };
    let first_behind = i32::from(weight) + 1;
    let whole: String = (0..first_behind).map(group).collect();
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if scale == 0 {
        return Some(format!("{sign}{whole}"));
    }
    let groups_behind = i32::try_from(scale.div_ceil(GROUP_DIGITS)).ok()?;
    let behind: String = (first_behind..first_behind + groups_behind).map(group).collect();
    Some(format!("{sign}{whole}.{}", behind.get(..scale)?))
}

fn date(value: &[u8]) -> Option<String> {
    match i32::from_be_bytes(value.try_into().ok()?) {
        i32::MAX => Some("infinity".to_owned()),
        i32::MIN => Some("-infinity".to_owned()),
        days => {
            let (date, era) = calendar(days.into());
            Some(date + era)
        }
    }
}

fn timestamp(value: &[u8], offset: &str) -> Option<String> {
    match i64::from_be_bytes(value.try_into().ok()?) {
        i64::MAX => Some("infinity".to_owned()),
        i64::MIN => Some("-infinity".to_owned()),
        us => {
            let day_us = SECONDS_OF_DAY * 1_000_000;
            let (date, era) = calendar(us.div_euclid(day_us));
            Some(format!("{date} {}{offset}{era}", clock(us.rem_euclid(day_us))))
        }
    }
}

/// Formats a time of day, in microseconds.
fn clock(us: i64) -> String {
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if us == 0 {
        return format!("{h:02}:{m:02}:{s:02}");
    }
    format!("{h:02}:{m:02}:{s:02}.{us:06}").trim_end_matches('0').to_owned()
}

/// Formats a day, counted from 2000-01-01, in the Gregorian calendar; the era is behind the time.
/// Years begin in March here, so that the leap day is the last of its year.
fn calendar(days_since_2000: i64) -> (String, &'static str) {
    const FROM_0000_03_01_TO_1970: i64 = 719_468;
    let days = days_since_2000 + EPOCH_2000_DAYS + FROM_0000_03_01_TO_1970;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // The year before 1 is 1 BC.
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(type_oid: u32, value: &[u8]) -> Option<String> {
        text(type_oid, value).map(|text| String::from_utf8(text.into_owned()).expect("ASCII"))
    }

    #[test]
    fn numbers_are_written_as_the_server_does() {
        assert_eq!(of(oid::INT2, &(-7_i16).to_be_bytes()).as_deref(), Some("-7"));
        assert_eq!(of(oid::INT8, &i64::MIN.to_be_bytes()).as_deref(), Some("-9223372036854775808"));
        let numeric = |weight: i16, sign: u16, scale: u16, groups: &[u16]| {
            let head = [groups.len() as u16, weight.cast_unsigned(), sign, scale];
            let fields = head.iter().chain(groups).flat_map(|field| field.to_be_bytes());
            of(oid::NUMERIC, &fields.collect::<Vec<_>>()).expect("a number")
        };
        assert_eq!(numeric(0, 0, 2, &[1, 5_000]), "1.50");
        assert_eq!(numeric(0, 0x4000, 0, &[42]), "-42");
        assert_eq!(numeric(2, 0, 0, &[1]), "100000000");
        assert_eq!(numeric(-2, 0, 7, &[1_234]), "0.0000123");
        assert_eq!(numeric(0, 0, 3, &[]), "0.000");
        assert_eq!(numeric(0, 0xC000, 0, &[]), "NaN");
        assert_eq!(numeric(0, 0xF000, 0, &[]), "-Infinity");
    }

    #[test]
    fn times_are_written_in_utc_with_their_era() {
        let day = 86_400_000_000_i64;
        let of_us = |us: i64| of(oid::TIMESTAMPTZ, &us.to_be_bytes()).expect("a time");
        assert_eq!(of_us(0), "2000-01-01 00:00:00+00");
        assert_eq!(of_us(59 * day + 1), "2000-02-29 00:00:00.000001+00");
        assert_eq!(of_us(-1_000), "1999-12-31 23:59:59.999+00");
        assert_eq!(of_us(-730_119 * day), "0001-01-01 00:00:00+00");
        assert_eq!(of_us(-730_120 * day), "0001-12-31 00:00:00+00 BC");
        assert_eq!(of_us(i64::MAX), "infinity");
        assert_eq!(of(oid::DATE, &i32::MIN.to_be_bytes()).as_deref(), Some("-infinity"));
        assert_eq!(of(oid::TIME, &day.to_be_bytes()).as_deref(), Some("24:00:00"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_text_or_none(value: Vec<u8>) {
            for type_oid in 0..4_000 {
                prop_assert!(is_known(type_oid) || text(type_oid, &value).is_none());
            }
        }

        #[test]
        fn what_is_written_is_read_back_as_the_same_time(us in -9_000_000_000_000_000_i64..9_000_000_000_000_000_000 / 1_000) {
            let bytes = us.to_be_bytes();
            let text = of(oid::TIMESTAMPTZ, &bytes).expect("a time");
            prop_assert_eq!(
                super::super::value::timestamp_ns(&text),
                super::super::value::unix_ns(us)
            );
        }
    }
}
