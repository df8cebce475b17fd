//! One held event as the table has it: the record of its letter.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use tokio_postgres::{Row, types::PgLsn};

use super::super::{
    letter::{Letter, LetterPosition},
    record::{kept_text, record},
};
use crate::{Event, Result, record::Headers};

/// The headers of a letter, as the table has them.
#[derive(Clone, PartialEq, Message)]
struct StoredHeaders {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<StoredHeader>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHeader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
}

/// Rows to be written, by column.
#[derive(Default)]
pub(super) struct NewRows {
    pub aggregate_types: Vec<String>,
    pub aggregate_ids: Vec<String>,
    pub commit_lsns: Vec<PgLsn>,
    pub ordinals: Vec<i64>,
    pub event_ids: Vec<String>,
    pub topics: Vec<String>,
    pub errors: Vec<Option<String>>,
    pub keys: Vec<Vec<u8>>,
    pub values: Vec<Option<Vec<u8>>>,
    pub headers: Vec<Vec<u8>>,
}

impl NewRows {
    /// Makes the rows of events that have a refusal; others are left out.
    pub fn new(events: &[Event]) -> Self {
        let mut rows = NewRows::default();
        for event in events {
            let Some(refusal) = event.refusal() else { continue };
            let record = record(event, refusal);
            let position = event.stream_position();
            let error =
                (!refusal.waits).then(|| refusal.error.to_string().replace('\0', "\u{fffd}"));
            rows.aggregate_types.push(kept_text(event.aggregate_type()));
            rows.aggregate_ids.push(kept_text(event.aggregate_id()));
            rows.commit_lsns.push(PgLsn::from(position.commit_lsn.as_u64()));
            rows.ordinals.push(position.ordinal.try_into().unwrap_or(i64::MAX));
            rows.event_ids.push(kept_text(event.id()));
            rows.topics.push(refusal.topic.as_deref().unwrap_or_default().to_owned());
            rows.errors.push(error);
            rows.keys.push(record.key.to_vec());
            rows.values.push(record.value.map(|value| value.to_vec()));
            rows.headers.push(stored(record.headers));
        }
        rows
    }
}

fn stored(headers: Headers) -> Vec<u8> {
    let stored = |(name, value): (bytestring::ByteString, Option<Bytes>)| StoredHeader {
        name: name.to_string(),
        value,
    };
    StoredHeaders { headers: headers.into_iter().map(stored).collect() }.encode_to_vec()
}

/// Reads `id, held_at, key, value, headers` as a letter.
pub(super) fn letter(row: &Row) -> Result<Letter, tokio_postgres::Error> {
    let held_at: SystemTime = row.try_get(1)?;
    let since_epoch = held_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (key, value): (Vec<u8>, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
    let headers: &[u8] = row.try_get(4)?;
    // Only this program writes them; what can't be read has no headers.
    let headers = StoredHeaders::decode(headers).unwrap_or_default().headers;
    Ok(Letter::of_row(
        LetterPosition::held(row.try_get(0)?),
        since_epoch.as_millis().try_into().unwrap_or(i64::MAX),
        Some(key.into()),
        value.map(Bytes::from),
        headers.into_iter().map(|header| (header.name, header.value)).collect(),
    ))
}
