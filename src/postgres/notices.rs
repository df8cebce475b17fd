//! Logs the notices of PostgreSQL connections.

use std::{sync::Arc, time::Duration};

use factlib_postgres::{ConnectInfo, Encoding, Notice, Observer, SqlSession};
use slog::{Logger, debug, warn};
use tokio_postgres::Client;

use crate::Result;

/// Remedy against third parties on the network.
const VERIFY: &str = "sslmode=verify-full and sslrootcert in the connection string";

/// An observer that logs notices.
struct LogNotices(Logger);

impl Observer for LogNotices {
    fn notice(&self, notice: &Notice<'_>) {
        let log = &self.0;
        match notice {
            Notice::PasswordFileIgnored { path } => {
                warn!(log, "password file is ignored: others can read it";
                    "path" => %path.display(), "remedy" => "chmod 0600");
            }
            Notice::Unverified { host } => {
                warn!(log, "postgresql's certificate is not verified: anyone on the way can pose as the server";
                    "host" => host, "remedy" => VERIFY);
            }
            Notice::Unencrypted { host } => {
                warn!(log, "the connection to postgresql is not encrypted: anyone on the way can read it";
                    "host" => host, "remedy" => VERIFY);
            }
            Notice::ConnectionEnded { error } => {
                debug!(log, "postgresql connection ended"; "error" => %error);
            }
            Notice::WaitUnknown { error } => {
                debug!(log, "what a statement waits for is not known"; "error" => %error);
            }
            Notice::NotCancelled { error } => {
                debug!(log, "a statement could not be cancelled"; "error" => %error);
            }
            Notice::ConvertedByServer { encoding, error } => {
                warn!(log, "cannot ask postgresql for the characters of the database's encoding: \
                    a text that it can't convert will end the reading";
                    "encoding" => encoding, "error" => %error);
            }
            other => debug!(log, "postgresql client"; "notice" => %other),
        }
    }
}

/// Returns the same parameters, with notices logged to `log`.
pub(crate) fn logged(info: &ConnectInfo, log: &Logger) -> ConnectInfo {
    info.clone().with_observer(Arc::new(LogNotices(log.clone())))
}

/// Connects a session for statements within `limit`, with its notices logged.
pub(crate) async fn sql_session(
    info: &ConnectInfo,
    limit: Duration,
    log: &Logger,
) -> Result<SqlSession> {
    Ok(SqlSession::connect(&logged(info, log), limit).await?)
}

/// Reads the encoding of the database, with notices logged.
pub(crate) async fn read_encoding(client: &Client, log: &Logger) -> Result<Encoding> {
    Ok(Encoding::read(client, &LogNotices(log.clone())).await?)
}
