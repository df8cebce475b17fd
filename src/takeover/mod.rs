//! Takes over from another relay: reads its configuration, compares what both would send, and goes
//! on where it stopped.
//!
//! | file | idea |
//! | --- | --- |
//! | [`debezium`] | Debezium's PostgreSQL connector with its outbox event router |
//! | [`handover`] | goes on where another relay stopped, on its slot |

pub mod debezium;
pub mod handover;
