//! The two servers of this benchmark, as a production of their size would have them.

use std::time::Duration;

use factlib::testing::{KafkaServer, KafkaServerBuilder, PostgresServer};

use crate::{
    Result,
    servers::{NAME, Servers},
};

/// The table of docs/outbox-tables.md; empty for the backlogs of messages.
const OUTBOX_TABLE: &str = "CREATE TABLE outbox_events (
    id uuid PRIMARY KEY, aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), metadata jsonb NOT NULL DEFAULT '{}',
    processed boolean NOT NULL DEFAULT false, processed_at timestamptz)";

/// Starts both on this machine.
pub async fn start() -> Result<Servers> {
    start_with(KafkaServer::builder()).await
}

/// Starts them with a network before the broker, see [`distance`].
pub async fn start_distant() -> Result<Servers> {
    start_with(KafkaServer::builder().proxied()).await
}

/// Sets the round trip to a distant broker.
pub fn distance(servers: &Servers, round_trip: Duration) -> Result<()> {
    servers.kafka.proxy(1)?.latency(round_trip / 2);
    Ok(())
}

/// `fsync` is off, as in every throwaway server: no backlog waits for a disk.
async fn start_with(kafka: KafkaServerBuilder) -> Result<Servers> {
    let schema = format!("{OUTBOX_TABLE}; CREATE PUBLICATION {NAME} FOR TABLE outbox_events");
    Servers::start(PostgresServer::builder(), kafka, &schema).await
}
