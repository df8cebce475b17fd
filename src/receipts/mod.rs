//! Receipts: where each event went, kept in a topic or a table.
//!
//! # Promise
//! A receipt is written as soon as the relay knows an event's outcome, and **before** the event
//! counts as done: no position is saved or confirmed behind an event without its receipt. After a
//! crash an event may be sent again, and then has a receipt for each record. With exactly-once,
//! receipts are in the Kafka transaction of their events, so the table is refused.
//!
//! While receipts can't be written, the relay waits. It costs nothing where receipts are off.
//!
//! | file | idea |
//! | --- | --- |
//! | `receipt` | a receipt, as people read it |
//! | `ended` | the events of a part whose outcome is known |
//! | `sender` | the queue of the actor that writes them |
//! | `topic`, `wire` | the store `topic`: records with the receipts of many events |
//! | `table` | the store `table`: a row for each event and topic |
//! | `search` | finds the receipts of one event |

mod ended;
mod receipt;
mod search;
mod sender;
mod table;
mod topic;
mod wire;

pub(crate) use self::{
    ended::EndedPart,
    sender::{ReceiptSender, ReceiptTask, receipt_queue},
    table::{CREATE_TABLE, ReceiptTable, TABLE},
    topic::ReceiptTopic,
};
pub use self::{
    receipt::{Fate, Receipt, RecordPlace},
    search::ReceiptReader,
};

/// Lane of events that are not sent, which only get receipts. No topic can have this name.
pub(crate) const FILTERED_LANE: &str = "receipts:filtered";
