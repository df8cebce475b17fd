//! The event on the wire against bytes that are not prost's.
//!
//! The files in this folder were written by Google's protobuf for Python from
//! `proto/factlib/v1/outbox.proto` as its own protoc reads it; `make.py` says how.
//! Field numbers and types are those of the Go library, so these are the bytes that it
//! writes and expects.

mod generate;

use std::{collections::BTreeMap, env, fs, path::Path};

use bytes::Bytes;
use factlib::{
    ErrorKind, Event, Lsn,
    proto::{OutboxEvent, TraceInfo},
};
use prost::Message;

macro_rules! golden {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!($name, ".bin")))
    };
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn full() -> OutboxEvent {
    OutboxEvent {
        id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        aggregate_type: "user".into(),
        aggregate_id: "user-1".into(),
        event_type: "user.created".into(),
        payload: Bytes::from_static(b"{\"name\":\"Zo\xc3\xab\"}\x00\xff"),
        created_at: 1_700_000_000_123_456_789,
        metadata: texts(&[("tenant", "7"), ("region", "eu")]),
        trace_info: Some(TraceInfo {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            span_id: "00f067aa0ba902b7".into(),
            metadata: texts(&[("sampled", "1")]),
        }),
    }
}

fn no_trace() -> OutboxEvent {
    OutboxEvent {
        aggregate_type: "user".into(),
        aggregate_id: "user-1".into(),
        event_type: "user.deleted".into(),
        created_at: -1,
        ..Default::default()
    }
}

fn empty_trace() -> OutboxEvent {
    OutboxEvent {
        aggregate_type: "user".into(),
        trace_info: Some(TraceInfo::default()),
        ..Default::default()
    }
}

fn order() -> OutboxEvent {
    OutboxEvent {
        aggregate_type: "order".into(),
        aggregate_id: "o-9".into(),
        payload: Bytes::from_static(b"p"),
        ..Default::default()
    }
}

/// What the relay reads of the bytes is what they say.
fn assert_parsed(raw: &Bytes, expected: &OutboxEvent) {
    let event = Event::parse(raw.clone(), Lsn::new(7)).expect("an event");
    assert_eq!(event.id(), expected.id);
    assert_eq!(event.aggregate_type(), expected.aggregate_type);
    assert_eq!(event.aggregate_id(), expected.aggregate_id);
    assert_eq!(event.event_type(), expected.event_type);
    assert_eq!(event.created_at_ns(), expected.created_at);
    assert_eq!(event.trace(), expected.trace_info.as_ref());
    assert_eq!(event.raw(), raw, "the record's value is what was emitted");
    assert_eq!(&event.decode().expect("an event"), expected);
}

#[test]
fn the_committed_code_is_generated_from_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated =
        generate::code(&root.join("proto/factlib/v1/outbox.proto"), &root.join("proto"));
    let committed = root.join("crates/factlib-emit/src/proto/factlib.v1.rs");
    if env::var_os("UPDATE_PROTO").is_some() {
        fs::write(&committed, &generated).expect("written");
    }
    let committed = fs::read_to_string(committed).expect("a file");
    assert!(committed == generated, "the schema has changed: `make proto` generates its code");
}

#[test]
fn every_shape_is_read_and_written_as_by_the_other_libraries() {
    for (name, raw, expected) in [
        ("full", golden!("full"), full()),
        ("no_trace", golden!("no_trace"), no_trace()),
        ("empty_trace", golden!("empty_trace"), empty_trace()),
    ] {
        assert_eq!(OutboxEvent::decode(raw.clone()).expect("decodes"), expected, "{name}");
        assert_eq!(expected.encode_to_vec(), raw, "{name}");
        assert_parsed(&raw, &expected);
    }
}

#[test]
fn what_the_python_client_leaves_out_is_no_obstacle_and_its_microseconds_are_told() {
    let raw = golden!("python_client");
    let event = Event::parse(raw.clone(), Lsn::new(7)).expect("an event");
    assert_eq!((event.id(), event.trace(), event.key()), ("", None, "user-1"));
    assert_eq!(event.created_at_ns(), 1_700_000_000_123_456_000);
    assert_eq!(event.raw(), &raw, "the record's value is what was emitted");
    let written = OutboxEvent::decode(raw).expect("decodes").created_at;
    assert_eq!(written, 1_700_000_000_123_456);
}

#[test]
fn the_empty_event_has_no_bytes_and_no_place_to_go() {
    let raw = golden!("empty");
    assert_eq!(OutboxEvent::decode(raw.clone()).expect("decodes"), OutboxEvent::default());
    assert_eq!(OutboxEvent::default().encode_to_vec(), raw);
    let error = Event::parse(raw, Lsn::new(7)).expect_err("no topic");
    assert_eq!(error.kind(), ErrorKind::RecordRefused);
    assert!(error.to_string().contains("aggregate_type is empty"), "{error}");
}

#[test]
fn unknown_fields_survive_in_the_raw_bytes() {
    let raw = golden!("unknown_fields");
    assert_parsed(&raw, &order());
    // What we know of it comes first; the fields of a later version follow.
    let known = order().encode_to_vec();
    assert!(raw.len() > known.len() && raw.starts_with(&known));
}

#[test]
fn an_empty_text_in_metadata_means_the_same_in_fewer_bytes() {
    // Others write the default value of a map's entry out, prost leaves it out: the
    // bytes may differ, what they say may not.
    let raw = golden!("empty_map_value");
    let expected = OutboxEvent {
        aggregate_type: "user".into(),
        metadata: texts(&[("flag", "")]),
        ..Default::default()
    };
    assert_parsed(&raw, &expected);
    assert_parsed(&expected.encode_to_vec().into(), &expected);
}
