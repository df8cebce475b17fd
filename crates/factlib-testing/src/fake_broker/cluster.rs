//! The cluster that all its brokers share: brokers, topics, transactions and the script of faults.

use std::{
    collections::{BTreeMap, HashMap},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Api, Code, Options,
    batch::Batch,
    faults::Fault,
    topics::{Partition, Topic},
    transactions::{Coordinator, Ended},
};

#[derive(Debug)]
pub(super) struct Cluster {
    pub options: Options,
    pub brokers: BTreeMap<i32, Broker>,
    pub topics: BTreeMap<String, Topic>,
    pub coordinator: Coordinator,
    pub faults: Vec<Fault>,
    pub last_fault: u64,
    pub requests: HashMap<Api, usize>,
    last_run: u64,
}

/// A broker, up or down.
#[derive(Debug)]
pub(super) struct Broker {
    pub port: u16,
    /// Number of the present run; none while the broker is down.
    pub run: Option<u64>,
    /// True while metadata names the broker.
    pub is_listed: bool,
}

impl Cluster {
    pub fn new(options: Options) -> Self {
        Cluster {
            options,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            coordinator: Coordinator::default(),
            faults: Vec::new(),
            last_fault: 0,
            requests: HashMap::new(),
            last_run: 0,
        }
    }

    /// Marks a broker as up and returns the number of its run.
    pub fn broker_up(&mut self, id: i32, port: u16) -> u64 {
        self.last_run += 1;
        self.brokers.insert(id, Broker { port, run: Some(self.last_run), is_listed: true });
        self.last_run
    }

    /// Stops a broker; `is_listed` says whether metadata goes on to name it.
    pub fn broker_down(&mut self, id: i32, is_listed: bool) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            (broker.run, broker.is_listed) = (None, is_listed);
        }
    }

    /// Returns true if the broker is still in this run.
    pub fn is_running(&self, id: i32, run: u64) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.run == Some(run))
    }

    pub fn is_up(&self, id: i32) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.run.is_some())
    }

    pub fn is_listed(&self, id: i32) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.is_listed)
    }

    /// Brokers that metadata names, with their ports, by id. The first is controller and
    /// coordinator.
    pub fn listed(&self) -> impl Iterator<Item = (i32, u16)> {
        let listed = self.brokers.iter().filter(|(_, broker)| broker.is_listed);
        listed.map(|(id, broker)| (*id, broker.port))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// Returns the code and message with which a broker refuses.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: Option<i32>,
        replicas: Option<i16>,
        settings: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), (Code, String)> {
        let partitions = partitions.unwrap_or(self.options.default_partitions);
        let replicas = usize::try_from(replicas.unwrap_or(1)).unwrap_or_default();
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let brokers: Vec<i32> = self.brokers.keys().copied().collect();
        if name.is_empty() || name.len() > 249 || !name.chars().all(is_legal) {
            return Err((Code::InvalidTopicException, format!("topic name {name} is illegal")));
        }
        if self.topics.contains_key(name) {
            return Err((Code::TopicAlreadyExists, format!("topic {name} exists already")));
        }
        if partitions < 1 {
            return Err((Code::InvalidPartitions, format!("{partitions} partitions")));
        }
        if replicas < 1 || replicas > brokers.len() {
            let what = format!("{replicas} replicas on {} brokers", brokers.len());
            return Err((Code::InvalidReplicationFactor, what));
        }
        let topic = Topic::new(partitions as usize, replicas, settings, &brokers);
        if !validate_only {
            self.topics.insert(name.to_owned(), topic);
        }
        Ok(())
    }

    /// Returns a partition that this broker leads.
    pub fn led_by(
        &mut self,
        broker: i32,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Partition, Code> {
        let found = self.partition(topic, partition).ok_or(Code::UnknownTopicOrPartition)?;
        match found.leader == broker {
            true => Ok(found),
            false => Err(Code::NotLeaderOrFollower),
        }
    }

    pub fn partition(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        let topic = self.topics.get_mut(topic)?;
        topic.partitions.get_mut(usize::try_from(partition).ok()?)
    }

    /// Writes the markers of a transaction that has ended.
    pub fn write_markers(&mut self, ended: Option<Ended>) {
        let Some(Ended { marker: (producer_id, epoch), is_committed, partitions }) = ended else {
            return;
        };
        for (topic, partition) in partitions {
            let marker = Batch::marker(producer_id, epoch, is_committed, now_ms());
            if let Some(partition) = self.partition(&topic, partition) {
                let leader_epoch = partition.leader_epoch;
                partition.log.finish(marker, is_committed, leader_epoch);
            }
        }
    }
}

/// Returns the present Unix time in milliseconds.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
