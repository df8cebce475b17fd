//! Feeds stream messages to a reader and checks the events; hostile bytes never panic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use factlib_postgres::pgoutput::{Message, OldTuple, Value};
use proptest::prelude::*;
use prost::Message as _;
use slog::{Logger, o};

use super::{Change, KnownTable, OutboxReader, TableFacts, mapping::Mapping, row::RowContext};
use crate::{
    Event, Lsn, Result,
    config::{OutboxColumns, OutboxPreset, OutboxTable},
    proto::OutboxEvent,
};

const COLUMNS: [(&str, u32); 6] = [
    ("id", 2950),
    ("aggregatetype", 25),
    ("aggregateid", 25),
    ("type", 25),
    ("payload", 3802),
    ("tenant", 25),
];

fn relation(oid: u32, schema: &str, name: &str, columns: &[(&str, u32)]) -> Vec<u8> {
    let count = u16::try_from(columns.len()).expect("few");
    let head = [b"R", &oid.to_be_bytes()[..], schema.as_bytes(), b"\0", name.as_bytes(), b"\0d"];
    columns.iter().fold([head.concat(), count.to_be_bytes().into()].concat(), |bytes, column| {
        let (name, type_oid) = (column.0.as_bytes(), column.1.to_be_bytes());
        [&bytes, &b"\0"[..], name, b"\0", &type_oid, &[0xff; 4]].concat()
    })
}

fn insert(oid: u32, row: &[Option<&str>]) -> Vec<u8> {
    let count = u16::try_from(row.len()).expect("few");
    let head = [b"I", &oid.to_be_bytes()[..], b"N", &count.to_be_bytes()].concat();
    row.iter().fold(head, |bytes, value| match value {
        None => [&bytes[..], b"n"].concat(),
        Some(text) => {
            let length = u32::try_from(text.len()).expect("small").to_be_bytes();
            [&bytes[..], b"t", &length, text.as_bytes()].concat()
        }
    })
}

fn insert_binary(oid: u32, row: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(row.len()).expect("few");
    let head = [b"I", &oid.to_be_bytes()[..], b"N", &count.to_be_bytes()].concat();
    row.iter().fold(head, |bytes, value| {
        let length = u32::try_from(value.len()).expect("small").to_be_bytes();
        [&bytes[..], b"b", &length, value].concat()
    })
}

fn reader(preset: OutboxPreset) -> OutboxReader {
    let mut table = OutboxTable::new("app.o", preset);
    table.headers = vec!["tenant:customer".into()];
    OutboxReader::new(vec![table], TableFacts::default(), Logger::root(slog::Discard, o!()))
}

/// Feeds one message to the reader as the decoder does.
fn read(reader: &mut OutboxReader, bytes: Vec<u8>) -> Result<Option<Event>> {
    let bytes = Bytes::from(bytes);
    match Message::parse(&bytes) {
        Ok(Message::Relation { oid, namespace, name, columns, .. }) => {
            reader.described(oid, namespace, name, columns);
        }
        Ok(Message::Type { oid, namespace, name }) => reader.type_described(oid, namespace, name),
        Ok(Message::Insert { relation, new }) => {
            return reader.inserted(relation, new, Lsn::new(9), 5, &bytes, &mut BytesMut::new());
        }
        Ok(Message::Delete { relation, old: OldTuple::Key(_) | OldTuple::Full(_) }) => {
            reader.changed(relation, Change::Delete, Lsn::new(9))?;
        }
        _ => {}
    }
    Ok(None)
}

#[test]
fn an_altered_replaced_or_renamed_table_is_reported() {
    let (news, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut reader = reader(OutboxPreset::Debezium).on_table_change({
        let news = Arc::clone(&news);
        move || _ = news.fetch_add(1, Relaxed)
    });
    let mut described = |oid, name, columns: &[(&str, u32)]| {
        read(&mut reader, relation(oid, "app", name, columns)).expect("described");
        let before = count.swap(news.load(Relaxed), Relaxed);
        news.load(Relaxed) - before
    };
    assert_eq!(described(1, "o", &COLUMNS), 0, "the first of its name");
    assert_eq!(described(2, "other", &COLUMNS), 0);
    assert_eq!(described(1, "o", &COLUMNS), 0, "as it was");
    assert_eq!(described(1, "o", &COLUMNS[1..]), 1, "other columns");
    assert_eq!(described(3, "o", &COLUMNS), 1, "another table of the name");
    assert_eq!(described(3, "renamed", &COLUMNS), 1, "another name");
    assert_eq!(described(3, "renamed", &COLUMNS), 0);
}

#[test]
fn a_table_that_matches_a_pattern_is_unknown_until_its_facts_are_learned() {
    let entry = |table: &str| OutboxTable::new(table, OutboxPreset::Debezium);
    let configured = vec![entry("t_*.o"), entry("t_a.o")];
    let log = Logger::root(slog::Discard, o!());
    let mut reader = OutboxReader::new(configured, TableFacts::default(), log);
    assert_eq!(reader.unknown("other", "o"), None);
    let found = reader.unknown("t_b", "o").expect("it matches");
    assert_eq!(found.table, "t_b.o");
    let facts = TableFacts { tables: vec![KnownTable::new(found)], ..TableFacts::default() };
    reader.learn(facts);
    assert_eq!(reader.unknown("t_b", "o"), None);
    // Without facts, a table is read by what the stream says.
    for (oid, schema) in [(1, "t_b"), (2, "t_c")] {
        read(&mut reader, relation(oid, schema, "o", &COLUMNS)).expect("described");
        assert!(read(&mut reader, insert(oid, &ROW)).expect("read").is_some());
        assert_eq!(reader.unknown(schema, "o"), None);
    }
}

const ROW: [Option<&str>; 6] =
    [Some("i"), Some("Order"), Some("7"), Some("placed"), Some("{\"a\": 1}"), None];

#[test]
fn a_row_says_its_partition_and_its_trace() {
    let mut table = OutboxTable::new("app.o", OutboxPreset::Debezium);
    (table.partition, table.trace_context) = (Some("shard".into()), Some("trace".into()));
    let log = Logger::root(slog::Discard, o!());
    let mut reader = OutboxReader::new(vec![table], TableFacts::default(), log);
    let columns = [&COLUMNS[..5], &[("shard", 23), ("trace", 25)]].concat();
    read(&mut reader, relation(1, "app", "o", &columns)).expect("described");
    let mut event = |shard, trace| {
        let row = [&ROW[..5], &[shard, trace]].concat();
        read(&mut reader, insert(1, &row)).expect("read").expect("an event")
    };
    let trace = "#Tue Nov 14\ntraceparent=00-ab-cd-01\ntracestate=a\\=b\n";
    let placed = event(Some("2"), Some(trace));
    assert_eq!(placed.partition(), Some(2));
    let headers = &placed.row().expect("a row").headers;
    let headers = headers.iter().map(|(name, value)| (&**name, value.as_deref()));
    let expected: [(&str, Option<&[u8]>); 2] =
        [("traceparent", Some(b"00-ab-cd-01")), ("tracestate", Some(b"a=b"))];
    assert_eq!(headers.collect::<Vec<_>>(), expected);
    let plain = event(None, None);
    assert!(plain.partition().is_none() && plain.row().is_some_and(|row| row.headers.is_empty()));
    let refusal = event(Some("-1"), None).refusal().map(|refusal| refusal.error.to_string());
    let text = "the row of app.o at 0/9 is no event: its partition is -1";
    assert_eq!(refusal.as_deref(), Some(text));
}

#[test]
fn a_debezium_rows_value_is_its_payload() {
    let mut reader = reader(OutboxPreset::Debezium);
    read(&mut reader, relation(1, "app", "o", &COLUMNS)).expect("described");
    let event = read(&mut reader, insert(1, &ROW)).expect("read").expect("an event");
    assert!(event.refusal().is_none());
    assert_eq!(event.raw(), "{\"a\": 1}");
    assert_eq!((event.id(), event.aggregate_type(), event.aggregate_id()), ("i", "Order", "7"));
    let decoded = event.decode().expect("an event");
    assert_eq!((decoded.event_type.as_str(), &decoded.payload[..]), ("placed", &b"{\"a\": 1}"[..]));
    let row = event.row().expect("a row");
    assert_eq!(row.topic_prefix.as_deref(), Some("outbox.event"));
    assert_eq!(row.headers, [("customer".into(), None)]);
    let mut null = ROW;
    null[4] = None;
    let tombstone = read(&mut reader, insert(1, &null)).expect("read").expect("an event");
    assert!(tombstone.row().is_some_and(|row| row.is_tombstone));
}

#[test]
fn columns_are_resolved_again_after_an_alter() {
    let mut reader = reader(OutboxPreset::Factlib);
    let columns = |names: [&'static str; 6]| names.map(|name| (name, 25));
    let first = ["id", "aggregate_type", "aggregate_id", "event_type", "payload", "tenant"];
    let second = ["tenant", "payload", "event_type", "aggregate_id", "aggregate_type", "id"];
    for names in [first, second] {
        read(&mut reader, relation(1, "app", "o", &columns(names))).expect("described");
        let row = names.map(Some);
        let event = read(&mut reader, insert(1, &row)).expect("read").expect("an event");
        let expected = OutboxEvent {
            id: "id".into(),
            aggregate_type: "aggregate_type".into(),
            aggregate_id: "aggregate_id".into(),
            event_type: "event_type".into(),
            payload: Bytes::from_static(b"payload"),
            created_at: 5,
            ..Default::default()
        };
        assert_eq!(event.raw(), &expected.encode_to_vec());
    }
}

#[test]
fn unconfigured_tables_are_ignored_and_undescribed_ones_are_an_error() {
    let mut reader = reader(OutboxPreset::Debezium);
    read(&mut reader, relation(1, "public", "o", &COLUMNS)).expect("described");
    assert!(read(&mut reader, insert(1, &ROW)).expect("read").is_none());
    let error = read(&mut reader, insert(2, &ROW)).expect_err("never described");
    assert_eq!(error.kind(), crate::ErrorKind::Protocol);
}

#[test]
fn an_invalid_row_is_refused_with_its_reason_and_its_content() {
    let mut reader = reader(OutboxPreset::Debezium);
    read(&mut reader, relation(1, "app", "o", &COLUMNS)).expect("described");
    for (column, value, why) in [
        (0, None, "its id is null"),
        (1, None, "its aggregate type is null"),
        (1, Some(""), "its aggregate type is empty"),
        (2, None, "its aggregate id is null"),
    ] {
        let mut row = ROW;
        row[column] = value;
        let event = read(&mut reader, insert(1, &row)).expect("read").expect("an event");
        let refusal = event.refusal().expect("it is refused");
        assert!(refusal.error.to_string().contains(why), "{}", refusal.error);
        assert_eq!(refusal.error.kind(), crate::ErrorKind::RecordRefused);
        let json: serde_json::Value = serde_json::from_slice(event.raw()).expect("JSON");
        assert_eq!((&json["type"], &json["tenant"]), (&"placed".into(), &().into()));
    }
    // Fewer columns than were described.
    let event = read(&mut reader, insert(1, &ROW[..3])).expect("read").expect("an event");
    let refusal = event.refusal().expect("it is refused");
    assert!(refusal.error.to_string().contains("is missing"), "{}", refusal.error);
}

proptest! {
    #[test]
    fn any_rows_and_descriptions_give_an_event_a_refusal_or_an_error(
        types in prop::collection::vec(prop::sample::select(vec![16, 17, 20, 21, 23, 25, 114, 1042, 1082, 1083, 1114, 1184, 1700, 2950, 3802]), 9),
        mut tuple: Vec<u8>,
        texts in prop::collection::vec(prop::option::of(".{0,12}"), 0..10),
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..17), 9),
        debezium: bool,
    ) {
        let names = [
            "id", "aggregate_type", "aggregate_id", "event_type", "payload", "created_at",
            "metadata", "tenant", "aggregatetype",
        ];
        let columns: Vec<_> = names.into_iter().zip(types).collect();
        let preset = if debezium { OutboxPreset::Debezium } else { OutboxPreset::Factlib };
        let mut reader = reader(preset);
        read(&mut reader, relation(1, "app", "o", &columns)).expect("described");
        let texts: Vec<_> = texts.iter().map(Option::as_deref).collect();
        let event = read(&mut reader, insert(1, &texts)).expect("read").expect("an event");
        prop_assert!(event.refusal().is_some() || !event.aggregate_type().is_empty());
        let event = read(&mut reader, insert_binary(1, &values)).expect("read").expect("an event");
        prop_assert!(event.refusal().is_some() || !event.aggregate_type().is_empty());
        // And bytes that nobody would send.
        for tag in [b'I', b'D', b'U'] {
            tuple.insert(0, tag);
            let _ = read(&mut reader, [&[tag], &1_u32.to_be_bytes()[..], &tuple].concat());
        }
    }
}

#[test]
fn a_binary_value_of_an_unknown_type_is_an_error_only_where_its_text_is_needed() {
    let needs_text = Arc::new(AtomicBool::new(false));
    let mut columns = COLUMNS;
    columns[3].1 = 701;
    let row = |aggregate_type: &str| {
        let values = [&[0; 16][..], aggregate_type.as_bytes(), b"7", &[0; 8], b"\x01{}", b"t"];
        insert_binary(1, &values.map(Vec::from))
    };
    // Not mapped, or mapped as the event's type.
    for (configured, is_mapped) in [(Some("tenant"), false), (None, true)] {
        let mut table = OutboxTable::new("app.o", OutboxPreset::Debezium);
        table.columns.event_type = configured.map(str::to_owned);
        let log = Logger::root(slog::Discard, o!());
        let mut reader = OutboxReader::new(vec![table], TableFacts::default(), log)
            .needs_text(Arc::clone(&needs_text));
        read(&mut reader, relation(1, "app", "o", &columns)).expect("described");
        needs_text.store(false, Relaxed);
        match read(&mut reader, row("Order")) {
            Ok(event) => assert!(!is_mapped && event.expect("an event").event_type() == "t"),
            Err(error) => assert!(is_mapped && error.is_transient(), "{error}"),
        }
        assert_eq!(needs_text.load(Relaxed), is_mapped);
        let error = read(&mut reader, row("")).expect_err("it can't be parked");
        assert!(error.to_string().contains("column type of outbox table app.o"), "{error}");
        assert!(needs_text.load(Relaxed));
        // In text, it is an event or parked.
        let event = read(&mut reader, insert(1, &ROW)).expect("read").expect("an event");
        assert!(event.refusal().is_none());
    }
}

#[test]
fn an_unusable_time_is_replaced_by_the_commits() {
    let table = OutboxTable::new("app.o", OutboxPreset::Debezium);
    let columns = COLUMNS.map(|(name, oid)| (name.to_owned(), oid));
    let columns = [&columns[..], &[("at".to_owned(), 1184)]].concat();
    let table = OutboxTable {
        columns: OutboxColumns { created_at: Some("at".into()), ..table.columns },
        ..table
    };
    let mapping = Mapping::resolve(&table, &columns).expect("all are there");
    for (time, ms, why) in [
        ("2023-11-14 22:13:20.123+00", 1_700_000_000_123, None),
        ("1960-01-01 00:00:00+00", 7, Some("a record can't have a time before 1970")),
        ("1970-01-01 00:00:00+00", 7, Some("a record can't have a time before 1970")),
        ("infinity", 7, Some("it is not in the range from 1677 to 2262")),
    ] {
        let row = [&ROW[..], &[Some(time)]].concat();
        let frames: Bytes = row.iter().flatten().flat_map(|text| text.bytes()).collect();
        let mut rest = &frames[..];
        let values = row.iter().map(|text| match text {
            None => Value::Null,
            Some(text) => {
                let (value, behind) = rest.split_at(text.len());
                rest = behind;
                Value::Text(value)
            }
        });
        let values: Vec<_> = values.collect();
        let context = RowContext {
            table: &table,
            topic_prefix: None,
            mapping: &mapping,
            commit_time_ns: 7_000_000,
            frames: &frames,
        };
        let read = context.event_from_values(&values, Lsn::new(9), &mut BytesMut::new());
        let read = read.expect("an event");
        assert_eq!(read.event.row().and_then(|row| row.timestamp_ms), Some(ms), "{time}");
        assert_eq!(read.unusable_time, why.map(|why| format!("{time}: {why}")));
    }
}

#[test]
fn a_domain_is_read_as_the_type_below_it() {
    let mut reader = reader(OutboxPreset::Debezium);
    let domain = |oid: u32, schema: &str, name: &str| {
        [b"Y", &oid.to_be_bytes()[..], schema.as_bytes(), b"\0", name.as_bytes(), b"\0"].concat()
    };
    let mut columns = COLUMNS;
    columns[2].1 = 16_400;
    columns[4].1 = 16_401;
    // One that is called like a type of the catalog, and is none.
    columns[5].1 = 16_402;
    read(&mut reader, domain(16_400, "", "bytea")).expect("described");
    read(&mut reader, domain(16_401, "", "bool")).expect("described");
    read(&mut reader, domain(16_402, "app", "bool")).expect("described");
    read(&mut reader, relation(1, "app", "o", &columns)).expect("described");
    let mut row = ROW;
    (row[2], row[4], row[5]) = (Some("\\x00ff"), Some("t"), Some("t"));
    let event = read(&mut reader, insert(1, &row)).expect("read").expect("an event");
    assert_eq!(event.raw(), "true");
    assert_eq!(
        (event.aggregate_id(), event.binary_key().map(|key| &key[..])),
        ("\\x00ff", Some(&b"\0\xff"[..]))
    );
    assert_eq!(event.row().expect("a row").headers, [("customer".into(), Some("t".into()))]);
}
