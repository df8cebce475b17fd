//! The driver's state of topics and partitions, and the assembly of Produce requests.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{Identity, Sent, growth::Growth, topic_name, transaction::Ending};
use crate::{
    error::Result,
    partition::PartitionQueue,
    receipt::Refusal,
    record_batch::Stamp,
    settings::Settings,
    topic::{Outgoing, Topic},
};

/// Idle time after which a broker may have forgotten the producer. `producer.id.expiration.ms` is a
/// day by default, but may be far less, and to send one batch alone after a rest costs nothing.
const LONG_REST: Duration = Duration::from_secs(1);

pub(super) struct TopicState {
    pub name: Arc<str>,
    /// The handle; none until the partitions are known.
    pub topic: Option<Topic>,
    pub partitions: Vec<Partition>,
    /// Added partitions that are not used yet.
    pub growth: Option<Growth>,
    /// Number of partitions that the observer was told, if some of them are ignored.
    pub ignored: usize,
    pub waiting: Vec<oneshot::Sender<Result<Topic>>>,
    pub closing: Closing,
    /// Callers that wait until nothing is in flight.
    pub closers: Vec<oneshot::Sender<()>>,
    /// Number of partitions that have failed and had no acknowledgement since.
    pub failing: usize,
    /// True if the last metadata response had an error for the topic.
    pub is_missing: bool,
}

/// Progress of closing a topic.
#[derive(Default)]
pub(super) enum Closing {
    #[default]
    No,
    /// A refused record has stopped a partition: the topic accepts no more records, and sends
    /// those that stand before such a record.
    Stopped,
    /// The topic is closed, and sends nothing more.
    Begun,
    /// Nothing is in flight; the topic's index can be reused.
    Done,
}

pub(super) struct Partition {
    pub queue: PartitionQueue<Outgoing>,
    /// The identity that the queue's sequence numbers belong to.
    identity: Option<Identity>,
    pub leader: Option<i32>,
    /// Consecutive failures; `not_before` is the end of the pause after the last one.
    pub failures: u32,
    pub not_before: Option<Instant>,
    pub ending: Ending,
    last_sent: Option<Instant>,
    /// True if the partition is in the [`Broker::active`](super::Broker::active) queue of its
    /// leader.
    pub is_enqueued: bool,
    pub last_refusal: Option<Refusal>,
}

impl TopicState {
    pub fn new(name: Arc<str>) -> Self {
        TopicState {
            name,
            topic: None,
            partitions: Vec::new(),
            growth: None,
            ignored: 0,
            waiting: Vec::new(),
            closing: Closing::No,
            closers: Vec::new(),
            failing: 0,
            is_missing: false,
        }
    }

    /// Returns true if the topic is open, or a caller waits to open it.
    pub fn is_wanted(&self) -> bool {
        !self.is_closed() && (self.topic.is_some() || !self.waiting.is_empty())
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.closing, Closing::Begun | Closing::Done)
    }

    pub fn in_flight(&self) -> usize {
        self.partitions.iter().map(|partition| partition.queue.in_flight()).sum()
    }

    /// Returns the number of the last transaction, or round of records, that may be sent now.
    pub fn last_round(&self, open_transaction: u64) -> u64 {
        self.growth.as_ref().map_or(open_transaction, |growth| growth.last_round(open_transaction))
    }

    /// Returns true if nothing is queued or in flight for this transaction or an earlier one.
    pub fn is_at_rest(&self, transaction: u64) -> bool {
        let handle = self.topic.as_ref();
        let has_records =
            |place| handle.is_some_and(|handle| handle.0.has_records(place, transaction));
        let mut partitions = self.partitions.iter().enumerate();
        partitions.all(|(place, partition)| partition.queue.is_empty() && !has_records(place))
    }

    /// Stops the topic at a refused record: it accepts no more records, and closes once all others
    /// have a result.
    pub fn stop(&mut self) {
        if matches!(self.closing, Closing::No) {
            self.closing = Closing::Stopped;
        }
        self.topic.iter().for_each(|topic| topic.0.close());
    }

    /// Drops all records; nothing may be in flight.
    pub fn clear(&mut self, is_transactional: bool) {
        for partition in &mut self.partitions {
            partition.clear(is_transactional);
        }
        if let Some(topic) = &self.topic {
            topic.0.clear();
        }
    }
}

/// Values common to all partitions of a request.
pub(super) struct SendContext<'a> {
    pub identity: Identity,
    /// Minimum [`Identity::serial`] for a partition that takes a new identity.
    pub fresh_from: u64,
    pub settings: &'a Settings,
    pub now: Instant,
    /// Number of the last transaction, or round of records, that may be sent.
    pub last_round: u64,
    pub is_transactional: bool,
}

impl Partition {
    pub fn new(is_transactional: bool) -> Self {
        Partition {
            queue: queue(is_transactional),
            identity: None,
            leader: None,
            failures: 0,
            not_before: None,
            ending: Ending::default(),
            last_sent: None,
            is_enqueued: false,
            last_refusal: None,
        }
    }

    /// Returns true if a broker may have sequence numbers of this partition.
    pub fn has_sent(&self) -> bool {
        self.identity.is_some()
    }

    fn clear(&mut self, is_transactional: bool) {
        self.queue = queue(is_transactional);
        (self.identity, self.failures, self.not_before) = (None, 0, None);
    }

    /// Adds the next batch to a request, if one may be sent now. Returns true if nothing is left
    /// to send later.
    pub fn next(
        &mut self,
        context: &SendContext<'_>,
        handle: Option<&Topic>,
        (topic, place): (usize, usize),
        request: &mut Request,
    ) -> bool {
        let SendContext { identity, fresh_from, settings, now, last_round, is_transactional } =
            *context;
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        // Outside of transactions, a partition keeps its producer id until its epochs are used up:
        // brokers recognise duplicates only by id and sequence number.
        let is_old = self.identity.is_none_or(|own| {
            own.serial != identity.serial && (is_transactional || self.queue.needs_producer_id())
        });
        if is_old && self.queue.in_flight() == 0 {
            if identity.serial < fresh_from {
                return false;
            }
            self.identity = Some(identity);
            self.queue.restart(identity.epoch);
        }
        if self.queue.needs_producer_id() {
            request.needs_producer_id = true;
            return false;
        }
        if self.last_sent.is_some_and(|last| now - last > LONG_REST) {
            self.queue.rested();
        }
        if self.queue.has_room()
            && let Some(pending) = handle.and_then(|handle| handle.0.take(place, last_round))
        {
            let batch = pending.batch.finish(settings.compression, settings.compression_level);
            self.queue.push(Outgoing::new(batch, pending.receipts));
        }
        if let Some(own) = self.identity
            && let Some(send) = self.queue.next_send()
        {
            self.last_sent = Some(now);
            let stamp = Stamp {
                producer_id: own.producer_id,
                epoch: send.epoch,
                base_sequence: send.base_sequence,
                is_transactional,
            };
            let records = send.batch.batch.stamped(stamp);
            request.bytes += records.len();
            request.records += send.batch.batch.count() as usize;
            let data = PartitionProduceData::default()
                .with_index(place as i32)
                .with_records(Some(records));
            request.by_topic.entry(topic).or_default().push(data);
            request.sent.push(Sent { topic, partition: place, token: send.token });
        }
        // A partition with batches in flight is enqueued again when their response arrives.
        let has_records = || handle.is_some_and(|handle| handle.0.has_records(place, last_round));
        let waits = self.queue.waits() || has_records();
        !waits
    }
}

fn queue(is_transactional: bool) -> PartitionQueue<Outgoing> {
    match is_transactional {
        true => PartitionQueue::in_transactions(0),
        false => PartitionQueue::new(0),
    }
}

/// A Produce request that is being assembled.
#[derive(Default)]
pub(super) struct Request {
    by_topic: HashMap<usize, Vec<PartitionProduceData>>,
    pub sent: Vec<Sent>,
    pub bytes: usize,
    pub records: usize,
    /// True if a partition needs a new producer id or epoch.
    pub needs_producer_id: bool,
}

impl Request {
    pub fn finish(self, topics: &[TopicState]) -> (Vec<TopicProduceData>, Vec<Sent>) {
        let data = self.by_topic.into_iter().map(|(topic, partitions)| {
            TopicProduceData::default()
                .with_name(topic_name(&topics[topic].name))
                .with_partition_data(partitions)
        });
        (data.collect(), self.sent)
    }
}
