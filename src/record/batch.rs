//! A batch of records for a client, and the interface through which the client makes them.

use std::sync::Arc;

use super::{Answer, BorrowedRecord, Places, Record};
use crate::Result;

/// Records of one topic. Each is made when it is sent, so only its source waits in memory until
/// Kafka has acknowledged it.
pub(crate) trait Records: Send + Sync {
    /// The topic of the records.
    fn topic(&self) -> &Arc<str>;

    /// Number of records.
    fn len(&self) -> usize;

    /// Makes the record at `index`.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused) if it can't be made.
    fn record(&self, index: usize) -> Result<Record>;

    /// Makes the record at `index` for this use alone, with fewer copies if possible.
    ///
    /// # Errors
    /// As [`record`](Self::record); then it was not used.
    fn with_record(&self, index: usize, then: &mut dyn FnMut(BorrowedRecord<'_>)) -> Result<()> {
        then(self.record(index)?.borrowed());
        Ok(())
    }

    /// Names the record at `index` in errors.
    fn describe(&self, index: usize) -> String;

    /// The name of a header of the record at `index` whose content is not in the record's value.
    #[cfg(feature = "client-kafka")]
    fn own_header(&self, index: usize, record: &Record) -> Option<String>;
}

/// Records to send, and the callback that takes the answer for them.
pub(crate) struct RecordBatch {
    pub records: Arc<dyn Records>,
    /// Collects where the records were appended; none if nobody wants to know.
    pub places: Option<Arc<Places>>,
    /// Called once. If it is dropped, the batch counts as failed.
    pub answer: Box<dyn FnOnce(Answer) + Send>,
}
