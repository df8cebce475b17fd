//! The actors, one a file; each is a thin shell around a plain struct.

mod checkpointer;
mod decoder;
mod deliveries;
mod lane;
mod router;
mod supervisor;
mod topic_producer;
mod wal_reader;

pub(crate) use self::{
    lane::Lanes,
    supervisor::{Outcome, Plan, Supervisor},
    topic_producer::KafkaLanes,
};
