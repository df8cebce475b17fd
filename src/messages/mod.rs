//! What actors say to each other, one file an edge of the picture.
//!
//! Data flows down in batches: [`WalBatch`] → [`EventBatch`] → [`TopicBatch`].
//! Acknowledgements flow up: [`AckToken`] → [`PartDone`] → [`BatchDone`] →
//! [`ConfirmLsn`]. Every batch carries its [`WindowPermit`], so the bytes below
//! the reader are bounded by one number and a mailbox needs no bound of its own.
//!
//! `Debug` of a message prints counts and positions, never a payload.

mod batch_failure;
mod control;
mod delivery;
mod handler_record;
mod part_progress;
#[cfg(test)]
pub(crate) mod probe;
mod progress;
mod saving;
mod wal;
mod window;

pub use self::{
    batch_failure::{BatchFailure, HandlerError},
    delivery::{AckToken, Refused, TopicBatch},
    handler_record::Record,
    wal::BatchId,
    window::{ByteWindow, WindowPermit},
};
pub(crate) use self::{
    control::{
        ActorExited, ActorKind, ChainFailed, Drain, ExitGuard, Finish, HandedOn, LookAtPublication,
        PauseTopic, ReaderEnded, Shutdown, Stop, Streaming,
    },
    delivery::{LaneFailed, LaneLost, LaneOpened, OpenLane, PartDone},
    handler_record::Onward,
    part_progress::{PartProgress, Suspects},
    progress::{BatchDone, ConfirmLsn},
    saving::{Ask, BeginGeneration, Flush, Hold, Known},
    wal::{EventBatch, WalBatch},
};
