//! Writes values and schemas as JSON, byte for byte as Kafka Connect's `JsonConverter` does.

use std::fmt::Write;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::schema::{Kind, Schema, Value};

/// Writes a value without its schema.
pub(super) fn write_value(to: &mut String, schema: &Schema, value: &Value) {
    match value {
        Value::Null => to.push_str("null"),
        Value::Boolean(true) => to.push_str("true"),
        Value::Boolean(false) => to.push_str("false"),
        // Writing to a String never fails.
        Value::Int(number) => _ = write!(to, "{number}"),
        Value::Float32(number) => write_number(to, &java_float(*number)),
        Value::Float64(number) => write_number(to, &java_double(*number)),
        Value::Text(text) => write_text(to, &String::from_utf8_lossy(text)),
        Value::Bytes(bytes) => {
            to.push('"');
            BASE64_STANDARD.encode_string(bytes, to);
            to.push('"');
        }
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                if let Kind::Array(of) = &schema.kind {
                    write_value(to, of, item);
                }
            }
            to.push(']');
        }
        Value::Struct(values) => {
            to.push('{');
            let Kind::Struct(fields) = &schema.kind else { return };
            for (index, ((name, field), value)) in fields.iter().zip(values).enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_text(to, name);
                to.push(':');
                write_value(to, field, value);
            }
            to.push('}');
        }
    }
}

/// Writes a value behind its schema.
pub(super) fn write_with_schema(to: &mut String, schema: &Schema, value: &Value) {
    to.push_str("{\"schema\":");
    write_schema(to, schema, None);
    to.push_str(",\"payload\":");
    write_value(to, schema, value);
    to.push('}');
}

/// Writes a schema; that of a field ends with the field's name.
fn write_schema(to: &mut String, schema: &Schema, field: Option<&str>) {
    to.push_str("{\"type\":\"");
    to.push_str(schema.kind.json_name());
    to.push('"');
    match &schema.kind {
        Kind::Array(items) => {
            to.push_str(",\"items\":");
            write_schema(to, items, None);
        }
        Kind::Struct(fields) => {
            to.push_str(",\"fields\":[");
            for (index, (name, of)) in fields.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_schema(to, of, Some(name));
            }
            to.push(']');
        }
        _ => {}
    }
    let _ = write!(to, ",\"optional\":{}", schema.optional);
    if let Some(name) = &schema.name {
        to.push_str(",\"name\":");
        write_text(to, name);
    }
    if let Some(version) = schema.version {
        let _ = write!(to, ",\"version\":{version}");
    }
    if !schema.parameters.is_empty() {
        to.push_str(",\"parameters\":{");
        for (index, (name, value)) in schema.parameters.iter().enumerate() {
            if index > 0 {
                to.push(',');
            }
            write_text(to, name);
            to.push(':');
            write_text(to, value);
        }
        to.push('}');
    }
    if let Some(field) = field {
        to.push_str(",\"field\":");
        write_text(to, field);
    }
    to.push('}');
}

/// Writes a text with Jackson's escapes: upper-case digits, and beside what JSON demands only
/// characters of more than 16 bits.
fn write_text(to: &mut String, text: &str) {
    to.push('"');
    let mut written = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\0'..'\u{20}' | '\u{10000}'.. => "",
            _ => continue,
        };
        to.push_str(text.get(written..at).unwrap_or_default());
        match escape {
            "" => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(to, "\\u{unit:04X}");
                }
            }
            escape => to.push_str(escape),
        }
        written = at + c.len_utf8();
    }
    to.push_str(text.get(written..).unwrap_or_default());
    to.push('"');
}

/// Jackson quotes what is not a number in JSON.
fn write_number(to: &mut String, number: &str) {
    match number {
        "NaN" | "Infinity" | "-Infinity" => write_text(to, number),
        number => to.push_str(number),
    }
}

/// Formats a number as Java's `Double.toString` does.
pub(super) fn java_double(number: f64) -> String {
    java_number(number.is_finite(), number.abs(), format!("{number}"), &format!("{number:e}"))
}

/// Formats a number as Java's `Float.toString` does.
pub(super) fn java_float(number: f32) -> String {
    let magnitude = f64::from(number.abs());
    java_number(number.is_finite(), magnitude, format!("{number}"), &format!("{number:e}"))
}

/// Between a thousandth and ten million, Java writes all digits, else an exponent.
fn java_number(is_finite: bool, magnitude: f64, plain: String, scientific: &str) -> String {
    if !is_finite {
        return plain.replace("inf", "Infinity");
    }
    let with_point = |digits: &str| match digits.contains('.') {
        true => digits.to_owned(),
        false => format!("{digits}.0"),
    };
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return with_point(&plain);
    }
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    format!("{}E{exponent}", with_point(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-12.5, "-12.5"),
            (0.001, "0.001"),
            (0.000_1, "1.0E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1.25e300, "1.25E300"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(java_double(number), text);
        }
        assert_eq!(java_float(0.1), "0.1");
    }

    #[test]
    fn texts_have_jacksons_escapes() {
        let mut to = String::new();
        write_text(&mut to, "a\"\\\u{1f}\n/é\u{7f}😀");
        assert_eq!(to, "\"a\\\"\\\\\\u001F\\n/é\u{7f}\\uD83D\\uDE00\"");
    }

    #[test]
    fn a_schema_is_written_before_its_value() {
        let text = Schema::optional(Kind::String);
        let list = Schema::optional(Kind::Array(Box::new(Schema::optional(Kind::Int32))));
        let fields = vec![("a".to_owned(), text), ("l".to_owned(), list)];
        let schema = Schema { name: Some("p".into()), ..Schema::new(Kind::Struct(fields), false) };
        let value =
            Value::Struct(vec![Value::Null, Value::Array(vec![Value::Int(1), Value::Null])]);
        let mut to = String::new();
        write_with_schema(&mut to, &schema, &value);
        let expected = "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\
            \"optional\":true,\"field\":\"a\"},{\"type\":\"array\",\"items\":{\"type\":\"int32\",\
            \"optional\":true},\"optional\":true,\"field\":\"l\"}],\"optional\":false,\
            \"name\":\"p\"},\"payload\":{\"a\":null,\"l\":[1,null]}}";
        assert_eq!(to, expected);
    }
}
