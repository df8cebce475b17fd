//! Topics and partitions as the driver knows them.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{Identity, Sent, topic_name};
use crate::{
    error::Result,
    partition::PartitionQueue,
    record_batch::Stamp,
    settings::Settings,
    topic::{Outgoing, Refusal, Topic},
};

/// Idle time after which a broker may have forgotten the producer. By default it forgets one after
/// a day (`producer.id.expiration.ms`).
const LONG_REST: Duration = Duration::from_secs(60);

pub(super) struct TopicState {
    pub name: Arc<str>,
    /// None until its partitions are known.
    pub topic: Option<Topic>,
    pub partitions: Vec<Partition>,
    pub waiting: Vec<oneshot::Sender<Result<Topic>>>,
    pub closing: Closing,
    /// These wait until nothing is in flight any more.
    pub closers: Vec<oneshot::Sender<()>>,
    /// Partitions that have failed and not been acknowledged since.
    pub failing: usize,
    /// The brokers said last that they can't have it.
    pub is_missing: bool,
}

/// The end of a topic.
#[derive(Default)]
pub(super) enum Closing {
    #[default]
    No,
    /// Nothing is sent any more.
    Begun,
    /// Nothing is in flight any more; its place is free.
    Done,
}

pub(super) struct Partition {
    pub queue: PartitionQueue<Outgoing>,
    /// The producer that the queue's numbers belong to.
    identity: Option<Identity>,
    pub leader: Option<i32>,
    /// Failures in a row, and the pause after the last one.
    pub failures: u32,
    pub not_before: Option<Instant>,
    last_sent: Option<Instant>,
    /// It is among the [`Broker::active`](super::Broker::active) of its leader.
    pub is_listed: bool,
    pub last_refusal: Option<Refusal>,
}

impl TopicState {
    pub fn new(name: Arc<str>) -> Self {
        TopicState {
            name,
            topic: None,
            partitions: Vec::new(),
            waiting: Vec::new(),
            closing: Closing::No,
            closers: Vec::new(),
            failing: 0,
            is_missing: false,
        }
    }

    /// Somebody has it, or asks for it.
    pub fn is_wanted(&self) -> bool {
        !self.is_closed() && (self.topic.is_some() || !self.waiting.is_empty())
    }

    pub fn is_closed(&self) -> bool {
        !matches!(self.closing, Closing::No)
    }

    pub fn in_flight(&self) -> usize {
        self.partitions.iter().map(|partition| partition.queue.in_flight()).sum()
    }

    /// True if nothing is to be sent, or in flight, up to that transaction.
    pub fn is_at_rest(&self, transaction: u64) -> bool {
        let handle = self.topic.as_ref();
        let has_some = |place| handle.is_some_and(|handle| handle.0.has_some(place, transaction));
        let mut partitions = self.partitions.iter().enumerate();
        partitions.all(|(place, partition)| partition.queue.is_empty() && !has_some(place))
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

/// Things that all partitions of a request have in common.
pub(super) struct Terms<'a> {
    pub identity: Identity,
    /// [`Identity::serial`] that a partition needs at least which takes another producer.
    pub fresh_from: u64,
    pub settings: &'a Settings,
    pub now: Instant,
    /// Number of the open transaction; none counts as 0.
    pub transaction: u64,
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
            last_sent: None,
            is_listed: false,
            last_refusal: None,
        }
    }

    /// True if a broker may know sequence numbers of it.
    pub fn has_sent(&self) -> bool {
        self.identity.is_some()
    }

    fn clear(&mut self, is_transactional: bool) {
        self.queue = queue(is_transactional);
        (self.identity, self.failures, self.not_before) = (None, 0, None);
    }

    /// Adds the next batch to a request, if one may be sent now; true where there is nothing
    /// left to send later.
    pub fn next(
        &mut self,
        terms: &Terms<'_>,
        handle: Option<&Topic>,
        (topic, place): (usize, usize),
        request: &mut Request,
    ) -> bool {
        let Terms { identity, fresh_from, settings, now, transaction, is_transactional } = *terms;
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        // Outside of transactions a partition keeps its producer while the epochs last: what may
        // have been appended is recognised by its numbers alone.
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
            && let Some(collected) = handle.and_then(|handle| handle.0.take(place, transaction))
        {
            let batch = collected.batch.finish(settings.compression, settings.compression_level);
            self.queue.push(Outgoing { batch, receipts: collected.receipts });
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
            let data = PartitionProduceData::default()
                .with_index(place as i32)
                .with_records(Some(records));
            request.by_topic.entry(topic).or_default().push(data);
            request.sent.push(Sent { topic, partition: place, token: send.token });
        }
        // What is in flight is listed again with its answer.
        let has_some = || handle.is_some_and(|handle| handle.0.has_some(place, transaction));
        let waits = self.queue.waits() || has_some();
        !waits
    }
}

fn queue(is_transactional: bool) -> PartitionQueue<Outgoing> {
    match is_transactional {
        true => PartitionQueue::in_transactions(0),
        false => PartitionQueue::new(0),
    }
}

/// A request that is being put together.
#[derive(Default)]
pub(super) struct Request {
    by_topic: HashMap<usize, Vec<PartitionProduceData>>,
    pub sent: Vec<Sent>,
    pub bytes: usize,
    /// The epochs of the present one are used up on some partition, or lost.
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
