//! Batches of one record taken from others, and of a record that is made elsewhere.

use std::sync::Arc;

use crate::{
    Error, ErrorKind, Lsn, Result,
    record::{Record, RecordId, Records},
};

/// One of several records.
pub(super) struct OneRecord {
    pub records: Arc<dyn Records>,
    pub index: usize,
}

impl Records for OneRecord {
    fn topic(&self) -> &Arc<str> {
        self.records.topic()
    }

    fn len(&self) -> usize {
        1
    }

    fn record(&self, _: usize) -> Result<Record> {
        self.records.record(self.index)
    }

    fn id(&self, _: usize) -> RecordId {
        self.records.id(self.index)
    }

    fn describe(&self, _: usize) -> String {
        self.records.describe(self.index)
    }

    fn counts_headers(&self) -> bool {
        self.records.counts_headers()
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, _: usize, record: &Record) -> Option<String> {
        self.records.own_header(self.index, record)
    }
}

/// Stands for records of a topic that are made elsewhere.
pub(super) struct NoRecords(pub Arc<str>);

impl Records for NoRecords {
    fn topic(&self) -> &Arc<str> {
        &self.0
    }

    fn len(&self) -> usize {
        0
    }

    fn record(&self, _: usize) -> Result<Record> {
        Err(Error::new(ErrorKind::ActorFailed, "there is no such record"))
    }

    fn id(&self, _: usize) -> RecordId {
        RecordId { lsn: Lsn::ZERO, hash: 0 }
    }

    fn describe(&self, _: usize) -> String {
        String::new()
    }

    fn counts_headers(&self) -> bool {
        false
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, _: usize, _: &Record) -> Option<String> {
        None
    }
}
