//! Options of a stream: slot, start position, publications, encoding.

use std::{sync::Arc, time::Duration};

use super::{SilenceLimit, identifier};
use crate::{Encoding, Lsn};

/// Default limit for the server's silence: PostgreSQL's default of `wal_receiver_timeout`.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Default interval of statuses: PostgreSQL's default of `wal_receiver_status_interval`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// Statuses within `wal_sender_timeout`, so that a late one does not end the connection.
const STATUSES_PER_TIMEOUT: u32 = 3;

/// Options of [`ReplicationClient::start`](crate::ReplicationClient::start).
///
/// ```
/// # use factlib_postgres::ReplicationOptions;
/// let options = ReplicationOptions::new("my_slot").publication("my_publication").messages(true);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicationOptions {
    pub(super) slot: String,
    pub(super) encoding: Encoding,
    pub(super) silence_limit: Arc<SilenceLimit>,
    pub(super) status_interval: Duration,
    publications: Vec<String>,
    start: Lsn,
    messages: bool,
    binary: bool,
}

impl ReplicationOptions {
    /// Streams from this slot, from its confirmed position on.
    pub fn new(slot: impl Into<String>) -> Self {
        ReplicationOptions {
            slot: slot.into(),
            encoding: Encoding::Converted,
            silence_limit: Arc::new(SilenceLimit::new(SILENCE_LIMIT)),
            status_interval: STATUS_INTERVAL,
            publications: Vec::new(),
            start: Lsn::ZERO,
            messages: false,
            binary: false,
        }
    }

    /// Adds a publication, whose tables' changes are then streamed. At least one is required; for
    /// logical messages, it may be empty.
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publications.push(name.into());
        self
    }

    /// Skips transactions that end at or before this position. Transactions that ended before the
    /// slot's confirmed position are never sent, even if this position is lower.
    pub fn start_at(self, start: Lsn) -> Self {
        ReplicationOptions { start, ..self }
    }

    /// Streams logical messages (`pg_logical_emit_message`) as well, if the server is PostgreSQL 14
    /// or later.
    pub fn messages(self, messages: bool) -> Self {
        ReplicationOptions { messages, ..self }
    }

    /// Asks for the columns of rows in the binary format of their types, if the server is
    /// PostgreSQL 14 or later. Types without one come as text.
    pub fn binary(self, binary: bool) -> Self {
        ReplicationOptions { binary, ..self }
    }

    /// Sets how texts are converted to UTF-8. By default the server converts them, and ends the
    /// stream at a text that it can't convert.
    pub fn encoding(self, encoding: Encoding) -> Self {
        ReplicationOptions { encoding, ..self }
    }

    /// Sets the time for which the server may be silent; one minute by default. Share one value
    /// among successive connections to a slot.
    pub fn silence_limit(self, silence_limit: Arc<SilenceLimit>) -> Self {
        ReplicationOptions { silence_limit, ..self }
    }

    /// Sets the interval at which the caller sends statuses; ten seconds by default.
    pub fn status_interval(self, status_interval: Duration) -> Self {
        ReplicationOptions { status_interval, ..self }
    }

    /// Returns the highest `wal_sender_timeout` with which a server that decodes a large transaction
    /// replies within the silence limit: it reads statuses after half of that time, and has half of the
    /// limit to reply. It leaves room for some statuses.
    pub(super) fn wal_sender_timeout_max(&self) -> Duration {
        (self.silence_limit.initial() / 2).max(STATUSES_PER_TIMEOUT * self.status_interval)
    }

    /// Returns the replication command. The options of PostgreSQL 14 are left out unless the server
    /// has them.
    pub(super) fn command(&self, has_options: bool) -> String {
        let names = self.publications.iter().map(|name| identifier(name));
        let names = names.collect::<Vec<_>>().join(",");
        let messages = if self.messages && has_options { ", messages 'true'" } else { "" };
        let binary = if self.binary && has_options { ", binary 'true'" } else { "" };
        format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}{messages}{binary})",
            identifier(&self.slot),
            self.start,
            literal(&names),
        )
    }
}

/// Quotes a literal for the replication grammar, in which only quotes are special.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_out_has_room_for_statuses() {
        let options = ReplicationOptions::new("s");
        let max = |limit, interval| {
            let limit = Arc::new(SilenceLimit::new(Duration::from_secs(limit)));
            let options = options.clone().silence_limit(limit);
            options
                .status_interval(Duration::from_secs(interval))
                .wal_sender_timeout_max()
                .as_secs()
        };
        assert_eq!((max(20, 5), max(20, 2), max(2, 1)), (15, 10, 3));
    }

    #[test]
    fn hostile_names_stay_names() {
        let options = ReplicationOptions::new("s\" x")
            .start_at(Lsn::new(0x1_0000_0002))
            .publication("a")
            .publication("b\"'; DROP")
            .messages(true);
        assert_eq!(
            options.command(true),
            "START_REPLICATION SLOT \"s\"\" x\" LOGICAL 1/2 (proto_version '1', \
             publication_names '\"a\",\"b\"\"''; DROP\"', messages 'true')"
        );
        let options = options.binary(true);
        assert!(options.command(true).ends_with("', messages 'true', binary 'true')"));
        let before_14 = options.command(false);
        assert!(!before_14.contains("messages") && !before_14.contains("binary"), "{before_14}");
    }
}
