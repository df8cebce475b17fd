//! Any rows of an outbox table, and any descriptions of it: events, refused ones, or errors.
#![no_main]

use factlib::{
    bench::Decoding,
    config::{OutboxPreset, OutboxTable},
};
use libfuzzer_sys::fuzz_target;

const COLUMNS: [(&str, u32); 8] = [
    ("id", 2950),
    ("aggregate_type", 25),
    ("aggregate_id", 25),
    ("event_type", 16),
    ("payload", 17),
    ("created_at", 1184),
    ("metadata", 3802),
    ("aggregatetype", 25),
];

/// XLogData in CopyData.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + 1 + 24 + data.len()).unwrap_or(u32::MAX);
    [&b"d"[..], &length.to_be_bytes(), b"w", &[0; 24], data].concat()
}

fn relation() -> Vec<u8> {
    COLUMNS.iter().fold(b"R\0\0\0\x01public\0o\0d\0\x08".to_vec(), |bytes, (name, oid)| {
        [&bytes[..], b"\0", name.as_bytes(), b"\0", &oid.to_be_bytes(), &[0xff; 4]].concat()
    })
}

fuzz_target!(|bytes: &[u8]| {
    let begin = [&b"B"[..], &[0xff; 8], &[0; 12]].concat();
    let row = [&b"I\0\0\0\x01N\0\x08"[..], bytes].concat();
    for preset in [OutboxPreset::Factlib, OutboxPreset::Debezium] {
        let mut table = OutboxTable::new("public.o", preset);
        table.columns.aggregate_id = Some("aggregate_id".into());
        let decoding = Decoding::of_tables(vec![table]);
        let described = [frame(&begin), frame(&relation())].concat();
        decoding.decode(&described.clone().into()).expect("what PostgreSQL sends");
        if let Ok(events) = decoding.decode(&[described, frame(&row)].concat().into()) {
            let is_right = |event: &factlib::Event| {
                event.refusal().is_some() || !event.aggregate_type().is_empty()
            };
            assert!(events.len() == 1 && events.iter().all(is_right));
        }
        // And a message of any kind, descriptions among them.
        let _ = decoding.decode(&frame(bytes).into());
        let _ = decoding.decode(&frame(&row).into());
    }
});
