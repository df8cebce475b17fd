//! Upkeep of outbox tables: their publication is watched, their delivered rows are removed.

mod publication_watch;
mod row_sweeper;

pub(crate) use self::{publication_watch::PublicationWatch, row_sweeper::RowSweeper};
