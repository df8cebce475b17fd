//! The servers of the comparison: `fsync` on, and a proxy before the broker that adds distance.

use std::time::Duration;

use factlib::testing::{KafkaServer, PostgresServer};

use crate::support::{
    Result,
    servers::{NAME, Servers},
};

/// Publication of no table, for logical messages alone.
pub const MESSAGES_PUBLICATION: &str = "messages_only";
/// The broker's listener behind the proxy.
const DISTANT: &str = "DISTANT";

/// The table of Debezium's documentation of its outbox event router.
const SCHEMA: &str = "\
CREATE TABLE outbox (
    id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL,
    type varchar(255) NOT NULL, payload jsonb NOT NULL)";

/// Starts one PostgreSQL that syncs each commit to disk, and one broker.
pub async fn start() -> Result<Servers> {
    let schema = format!(
        "{SCHEMA}; CREATE PUBLICATION {NAME} FOR TABLE outbox WITH (publish = 'insert');
         CREATE PUBLICATION {MESSAGES_PUBLICATION}"
    );
    let postgres = PostgresServer::builder().setting("fsync", "on");
    Servers::start(postgres, KafkaServer::builder().proxied_listener(DISTANT), &schema).await
}

/// Returns the broker's address behind the proxy, which delays nothing at first.
pub fn distant(servers: &Servers) -> String {
    servers.kafka.listener(DISTANT)
}

/// Sets the round trip to the broker behind the proxy.
pub fn set_round_trip(servers: &Servers, round_trip: Duration) -> Result<()> {
    servers.kafka.listener_proxy(1, DISTANT)?.latency(round_trip / 2);
    Ok(())
}

/// Empties the table, so that each relay finds an index of the same size.
pub async fn clear(servers: &Servers) -> Result<()> {
    Ok(servers.sql.batch_execute("TRUNCATE outbox").await?)
}
