//! Messages between actors, one file per edge of the picture in the crate docs.
//!
//! Data flows down in batches: [`WalBatch`] → [`EventBatch`] → [`TopicBatch`].
//! Acknowledgements flow up: [`AckToken`] → [`PartDone`] → [`BatchDone`] →
//! [`ConfirmLsn`]. Every batch carries its [`WindowPermit`], so one number bounds the bytes
//! below the reader, and mailboxes need no limit of their own.
//!
//! `Debug` of a message prints counts and positions, never a payload.

mod acknowledgement;
mod batch_failure;
mod checkpointing;
mod control;
mod delivery;
mod event_records;
mod handler_record;
#[cfg(test)]
pub(crate) mod probe;
mod wal;
mod window;

pub(crate) use self::{
    acknowledgement::{BatchDone, ConfirmLsn},
    checkpointing::{BeginGeneration, Flush, GetSavedProgress, HoldSaves, SavedProgress},
    control::{
        ActorExited, ActorKind, ChainFailed, CheckPublication, CloseGate, DecodedProgress, Drain,
        ExitGuard, Finish, PauseTopic, ReaderEnded, Shutdown, Stop, Streaming, UntilReleased,
    },
    delivery::{LaneFailed, LaneLost, LaneOpened, OpenLane, PartDone},
    handler_record::HandlerOutput,
    wal::{BatchId, EventBatch, WalBatch},
};
pub use self::{
    batch_failure::{BatchFailure, HandlerError},
    delivery::{AckToken, TopicBatch},
    handler_record::Record,
    window::{ByteWindow, WindowPermit},
};
pub(crate) use crate::record::PartProgress;
pub use crate::record::Refused;
