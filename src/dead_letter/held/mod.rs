//! Lines of held events: with `dead_letter.policy = "hold-aggregate"`, an event that can't be delivered
//! and all later events of its aggregate, in order, until they are redriven.
//!
//! | file | idea |
//! | --- | --- |
//! | `events` | the relay's side: loads the aggregates that are held, and writes events behind them |
//! | `lines` | the operator's side: lists lines, and takes events off their front |
//! | `redriven` | takes redriven events off their line, and notes where they went |
//! | `row` | one held event as the table has it, and as a letter |
//! | `schema` | creates the table |
//!
//! # A line is its rows
//! An aggregate is held exactly while the table `factlib.held_events` has a row of it. There is no
//! other marker: the event that was refused is the first row of its line, with its error, so one
//! statement parks the event and holds its aggregate. It is not in the dead-letter topic as well.
//! (Only what has no aggregate, such as bytes that are no event, goes there.)
//!
//! Rows are in the order of the stream: by the position of the commit, then by the number in the
//! transaction (the rows of a COPY share their LSN). Their key is that position, and the topic. So
//! a relay that reads events again after a crash writes nothing twice, and rows may be written in
//! any order.
//!
//! # Order
//! Order is kept for each aggregate in each topic, as everywhere in the relay:
//!
//! - The aggregate is held for all its topics. An event that goes to several topics has a row for each
//!   topic that it was not yet sent to. What was in flight to *another* topic when the event was
//!   refused is not called back.
//! - Nothing behind a refused record of its partition is accepted: the client stops the partition
//!   there ([`factlib_kafka::Receipt::stops`]), and a batch behind a refused one is refused for its
//!   sequence number. The lane is opened again when everything that was sent has ended. Then the
//!   router goes through the events that are left, in the order of the lane, and diverts those of held
//!   aggregates into the table, the refused one with them.
//! - With exactly-once, nothing stops: if a later event of the aggregate was sent in the same
//!   transaction, the transaction is aborted, and its events are read again. The refused events are
//!   remembered meanwhile and go straight into the table. Rows are written before the transaction is
//!   committed. If the relay ends between the two, the rows are there already when it reads the events
//!   again; `redrive` therefore leaves rows alone that are beyond the committed position.
//!
//! # Redriving while the relay runs
//! The redriver sends the first rows of a line, waits for the acknowledgement, deletes the rows,
//! and so on; the statement that deletes them notes in `factlib.redriven` where they went. Nothing
//! is sent behind a refused one. The aggregate is released by deleting its last row. The relay's
//! set of held aggregates in memory is then wrong, and that is harmless: it still diverts the next
//! event, but the statement that writes it does so only if the line still has a row, which it
//! locks. An event that finds no line is given back and sent. It comes after the line, because the
//! last row was deleted after its acknowledgement. The router forgets the aggregate when none of
//! its events is on the way to the table any more, so that nothing overtakes an event that is given
//! back.
//!
//! # Memory
//! The router keeps a 64-bit hash of each held aggregate, not its rows: about 2.3 MB for 100,000 (a
//! test measures it). If two aggregates had the same hash, the events of the second would wait for
//! those of the first to be redriven.

mod events;
mod lines;
mod redriven;
mod row;
mod schema;

pub use self::lines::{HeldLine, HeldLines};
pub(crate) use self::{
    events::{Held, HeldEvents, HeldSummary, RefusedBefore, aggregate_hash},
    schema::{CREATE_HELD_EVENTS, HELD_TABLE},
};
