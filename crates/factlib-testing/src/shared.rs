//! One server of each kind for the whole process.
//!
//! A start takes seconds, so the tests of a binary share the servers, and each test makes its own
//! database, slot and topics. Statics are never dropped; the servers stop because their guard
//! notices the end of the process (see `process`).

use tokio::sync::OnceCell;

#[cfg(feature = "kafka")]
use crate::KafkaServer;
use crate::{PostgresServer, Result};

/// Returns the PostgreSQL of this process; the first call starts it.
///
/// A test that stops it starts its own with [`PostgresServer::start`].
pub async fn shared_postgres() -> Result<&'static PostgresServer> {
    static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
    SERVER.get_or_try_init(PostgresServer::start).await
}

/// Returns the Kafka of this process, one broker; the first call starts it.
///
/// A test that stops it starts its own with [`KafkaServer::start`].
#[cfg(feature = "kafka")]
pub async fn shared_kafka() -> Result<&'static KafkaServer> {
    static SERVER: OnceCell<KafkaServer> = OnceCell::const_new();
    SERVER.get_or_try_init(KafkaServer::start).await
}
