//! The actors, one a file; each is a thin shell around a plain struct.

mod checkpointer;
mod chosen_topics;
mod coordinator;
mod decoder;
mod deliveries;
#[cfg(feature = "test-util")]
mod discard;
mod draining;
mod event_decoder;
mod framing;
mod gate;
mod handing_on;
mod handler;
mod lane;
mod pace;
#[cfg(feature = "test-util")]
#[doc(hidden)] // For benches/parts.rs: the inside, and no promise.
pub mod parts;
#[cfg(feature = "client-kafka")]
mod plain_producer;
mod publication_watch;
mod refused_topic;
mod router;
mod row_sweeper;
mod supervisor;
mod topic_producer;
mod transaction;
mod wal_reader;
mod wal_watch;
mod without_kafka;

#[cfg(feature = "test-util")]
pub(crate) use self::discard::DiscardLanes;
#[cfg(feature = "client-kafka")]
pub(crate) use self::plain_producer::PlainLanes;
pub(crate) use self::{
    event_decoder::EventDecoder,
    handler::HandlerLanes,
    lane::Lanes,
    supervisor::{Outcome, Plan, Supervisor, Threads},
    topic_producer::KafkaLanes,
    without_kafka::TableLanes,
};
