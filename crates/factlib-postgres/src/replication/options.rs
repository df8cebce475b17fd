//! Options of a stream: which slot, from where, with what in it.

use std::{sync::Arc, time::Duration};

use super::{SilenceLimit, identifier};
use crate::{Encoding, Lsn};

/// Limit for the server's silence where none is given: PostgreSQL's `wal_receiver_timeout`.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

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
    publications: Vec<String>,
    start: Lsn,
    messages: bool,
}

impl ReplicationOptions {
    /// The stream of this slot, from its confirmed position on.
    pub fn new(slot: impl Into<String>) -> Self {
        ReplicationOptions {
            slot: slot.into(),
            encoding: Encoding::Converted,
            silence_limit: Arc::new(SilenceLimit::new(SILENCE_LIMIT)),
            publications: Vec::new(),
            start: Lsn::ZERO,
            messages: false,
        }
    }

    /// Adds a publication: the stream has the changes to its tables. At least one is needed, if
    /// only an empty one for logical messages.
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publications.push(name.into());
        self
    }

    /// Skips transactions that end at or before this position. It only skips ahead: transactions
    /// that ended before the slot's confirmed position are not sent, whatever it says.
    pub fn start_at(self, start: Lsn) -> Self {
        ReplicationOptions { start, ..self }
    }

    /// Streams logical messages (`pg_logical_emit_message`) as well, if the server is PostgreSQL 14
    /// or later.
    pub fn messages(self, messages: bool) -> Self {
        ReplicationOptions { messages, ..self }
    }

    /// Sets how texts are converted to UTF-8; without it, the server converts them, and ends the
    /// stream at one that it can't convert.
    pub fn encoding(self, encoding: Encoding) -> Self {
        ReplicationOptions { encoding, ..self }
    }

    /// Sets the time for which the server may be silent; a minute without it. Share one value among
    /// the connections of a slot.
    pub fn silence_limit(self, silence_limit: Arc<SilenceLimit>) -> Self {
        ReplicationOptions { silence_limit, ..self }
    }

    /// The replication command.
    pub(super) fn command(&self, has_messages: bool) -> String {
        let names = self.publications.iter().map(|name| identifier(name));
        let names = names.collect::<Vec<_>>().join(",");
        let messages = if self.messages && has_messages { ", messages 'true'" } else { "" };
        format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}{messages})",
            identifier(&self.slot),
            self.start,
            literal(&names),
        )
    }
}

/// The replication grammar's literal: only quotes are special, backslashes are not.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!options.command(false).contains("messages"));
    }
}
