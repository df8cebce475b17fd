//! Shapes of configurations and rows, as users of the outbox event router have them.

use factlib::takeover::debezium::KnownDifference;

use crate::support::shape::Shape;

const JSON: &str = "value.converter=org.apache.kafka.connect.json.JsonConverter
    value.converter.schemas.enable=false";
const JSON_WITH_SCHEMA: &str = "value.converter=org.apache.kafka.connect.json.JsonConverter";
const EXPAND: &str = "table.expand.json.payload=true";

const PLAIN_ROWS: &[&str] = &[
    r#"'Order', '1', 'placed', '{"b": 1, "a": "x"}'"#,
    r#"'Order', 'ключ-ü-😀', 'placed', '{"text": "zeile\n\"q\" é \u0001 \\ /"}'"#,
    r#"'Invoice', '', 'sent', '[1, 2.50, "x", null, true]'"#,
    r#"'Order', '1', 'placed', '"text"'"#,
    r#"'Order', '1', 'placed', '12345678901234567890.12'"#,
    r#"'Order', '2', 'placed', 'null'"#,
    r#"'Order', '2', 'placed', NULL"#,
    r#"'Order', '2', 'placed', '{}'"#,
];

const TEXT_ROWS: &[&str] = &[
    "'Order', '1', 'placed', 'plain text'",
    r#"'Order', '1', 'placed', E'{"a":1}\nsecond line\t"quoted" \\ é 😀 \x7f'"#,
    "'Order', '1', 'placed', ''",
    "'Order', '1', 'placed', '   '",
    "'Order', '1', 'placed', NULL",
];

const EXPANDED_ROWS: &[&str] = &[
    r#"'Order', '1', 'placed', '{"b": 1, "a": "x", "c": true}'"#,
    r#"'Order', '1', 'placed', '{"long": 3000000000, "min": -2147483648, "d": 1.5, "e": 1.25e-10, "small": 0.00001, "whole": 100.0}'"#,
    r#"'Order', '1', 'placed', '{"nested": {"deep": {"deeper": {"x": [1, 2, 3]}}, "é": "ü😀"}}'"#,
    r#"'Order', '1', 'placed', '{"l": [], "o": {}, "n": null, "t": ""}'"#,
    r#"'Order', '1', 'placed', '{"l": ["a", null, "b"], "m": [[1, 2], [3]], "b": [true, false]}'"#,
    r#"'Order', '1', 'placed', '{"items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}'"#,
    r#"'Order', '1', 'placed', '{"mixed": [1, "a"], "x": 1}'"#,
    r#"'Order', '1', 'placed', '{"nulls": [null, null], "x": 1}'"#,
    r#"'Order', '1', 'placed', '{"esc": "line\nbreak \"q\" \\ / \u001f"}'"#,
    r#"'Order', '1', 'placed', '{"numbers": [1.0, 2.25], "ints": [1, 3000000000]}'"#,
    r#"'Order', '1', 'placed', '{}'"#,
    r#"'Order', '1', 'placed', '"only text"'"#,
    "'Order', '1', 'placed', NULL",
];

const TYPED_COLUMNS: &str = ", c_bool boolean, c_int2 smallint, c_int4 integer, c_int8 bigint,
    c_text text, c_char char(5), c_uuid uuid, c_date date, c_time time, c_time3 time(3),
    c_ts timestamp, c_ts3 timestamp(3), c_tz timestamptz, c_real real, c_double double precision,
    c_json json, c_jsonb jsonb, c_tz3 timestamptz(3), c_tz0 timestamptz(0)";
const TYPED: &str = "payload, c_bool, c_int2, c_int4, c_int8, c_text, c_char, c_uuid, c_date,
    c_time, c_time3, c_ts, c_ts3, c_tz, c_real, c_double, c_json, c_jsonb, c_tz3, c_tz0";
const TYPED_HEADERS: &str = "table.fields.additional.placement=type:header:eventType,\
    c_bool:header,c_int2:header,c_int4:header,c_int8:header,c_text:header:Text,c_char:header,\
    c_uuid:header,c_date:header,c_time:header,c_time3:header,c_ts:header,c_ts3:header,c_tz:header,\
    c_real:header,c_double:header,c_json:header,c_jsonb:header,c_tz3:header,c_tz0:header";
const TYPED_ROWS: &[&str] = &[
    r#"'Order', '1', 'placed', '{"a": 1}', true, -7, 42, 9000000000, 'té"xt', 'ab',
        '406c07f3-26f0-4eea-a50c-109940064b8f', '2023-11-14', '22:13:20.1234', '22:13:20.123',
        '2023-11-14 22:13:20.1234', '2023-11-14 22:13:20.123', '2023-11-14 22:13:20.1234+02',
        0.1, 1e300, '{"b":  1, "a": [2]}', '{"b":  1, "a": [2]}', '2023-11-14 22:13:20.1234+02',
        '2023-11-14 22:13:20.1234+02'"#,
    r#"'Order', '1', 'placed', '{"a": 1}', false, 0, 0, 0, '', '', 
        '00000000-0000-0000-0000-000000000000', '1969-12-31', '00:00', '00:00',
        '1969-12-31 23:59:59.999999', '1970-01-01', '2023-11-14 22:13:20Z',
        -12345678, 0.00001, 'null', '"x"', '1970-01-01Z', '1969-12-31 23:59:59Z'"#,
    r#"'Order', '2', 'placed', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"#,
];

/// Shapes of the normal suite.
pub const FEW: &[&str] = &["expanded", "typed_headers", "regex", "enveloped", "partitioned"];

/// All shapes.
pub fn all() -> Vec<Shape> {
    vec![
        Shape { name: "plain_jsonb", rows: PLAIN_ROWS, ..Shape::default() },
        Shape {
            name: "context",
            connector: "extended.headers.enabled=true",
            rows: PLAIN_ROWS,
            known: &[KnownDifference::ContextHeaders],
            ..Shape::default()
        },
        Shape { name: "plain_json", payload: "json", rows: PLAIN_ROWS, ..Shape::default() },
        Shape { name: "plain_text", payload: "text", rows: TEXT_ROWS, ..Shape::default() },
        Shape {
            name: "plain_varchar",
            payload: "varchar(200)",
            connector: "header.converter=org.apache.kafka.connect.storage.StringConverter",
            router: "table.fields.additional.placement=type:header",
            rows: TEXT_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "bytes",
            payload: "bytea",
            connector: "value.converter=org.apache.kafka.connect.converters.ByteArrayConverter",
            rows: &[
                r"'Order', '1', 'placed', '\x00ff7b'",
                "'Order', '1', 'placed', ''",
                "'Order', '1', 'placed', NULL",
            ],
            ..Shape::default()
        },
        Shape {
            name: "binary_data",
            payload: "bytea",
            connector: "value.converter=io.debezium.converters.BinaryDataConverter",
            rows: &[r"'Order', '1', 'placed', '\x00ff7b'", "'Order', '1', 'placed', ''"],
            ..Shape::default()
        },
        Shape {
            name: "bytes_in_json",
            payload: "bytea",
            connector: JSON,
            rows: &[r"'Order', '1', 'placed', '\x00ff7b'", "'Order', '1', 'placed', NULL"],
            ..Shape::default()
        },
        Shape { name: "json", connector: JSON, rows: PLAIN_ROWS, ..Shape::default() },
        Shape {
            name: "json_of_text",
            payload: "text",
            connector: JSON,
            rows: TEXT_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "json_with_schema",
            connector: JSON_WITH_SCHEMA,
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "json_everywhere",
            connector: "key.converter=org.apache.kafka.connect.json.JsonConverter
                value.converter=org.apache.kafka.connect.json.JsonConverter
                header.converter=org.apache.kafka.connect.json.JsonConverter",
            router: "table.fields.additional.placement=type:header",
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "json_keys",
            connector: "key.converter=org.apache.kafka.connect.json.JsonConverter
                key.converter.schemas.enable=false",
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded",
            router: EXPAND,
            connector: JSON,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_json",
            payload: "json",
            router: EXPAND,
            connector: JSON,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_text",
            payload: "text",
            router: EXPAND,
            connector: JSON,
            rows: &[
                r#"'Order', '1', 'placed', '{"a":1,"a":2, "b" : "x"} trailing'"#,
                r#"'Order', '1', 'placed', ' {"a":1}'"#,
                "'Order', '1', 'placed', '{not json'",
                "'Order', '1', 'placed', 'plain'",
                r#"'Order', '1', 'placed', '{"n": 1.10, "big": 1E5, "huge": 1e300, "neg": -0.0}'"#,
            ],
            ..Shape::default()
        },
        Shape {
            name: "expanded_nulls",
            router: "table.expand.json.payload=true
                table.json.payload.null.behavior=optional_bytes",
            connector: JSON,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_schema",
            router: EXPAND,
            connector: JSON_WITH_SCHEMA,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_nulls_schema",
            router: "table.expand.json.payload=true
                table.json.payload.null.behavior=optional_bytes",
            connector: JSON_WITH_SCHEMA,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_objects",
            router: EXPAND,
            connector: JSON,
            rows: &[
                r#"'Order', '1', 'placed', '{"items": [{"a": 1}, {"b": "x", "a": 2}, {"c": {"d": 1}}]}'"#,
                r#"'Order', '1', 'placed', '{"items": [{"a": 1, "b": 2}, null, {"b": 2, "a": 1}]}'"#,
            ],
            known: &[KnownDifference::FieldOrder],
            ..Shape::default()
        },
        Shape {
            name: "typed_headers",
            columns: TYPED_COLUMNS,
            inserted: TYPED,
            router: TYPED_HEADERS,
            rows: TYPED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "typed_headers_text",
            columns: TYPED_COLUMNS,
            inserted: TYPED,
            router: TYPED_HEADERS,
            connector: "header.converter=org.apache.kafka.connect.storage.StringConverter",
            rows: TYPED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "typed_headers_json",
            columns: TYPED_COLUMNS,
            inserted: TYPED,
            router: TYPED_HEADERS,
            connector: "header.converter=org.apache.kafka.connect.json.JsonConverter
                header.converter.schemas.enable=false",
            rows: TYPED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "typed_headers_schema",
            columns: TYPED_COLUMNS,
            inserted: TYPED,
            router: TYPED_HEADERS,
            connector: "header.converter=org.apache.kafka.connect.json.JsonConverter",
            rows: TYPED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "bytes_header",
            columns: ", raw bytea",
            inserted: "payload, raw",
            router: "table.fields.additional.placement=raw:header",
            rows: &[
                r"'Order', '1', 'placed', '{}', '\x00ff'",
                "'Order', '1', 'placed', '{}', NULL",
                "'Order', '1', 'placed', '{}', ''",
            ],
            ..Shape::default()
        },
        Shape {
            name: "enveloped",
            columns: ", tenant text, revision integer, at timestamp",
            inserted: "payload, tenant, revision, at",
            router: "table.fields.additional.placement=type:envelope:eventType,tenant:envelope,\
                revision:envelope,at:envelope,type:header",
            connector: JSON,
            rows: &[
                r#"'Order', '1', 'placed', '{"a": 1}', 'té"x', 7, '2023-11-14 22:13:20.1234'"#,
                "'Order', '1', 'placed', NULL, NULL, NULL, NULL",
            ],
            ..Shape::default()
        },
        Shape {
            name: "enveloped_expanded",
            columns: ", tenant text",
            inserted: "payload, tenant",
            router: "table.expand.json.payload=true
                table.fields.additional.placement=tenant:envelope",
            connector: JSON,
            rows: &[
                r#"'Order', '1', 'placed', '{"a": {"b": [1]}}', 'x'"#,
                r#"'Order', '1', 'placed', '"text"', 'x'"#,
            ],
            ..Shape::default()
        },
        Shape {
            name: "enveloped_schema",
            columns: ", tenant text, revision integer",
            inserted: "payload, tenant, revision",
            router: "table.fields.additional.placement=tenant:envelope,revision:envelope",
            connector: JSON_WITH_SCHEMA,
            rows: &[
                r#"'Order', '1', 'placed', '{"a": 1}', 'x', 7"#,
                r#"'Order', '1', 'placed', '{"a": 2}', NULL, NULL"#,
            ],
            ..Shape::default()
        },
        Shape {
            name: "partitioned",
            columns: ", shard integer",
            inserted: "payload, shard",
            router: "table.fields.additional.placement=shard:partition",
            rows: &[
                "'Order', '1', 'placed', '{}', 2",
                "'Order', '1', 'placed', '{}', 0",
                "'Order', '1', 'placed', '{}', NULL",
                "'Order', 'two', 'placed', '{}', NULL",
                "'Order', 'three', 'placed', '{}', 1",
            ],
            ..Shape::default()
        },
        Shape {
            name: "one_topic",
            router: "route.topic.replacement=one_topic.all",
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "suffixed",
            router: "route.topic.replacement=suffixed-${routedByValue}.events",
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "regex",
            router: r"route.topic.regex=(.*)_v(\\d+)
                route.topic.replacement=regex.$1.v$2",
            rows: &[
                "'Order_v1', '1', 'placed', '{}'",
                "'Order_v12', '1', 'placed', '{}'",
                "'regex_other', '1', 'placed', '{}'",
                "'Order_v1_v2', '1', 'placed', '{}'",
            ],
            ..Shape::default()
        },
        Shape {
            name: "named_groups",
            router: r"route.topic.regex=(?<context>[a-z]+)-(?<what>\\w+)
                route.topic.replacement=named_groups.${what}.${context}",
            rows: &[
                "'sales-Order', '1', 'placed', '{}'",
                "'named_groups-', '1', 'placed', '{}'",
                "'named_groups.Other', '1', 'placed', '{}'",
            ],
            ..Shape::default()
        },
        Shape {
            name: "routed_by_type",
            router: "route.by.field=type",
            rows: &["'Order', '1', 'placed', '{}'", "'Order', '1', 'paid.v2', '{}'"],
            ..Shape::default()
        },
        Shape {
            name: "own_columns",
            columns: ", seq bigint, kind text, who integer, body jsonb, at timestamp",
            inserted: "seq, kind, who, body, at",
            router: "table.field.event.id=seq
                table.field.event.key=who
                table.field.event.payload=body
                table.field.event.timestamp=at
                route.by.field=kind",
            rows: &[
                r#"'-', '-', '-', 7, 'Order', 42, '{"a": 1}', '2023-11-14 22:13:20.1234'"#,
                r#"'-', '-', '-', 8, 'Order', -1, '{"a": 1}', '2024-02-29 00:00:00'"#,
            ],
            ..Shape::default()
        },
        Shape {
            name: "timestamp_ms",
            columns: ", at timestamp(3)",
            inserted: "payload, at",
            router: "table.field.event.timestamp=at",
            rows: &[
                "'Order', '1', 'placed', '{}', '2023-11-14 22:13:20.123'",
                "'Order', '1', 'placed', '{}', NULL",
            ],
            ..Shape::default()
        },
        Shape {
            name: "number_keys",
            columns: ", who bigint, score double precision",
            inserted: "payload, who, score",
            router: "table.field.event.key=who
                table.fields.additional.placement=score:header",
            connector: "key.converter=org.apache.kafka.connect.json.JsonConverter
                key.converter.schemas.enable=false",
            rows: &[
                "'Order', '1', 'placed', '{}', 42, 1.5",
                "'Order', '1', 'placed', '{}', -9000000000, 12345678.9",
            ],
            ..Shape::default()
        },
        Shape {
            name: "uuid_keys",
            columns: ", who uuid",
            inserted: "payload, who",
            router: "table.field.event.key=who",
            rows: &["'Order', '1', 'placed', '{}', '406C07F3-26f0-4eea-a50c-109940064b8f'"],
            ..Shape::default()
        },
        Shape {
            name: "tombstones",
            payload: "text",
            router: "route.tombstone.on.empty.payload=true",
            rows: TEXT_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "expanded_tombstones",
            router: "table.expand.json.payload=true
                route.tombstone.on.empty.payload=true",
            connector: JSON,
            rows: EXPANDED_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "missing_column",
            router: "table.field.additional.missing=ignore
                table.fields.additional.placement=type:header,nowhere:header",
            rows: PLAIN_ROWS,
            ..Shape::default()
        },
        Shape {
            name: "number_payloads",
            payload: "bigint",
            connector: JSON,
            rows: &["'Order', '1', 'placed', 42", "'Order', '1', 'placed', NULL"],
            ..Shape::default()
        },
        Shape {
            name: "trace_without_agent",
            columns: ", tracingspancontext varchar(256)",
            inserted: "payload, tracingspancontext",
            router: "tracing.operation.name=outbox",
            rows: &["'Order', '1', 'placed', '{}', NULL"],
            ..Shape::default()
        },
    ]
}
