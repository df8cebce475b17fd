//! The section `[postgres]`.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use factlib_postgres::{ConnectInfo, PasswordCommand, PasswordFile};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::command::{CommandLine, hidden_variables};
use crate::Result;

/// Default of `url`, which contains no secret.
pub(crate) const DEFAULT_URL: &str = "postgresql://localhost:5432/postgres";

/// The section `[postgres]`: connection, slot and source of events.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Connection string: a URL or `key=value` pairs, with libpq's parameters.
    #[serde(serialize_with = "super::secret::redacted")]
    pub url: SecretString,
    /// Database; overrides that of the connection strings.
    pub database: Option<String>,
    /// Password; overrides that of the connection string.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub password: Option<SecretString>,
    /// Command that prints the password, run at each connection: a text is run by `sh -c`, a list
    /// without a shell. It may take `postgres.connect_timeout`.
    pub password_command: Option<CommandLine>,
    /// File with the password; it is read again at each connection.
    #[serde(skip)]
    pub password_file: Option<PathBuf>,
    /// File with the connection string; its password is read again at each connection.
    #[serde(skip)]
    pub url_file: Option<PathBuf>,
    /// Connection string of the primary, where `url` is a standby of it: the relay reads from the
    /// standby and writes to the primary. Name all hosts that may be the primary.
    #[serde(serialize_with = "super::secret::redacted_option")]
    pub primary_url: Option<SecretString>,
    /// Name of the replication slot.
    pub slot: String,
    /// Name of the publication; logical messages need no table in it.
    pub publication: String,
    /// Prefix of the logical messages that are facts (second argument of
    /// `pg_logical_emit_message`).
    pub message_prefix: String,
    /// Source of events: logical messages or outbox tables, never both. Default: `tables`
    /// if there is an `[[outbox]]`, else `messages`; `tables` without an `[[outbox]]` reads
    /// `public.outbox_events`.
    pub source: Option<Source>,
    /// Create missing slot, publication and checkpoint table on `run`, and add new tables that match a
    /// pattern to the publication.
    pub create: bool,
    /// Let standbys keep a copy of the slot (`failover`), from PostgreSQL 17 on, so that
    /// reading goes on after a failover. An existing slot is altered before it is read.
    pub failover: bool,
    /// Interval of reporting the position to the server; must be well below its
    /// `wal_sender_timeout`.
    #[serde(with = "humantime_serde")]
    pub status_interval: Duration,
    /// Silence of the server after which the replication connection counts as
    /// lost, whatever its `wal_sender_timeout` is; after half of it, the relay
    /// asks for an answer.
    #[serde(with = "humantime_serde")]
    pub wal_receiver_timeout: Duration,
    /// Time limit of one attempt to connect, and of one statement.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Interval of checking that all outbox tables are still published, and of looking for new ones
    /// that match a pattern.
    #[serde(with = "humantime_serde")]
    pub publication_check_interval: Duration,
    /// Start although the publication has a row filter on an outbox table; rows that do not
    /// match it are never sent.
    pub accept_row_filter: bool,
    /// Warn when the server keeps this much WAL for the slot, and again at each doubling.
    #[serde(serialize_with = "super::size::serialize")]
    pub retained_wal_warning: ByteSize,
}

/// Source of events in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Source {
    /// Logical messages; from PostgreSQL 14 on.
    Messages,
    /// Rows inserted into outbox tables; from PostgreSQL 10 on.
    Tables,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        PostgresConfig {
            url: SecretString::from(DEFAULT_URL),
            database: None,
            password: None,
            password_command: None,
            password_file: None,
            url_file: None,
            primary_url: None,
            slot: "factlib".into(),
            publication: "factlib".into(),
            message_prefix: "factlib".into(),
            source: None,
            create: true,
            failover: true,
            status_interval: Duration::from_secs(5),
            wal_receiver_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            publication_check_interval: Duration::from_secs(5),
            accept_row_filter: false,
            retained_wal_warning: ByteSize::gib(1),
        }
    }
}

impl PostgresConfig {
    /// The server's address and credentials.
    pub(crate) fn connect_info(&self) -> Result<ConnectInfo> {
        let info = ConnectInfo::parse(self.url.expose_secret())?;
        // With a primary named beside them, the hosts may be standbys.
        let info = match &self.primary_url {
            None => info.with_default_target_primary(),
            Some(_) => info,
        };
        Ok(self.with_password(match &self.url_file {
            Some(path) => info.with_password_from(PasswordFile::Url(path.clone())),
            None => info,
        }))
    }

    /// The server to write to: the primary, if the address is a standby's; else the same, with its memory
    /// of silent hosts.
    pub(crate) fn writing_info(&self, info: &ConnectInfo) -> Result<ConnectInfo> {
        match &self.primary_url {
            None => Ok(info.clone()),
            Some(url) => {
                Ok(self.with_password(ConnectInfo::parse(url.expose_secret())?.of_primary()))
            }
        }
    }

    fn with_password(&self, info: ConnectInfo) -> ConnectInfo {
        let info = info.with_default_application_name("factlib");
        let info = match &self.database {
            Some(database) => info.with_database(database),
            None => info,
        };
        let info = match &self.password {
            Some(password) => info.with_password(password.clone()),
            None => info,
        };
        let info = match &self.password_file {
            Some(path) => info.with_password_from(PasswordFile::Whole(path.clone())),
            None => info,
        };
        match &self.password_command {
            Some(command) => info.with_password_command(self.runnable(command)),
            None => info,
        }
    }

    fn runnable(&self, command: &CommandLine) -> PasswordCommand {
        let command = match command {
            CommandLine::Shell(script) => PasswordCommand::shell(script),
            CommandLine::Program(words) => {
                let (program, arguments) =
                    words.split_first().map_or(("", &[][..]), |(p, a)| (&**p, a));
                PasswordCommand::program(program, arguments)
            }
        };
        command.limit(self.connect_timeout).hide(hidden_variables())
    }
}
