//! Goes on where Debezium stopped: what it has sent is not sent again, and all else is.

mod debezium;
mod outbox;
mod slot;
