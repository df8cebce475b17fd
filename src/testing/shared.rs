//! One server of each kind for the whole process.
//!
//! Starting one takes seconds, so the tests of a binary share them, each with a
//! database, a slot and topics of its own. Statics are never dropped; the servers
//! stop because their guard sees the process end (see [`process`](super::process)).

use tokio::sync::OnceCell;

use super::{KafkaServer, PostgresServer};
use crate::Result;

/// The PostgreSQL of this process, started by whoever asks first.
///
/// Whoever wants to stop it starts one of their own.
pub async fn shared_postgres() -> Result<&'static PostgresServer> {
    static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
    SERVER.get_or_try_init(PostgresServer::start).await
}

/// The Kafka of this process, one broker, started by whoever asks first.
///
/// Whoever wants to stop it starts one of their own.
pub async fn shared_kafka() -> Result<&'static KafkaServer> {
    static SERVER: OnceCell<KafkaServer> = OnceCell::const_new();
    SERVER.get_or_try_init(KafkaServer::start).await
}
