//! The actors: one room each, with the actor in its `mod.rs` around plain structs.

#[cfg(feature = "test-util")]
#[doc(hidden)] // For benches/parts.rs and fuzzing: internals, no promise.
pub mod bench;
mod checkpointer;
mod commit_gate;
mod decoder;
mod give_way;
mod handler;
mod held_events;
mod lane;
mod outbox_tables;
mod receipt_writer;
mod router;
mod supervisor;
mod topic_producer;
mod wal_reader;

#[cfg(feature = "test-util")]
pub(crate) use self::topic_producer::DiscardLanes;
#[cfg(feature = "client-kafka")]
pub(crate) use self::topic_producer::PlainLanes;
pub(crate) use self::{
    decoder::EventDecoder,
    handler::HandlerLanes,
    held_events::HeldEventLanes,
    lane::Lanes,
    receipt_writer::{ReceiptTarget, ReceiptWriter},
    supervisor::{PipelineOutcome, PipelineResources, Supervisor, Threads},
    topic_producer::{KafkaLanes, PartitionWatch, TableLanes, TopicClient},
};
