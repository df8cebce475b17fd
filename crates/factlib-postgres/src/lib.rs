//! PostgreSQL logical replication for users of tokio-postgres.
//!
//! tokio-postgres has no replication protocol: no `CopyBoth`, no `START_REPLICATION`. This crate
//! has it, with parsers of the stream and of the output plugin pgoutput, and ordinary
//! [`tokio_postgres::Client`]s that connect by the same rules.
//!
//! # The model
//! A **slot** is a bookmark that the server keeps: it remembers up to which position of the
//! write-ahead log its reader is done, and retains everything after that. A **publication** says
//! which tables are of interest. A replication connection **streams** the transactions after the
//! bookmark: complete, in commit order, and only once they have committed. The reader **confirms**
//! positions, and the server moves the bookmark.
//!
//! Delivery is therefore at least once: after a crash, the server sends again what was not confirmed. A
//! reader that confirms a position before its effects are safe loses changes; one that never
//! confirms fills the server's disk.
//!
//! # Positions
//! An [`Lsn`] is a byte position in the write-ahead log. Several of them look alike but differ:
//!
//! | position | meaning | confirm it? |
//! | --- | --- | --- |
//! | `Commit::end_lsn` | end of a transaction's commit record | yes, once the transaction is safe |
//! | `Commit::commit_lsn`, `Begin::final_lsn` | beginning of that record | no: the transaction would arrive again |
//! | `XLogData::wal_start` | position of a message | no: it is inside a transaction |
//! | `XLogData::wal_end` | end of the server's log when it sent the message | no: other messages are still to come |
//! | `Keepalive::wal_end` | position up to which everything has been sent | yes, if nothing received is unfinished |
//! | [`Slot::confirmed`](Slot) | last confirmed position that the server has saved | |
//! | [`StandbyStatus::flushed`] | confirms a position | |
//!
//! The position of a keepalive matters: in a database where nothing of interest happens, it is the
//! only thing that moves the slot.
//!
//! # Life of a connection
//! 1. [`ConnectInfo::parse`] takes libpq's connection strings, with libpq's rules for several
//!    hosts, TLS, passwords and environment variables.
//! 2. [`ReplicationClient::connect`] logs in. It can run statements, and replication commands:
//!    [`identify_system`](ReplicationClient::identify_system),
//!    [`create_temporary_slot`](ReplicationClient::create_temporary_slot).
//! 3. [`ReplicationClient::start`] turns it into a [`ReplicationStream`].
//! 4. [`ReplicationStream::read`] returns bytes, [`frame::next_frame`] splits them into messages of the
//!    replication protocol, and [`pgoutput::Message::parse`] reads the changes in them. No message
//!    is copied or allocated.
//! 5. [`ReplicationStream::send_status`] sends the position, every few seconds and whenever a
//!    keepalive requests it.
//! 6. [`ReplicationStream::finish`] ends the stream in order, so that the slot is free at once.
//!
//! ```no_run
#![doc = include_str!("../examples/tail.rs")]
//! ```
//!
//! # Failure
//! An [`Error`] has a [kind](ErrorKind), and often a [remedy](Error::remedy).
//! [`is_transient`](ErrorKind::is_transient) tells whether to connect again. Parsers refuse hostile
//! bytes and do not panic. A [`SilenceLimit`] detects peers that disappeared silently. Warnings, such
//! as one about a connection without TLS, go to an [`Observer`].
//!
//! # Versions
//! PostgreSQL 10 to 18, with pgoutput's protocol version 1: transactions arrive complete, after
//! their commit. Not supported: streaming of transactions in progress, two-phase commit, other plugins,
//! physical replication. TLS is rustls.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod auth;
mod connect_info;
mod connection_string;
mod connector;
mod encoding;
mod error;
mod exposure;
pub mod frame;
pub mod invalidation;
mod lsn;
mod observer;
mod password_command;
mod password_file;
pub mod pgoutput;
mod pgpass;
pub mod publication;
mod replication;
mod require_auth;
mod rows;
mod server;
mod service_file;
mod session;
mod session_settings;
mod settings;
mod silent_hosts;
mod slot;
mod sql;
mod sql_session;
mod stream;
mod text_settings;
mod timeline;
mod tls;
mod waits;
mod without_password;

pub use self::{
    connect_info::ConnectInfo,
    encoding::{CharacterTable, Encoding},
    error::{Error, ErrorFields, ErrorKind, Result, ServerError},
    lsn::{Lsn, ParseLsnError},
    observer::{Notice, Observer},
    password_command::PasswordCommand,
    password_file::PasswordFile,
    replication::{
        Backend, ReplicationClient, ReplicationOptions, ReplicationStream, SilenceLimit,
        StandbyStatus, SystemId,
    },
    rows::{RawRow, RowSession},
    server::Server,
    slot::Slot,
    sql::connect,
    sql_session::{SqlSession, StatementTimeout},
    text_settings::TEXT_SETTINGS,
    timeline::{MalformedHistory, TimelineHistory, TimelinePosition},
    waits::WaitsFor,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
