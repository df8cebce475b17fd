//! Schemas and values of PostgreSQL's columns, as Debezium's connector makes them by default.

use bytes::Bytes;

use super::{
    super::value::{oid, timestamp_ns},
    schema::{Kind, Schema, Value},
};

/// Microseconds of a millisecond.
const US_PER_MS: i64 = 1_000;
/// Digits of a fraction of microseconds.
const US_DIGITS: usize = 6;
/// Precision up to which a time has milliseconds.
const MS_PRECISION: i32 = 3;

/// Returns the schema of a column; none if its type is not known. `modifier` is that of the column,
/// or -1.
pub(super) fn schema(type_oid: u32, modifier: i32, optional: bool) -> Option<Schema> {
    let (kind, name) = kind_and_name(type_oid, modifier)?;
    let schema = Schema::new(kind, optional);
    Some(match name {
        Some(name) => schema.named(name),
        None => schema,
    })
}

fn kind_and_name(type_oid: u32, modifier: i32) -> Option<(Kind, Option<&'static str>)> {
    let in_ms = (0..=MS_PRECISION).contains(&modifier);
    Some(match type_oid {
        oid::BOOL => (Kind::Boolean, None),
        oid::INT2 => (Kind::Int16, None),
        oid::INT4 => (Kind::Int32, None),
        oid::INT8 => (Kind::Int64, None),
        oid::FLOAT4 => (Kind::Float32, None),
        oid::FLOAT8 => (Kind::Float64, None),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR => (Kind::String, None),
        oid::BYTEA => (Kind::Bytes, None),
        oid::UUID => (Kind::String, Some("io.debezium.data.Uuid")),
        oid::JSON | oid::JSONB => (Kind::String, Some("io.debezium.data.Json")),
        oid::DATE => (Kind::Int32, Some("io.debezium.time.Date")),
        oid::TIME if in_ms => (Kind::Int32, Some("io.debezium.time.Time")),
        oid::TIME => (Kind::Int64, Some("io.debezium.time.MicroTime")),
        oid::TIMESTAMP if in_ms => (Kind::Int64, Some("io.debezium.time.Timestamp")),
        oid::TIMESTAMP => (Kind::Int64, Some("io.debezium.time.MicroTimestamp")),
        oid::TIMESTAMPTZ => (Kind::String, Some("io.debezium.time.ZonedTimestamp")),
        _ => return None,
    })
}

/// Reads a value of a column from its text, or from the bytes of a `bytea`. None if it has none.
pub(super) fn value(type_oid: u32, modifier: i32, content: Bytes) -> Option<Value> {
    let text = || std::str::from_utf8(&content).ok();
    let in_ms = (0..=MS_PRECISION).contains(&modifier);
    let scaled = |us: i64| if in_ms { us.div_euclid(US_PER_MS) } else { us };
    Some(match type_oid {
        oid::BOOL => Value::Boolean(&content[..] == b"true"),
        oid::INT2 | oid::INT4 | oid::INT8 => Value::Int(text()?.parse().ok()?),
        oid::FLOAT4 => Value::Float32(text()?.parse().ok()?),
        oid::FLOAT8 => Value::Float64(text()?.parse().ok()?),
        oid::BYTEA => Value::Bytes(content),
        oid::DATE => {
            let midnight = timestamp_ns(&format!("{} 00:00:00", text()?))?;
            Value::Int(midnight.div_euclid(86_400_000_000_000))
        }
        oid::TIME => Value::Int(scaled(timestamp_ns(&format!("1970-01-01 {}", text()?))? / 1_000)),
        oid::TIMESTAMP => Value::Int(scaled(timestamp_ns(text()?)?.div_euclid(1_000))),
        oid::TIMESTAMPTZ => Value::Text(zoned(text()?, modifier)?.into()),
        _ => {
            text()?;
            Value::Text(content)
        }
    })
}

/// Converts `2023-11-14 22:13:20.1234+00` to `2023-11-14T22:13:20.123400Z`, with as many digits as
/// the column's type has.
fn zoned(text: &str, modifier: i32) -> Option<String> {
    let ns = timestamp_ns(text)?;
    let (seconds, ns) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (date, clock) = (at.date(), at.time());
    let digits = usize::try_from(modifier).unwrap_or(US_DIGITS).min(US_DIGITS);
    let fraction = format!("{:06}", ns / 1_000);
    let fraction = match fraction.get(..digits).unwrap_or_default() {
        "" => String::new(),
        fraction => format!(".{fraction}"),
    };
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_debeziums_default_modes() {
        let of = |type_oid, modifier, text: &'static str| {
            value(type_oid, modifier, Bytes::from_static(text.as_bytes()))
        };
        let text = |text: &'static str| Some(Value::Text(Bytes::from_static(text.as_bytes())));
        let stamp = "2023-11-14 22:13:20.1234";
        assert_eq!(of(oid::TIMESTAMP, -1, stamp), Some(Value::Int(1_700_000_000_123_400)));
        assert_eq!(of(oid::TIMESTAMP, 3, stamp), Some(Value::Int(1_700_000_000_123)));
        assert_eq!(
            of(oid::TIMESTAMPTZ, 3, "2023-11-14 22:13:20+00"),
            text("2023-11-14T22:13:20.000Z")
        );
        assert_eq!(of(oid::TIMESTAMPTZ, 0, "2023-11-14 22:13:20+00"), text("2023-11-14T22:13:20Z"));
        assert_eq!(
            of(oid::TIMESTAMPTZ, -1, "2023-11-14 22:13:20.5+00"),
            text("2023-11-14T22:13:20.500000Z")
        );
        assert_eq!(of(oid::DATE, -1, "1969-12-31"), Some(Value::Int(-1)));
        assert_eq!(of(oid::TIME, -1, "22:13:20"), Some(Value::Int(80_000_000_000)));
        assert_eq!(of(oid::TIME, 0, "22:13:20"), Some(Value::Int(80_000_000)));
        assert_eq!(of(oid::BOOL, -1, "true"), Some(Value::Boolean(true)));
        assert_eq!(of(oid::INT4, -1, "-7"), Some(Value::Int(-7)));
        assert_eq!(of(oid::FLOAT8, -1, "Infinity"), Some(Value::Float64(f64::INFINITY)));
        assert_eq!(of(oid::TIMESTAMP, -1, "infinity"), None);
        assert_eq!(of(oid::TEXT, -1, "é"), text("é"));
        assert!(schema(oid::NUMERIC, -1, false).is_none() && schema(oid::UUID, -1, true).is_some());
    }
}
