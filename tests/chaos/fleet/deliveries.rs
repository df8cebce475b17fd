//! When each fact was emitted, and when it first arrived.

use std::collections::HashSet;

use bytes::Bytes;
use factlib::{Lsn, proto::OutboxEvent, testing::ConsumedRecord};
use prost::Message;

/// A fact that arrived.
pub struct Delivery {
    /// Number of the tenant.
    pub tenant: usize,
    pub lsn: Lsn,
    pub emitted_ms: i64,
    pub arrived_ms: i64,
}

/// The first delivery of each fact.
#[derive(Default)]
pub struct Deliveries {
    pub all: Vec<Delivery>,
    seen: HashSet<Bytes>,
}

impl Deliveries {
    /// The next record of its partition; its timestamp is that of its arrival.
    pub fn record(&mut self, record: &ConsumedRecord) {
        let delivery = (|| {
            if !self.seen.insert(record.header("event_id")?.clone()) {
                return None;
            }
            let event = OutboxEvent::decode(record.value.clone()?).ok()?;
            let lsn = std::str::from_utf8(record.header("LSN")?).ok()?.parse().ok()?;
            // `kind-emitter-aggregate`: there is one emitter for each tenant.
            let tenant = event.aggregate_id.rsplit('-').nth(1)?.parse().ok()?;
            let emitted_ms = event.created_at / 1_000_000;
            Some(Delivery { tenant, lsn, emitted_ms, arrived_ms: record.timestamp_ms? })
        })();
        self.all.extend(delivery);
    }

    /// Those of a tenant that were emitted in a time.
    pub fn of(&self, tenant: usize, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &Delivery> {
        self.all
            .iter()
            .filter(move |one| one.tenant == tenant && (from_ms..to_ms).contains(&one.emitted_ms))
    }
}
