//! The topic of receipts: creates it, and makes batches of its records.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use slog::{Logger, info};

use super::{EndedPart, wire};
use crate::{
    Error, ErrorKind, Result,
    config::Config,
    faults::Faults,
    kafka::{
        admin::TopicAdmin,
        errors::as_relay_error,
        pipelined::{PipelinedClient, PipelinedTopic},
    },
    record::{Record, Records},
};

/// The topic settings by which Kafka removes old receipts.
const CLEANUP: (&str, &str) = ("cleanup.policy", "delete");
const RETENTION: &str = "retention.ms";

/// Maximum size of a record with several receipts, if the topic takes it: some 3,000 with UUIDs.
const RECORD_BYTES: usize = 160 << 10;
/// Size to which records that the topic refuses are made smaller.
const MIN_RECORD_BYTES: usize = 512;

/// The topic of receipts of one relay.
pub(crate) struct ReceiptTopic {
    config: Arc<Config>,
    name: Arc<str>,
    /// None with exactly-once: each session has a client of its own.
    client: Option<Arc<PipelinedClient>>,
    /// Maximum size of a record with several receipts.
    record_bytes: AtomicUsize,
}

impl ReceiptTopic {
    pub fn new(config: &Arc<Config>, client: Option<Arc<PipelinedClient>>) -> Self {
        let name = config.receipt_topic().into();
        let record_bytes = AtomicUsize::new(RECORD_BYTES);
        ReceiptTopic { config: Arc::clone(config), name, client, record_bytes }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Creates the topic if it is missing and topics may be created. Returns its limit of a
    /// batch's bytes, if that is known.
    ///
    /// # Errors
    /// The topic can't be had; a refusal stops the relay, which may not go on without receipts.
    pub async fn create(&self, log: &Logger) -> Result<Option<usize>> {
        let mut kafka = self.config.kafka.settings();
        let retention = self.config.receipts.retention.as_millis().to_string();
        kafka.topics.config.insert(CLEANUP.0.into(), CLEANUP.1.into());
        kafka.topics.config.insert(RETENTION.into(), retention);
        let prepared = TopicAdmin::new(&kafka)?.prepare(&self.name).await;
        let prepared = prepared.map_err(as_relay_error)?;
        if prepared.created {
            info!(log, "topic for receipts created"; "topic" => &*self.name);
        }
        if let Some(bytes) = prepared.batch_bytes {
            self.record_bytes.fetch_min(bytes, Relaxed);
        }
        Ok(prepared.batch_bytes)
    }

    /// Opens the topic outside of transactions. Call [`create`](Self::create) before.
    ///
    /// # Errors
    /// The topic can't be had.
    pub async fn open(&self, batch_bytes: Option<usize>) -> Result<PipelinedTopic> {
        match &self.client {
            Some(client) => client.open(&self.name, batch_bytes, Faults::default()).await,
            None => {
                let what = "receipts belong into the transactions of their events";
                Err(Error::new(ErrorKind::ActorFailed, what))
            }
        }
    }

    /// Has records made smaller if that is what they were refused for: not everyone may read the
    /// topic's limit, and it may be lowered.
    pub fn refused(&self, error: &Error) {
        if error.kind() == ErrorKind::RecordTooLarge {
            let smaller = |bytes: usize| Some((bytes / 2).max(MIN_RECORD_BYTES.min(bytes)));
            // It never fails, because `smaller` gives a value.
            let _ = self.record_bytes.fetch_update(Relaxed, Relaxed, smaller);
        }
    }

    /// Makes the records with the receipts of a part.
    pub fn records(&self, slot: &str, part: &EndedPart) -> Arc<dyn Records> {
        let (topic, key) = (Arc::clone(&self.name), Bytes::copy_from_slice(slot.as_bytes()));
        let max_bytes = self.record_bytes.load(Relaxed);
        Arc::new(ReceiptRecords { topic, key, values: wire::encode(slot, part, max_bytes) })
    }
}

/// Records of the topic.
struct ReceiptRecords {
    topic: Arc<str>,
    key: Bytes,
    values: Vec<Bytes>,
}

impl Records for ReceiptRecords {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn record(&self, index: usize) -> Result<Record> {
        let Some(value) = self.values.get(index).cloned() else {
            return Err(Error::new(ErrorKind::ActorFailed, "there is no such receipt"));
        };
        Ok(Record { key: self.key.clone(), value: Some(value), ..Record::default() })
    }

    fn describe(&self, _: usize) -> String {
        "a record of receipts".to_owned()
    }

    #[cfg(feature = "client-kafka")]
    fn own_header(&self, _: usize, _: &Record) -> Option<String> {
        None
    }
}
