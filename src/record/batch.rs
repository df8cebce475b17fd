//! Records on their way to a client.

use std::sync::Arc;

use super::{Answer, Record, Suspects};
use crate::{Lsn, Result};

/// Records of one topic, each made when it is sent: until then, and until it is acknowledged, what
/// it is made of is all that waits.
pub(crate) trait Records: Send + Sync {
    /// The topic that they go to.
    fn topic(&self) -> &Arc<str>;

    /// Number of records.
    fn len(&self) -> usize;

    /// Makes the record at `index`.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`](crate::ErrorKind::RecordRefused): why there can be none.
    fn record(&self, index: usize) -> Result<Record>;

    /// Tells the record at `index` from all others; the same when it is made again.
    fn id(&self, index: usize) -> RecordId;

    /// Names the record at `index` in errors.
    fn describe(&self, index: usize) -> String;

    /// True where headers may be larger than those that every record has.
    fn counts_headers(&self) -> bool;

    /// The name of a header of this record, made at `index`, that says more than its value does.
    #[cfg(feature = "client-kafka")]
    fn own_header(&self, index: usize, record: &Record) -> Option<String>;
}

/// Identity of a record: one event may become several records, and a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecordId {
    pub lsn: Lsn,
    /// Of all that makes the record what it is.
    pub hash: u64,
}

/// Records to send, and the duty to answer for them.
pub(crate) struct RecordBatch {
    pub records: Arc<dyn Records>,
    /// Those that have to be sent alone.
    pub suspects: Suspects,
    /// Called once. Dropped, the batch counts as failed.
    pub answer: Box<dyn FnOnce(Answer) + Send>,
}
