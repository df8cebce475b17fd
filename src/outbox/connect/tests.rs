//! Tables whose columns can't be converted are refused, and rows become records.

use super::*;
use crate::{config::OutboxPreset, outbox::value::oid};

const COLUMNS: [(&str, u32); 6] = [
    ("id", oid::UUID),
    ("aggregatetype", oid::TEXT),
    ("aggregateid", oid::TEXT),
    ("payload", oid::JSONB),
    ("extra", oid::INT4),
    ("raw", oid::BYTEA),
];

fn columns() -> Vec<(String, u32)> {
    COLUMNS.iter().map(|(name, type_oid)| (name.to_string(), *type_oid)).collect()
}

fn table(settings: ConnectRecords) -> OutboxTable {
    let mut table = OutboxTable::new("o", OutboxPreset::Debezium);
    table.connect = Some(settings);
    table
}

/// A record of a row with these values.
fn record(table: &OutboxTable, values: [Option<&'static str>; 6]) -> ConnectRecord {
    let mapping = Mapping::resolve(table, &columns()).expect("all are there");
    let connect = mapping.connect.clone().expect("it was asked for");
    let content = |at: ColumnRef, _: &str| {
        Ok(values[at.index].map(|text| Bytes::from_static(text.as_bytes())))
    };
    connect.record(&mapping, "Order", content).expect("a record")
}

const ROW: [Option<&'static str>; 6] =
    [Some("1"), Some("Order"), Some("k"), Some("{\"a\": 1}"), Some("7"), Some("raw")];

#[test]
fn a_column_that_can_t_be_converted_is_refused() {
    let refused = |table: &OutboxTable, columns: &[(String, u32)]| {
        Mapping::resolve(table, columns).expect_err("it is refused").to_string()
    };
    let remedy = "(choose another converter in outbox.connect, or leave the column out)";
    let mut raw = table(ConnectRecords { headers: Converter::String, ..Default::default() });
    raw.headers = vec!["raw".into()];
    let why = "Kafka Connect's StringConverter sends the name of a Java object for it";
    let text = format!("column raw of outbox table o can't be sent: {why} {remedy}");
    assert_eq!(refused(&raw, &columns()), text);
    let bytes = table(ConnectRecords { value: Converter::Bytes, ..Default::default() });
    let why = "Kafka Connect's ByteArrayConverter takes only bytea";
    let text = format!("column payload of outbox table o can't be sent: {why} {remedy}");
    assert_eq!(refused(&bytes, &columns()), text);
    let mut numeric = columns();
    numeric[3].1 = oid::NUMERIC;
    let text = format!(
        "column payload of outbox table o can't be sent: its type is not known to outbox.connect {remedy}"
    );
    assert_eq!(refused(&table(ConnectRecords::default()), &numeric), text);
    let mut partition = table(ConnectRecords::default());
    partition.partition = Some("payload".into());
    let text = "column payload of outbox table o is not of type integer or smallint";
    assert_eq!(refused(&partition, &columns()), text);
}

#[test]
fn each_part_has_its_converter() {
    let plain = record(&table(ConnectRecords::default()), ROW);
    assert_eq!((&plain.key[..], plain.value.as_deref()), (&b"k"[..], Some(&b"{\"a\": 1}"[..])));
    let mut json = table(ConnectRecords {
        key: Converter::JsonWithSchema,
        value: Converter::Json,
        headers: Converter::Json,
        expand_json: true,
        ..Default::default()
    });
    json.headers = vec!["extra:n".into(), "raw".into()];
    json.envelope = vec!["extra".into()];
    let made = record(&json, ROW);
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let key = r#"{"schema":{"type":"string","optional":false},"payload":"k"}"#;
    assert_eq!(text(&made.key), key);
    assert_eq!(made.value.as_ref().map(text).as_deref(), Some(r#"{"payload":{"a":1},"extra":7}"#));
    assert_eq!(made.id.as_ref().map(text).as_deref(), Some("\"1\""));
    let headers = made.headers.iter().map(|(name, value)| (&**name, value.as_ref().map(text)));
    let expected = [("n", Some("7".to_owned())), ("raw", Some("\"cmF3\"".to_owned()))];
    assert_eq!(headers.collect::<Vec<_>>(), expected);
}

#[test]
fn a_blank_payload_is_a_tombstone_on_demand() {
    let with = |tombstone_on_empty, payload| {
        let settings = ConnectRecords { tombstone_on_empty, ..Default::default() };
        let mut row = ROW;
        row[3] = payload;
        record(&table(settings), row).value.map(|value| value.len())
    };
    assert_eq!(
        [with(true, Some(" \n")), with(true, None), with(true, Some("x"))],
        [None, None, Some(1)]
    );
    assert_eq!([with(false, Some(" \n")), with(false, None)], [Some(2), None]);
}

#[test]
fn columns_that_do_not_exist_are_left_out_on_demand() {
    let mut table = table(ConnectRecords::default());
    table.headers = vec!["nowhere".into(), "extra".into()];
    assert!(Mapping::resolve(&table, &columns()).is_err());
    table.ignore_missing = true;
    let headers = record(&table, ROW).headers;
    assert_eq!(headers, [("extra".into(), Some(Bytes::from_static(b"7")))]);
}
