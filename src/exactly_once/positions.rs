//! Stores positions in Kafka: a compacted topic with one key per cluster and slot.
//!
//! With exactly-once, each transaction ends with a record in this topic. With at-least-once the
//! topic is only read, because the slot may have been relayed with exactly-once before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use slog::{Logger, debug, info, warn};
use tokio::time::{Instant, sleep};

use super::position_reader::{Newest, PARTITION, PositionReader, PositionReaders};
use crate::{
    Error, ErrorKind, Result,
    checkpoint::Position,
    config::Config,
    kafka::{
        admin::TopicAdmin,
        errors::as_relay_error,
        pipelined::{ClientThread, PipelinedClient},
        unobserved,
    },
    record::Record,
};

/// The topic setting that makes Kafka keep the newest position of each slot, and its value.
pub(crate) const CLEANUP: &str = "cleanup.policy";
pub(crate) const COMPACT: &str = "compact";
/// Pause between two looks at a transaction that is open.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The topic of positions, for one slot.
pub(crate) struct Positions {
    config: Arc<Config>,
    topic: String,
    reader: Arc<PositionReader>,
    log: Logger,
}

/// The command that makes Kafka keep the newest position of each slot.
pub(crate) fn compact_command(config: &Config) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} \
         --add-config {CLEANUP}={COMPACT}",
        config.kafka.brokers.join(","),
        config.position_topic()
    )
}

impl Positions {
    /// Creates a handle on the topic, with a reader that other pipelines may share.
    pub fn new(config: &Arc<Config>, readers: &PositionReaders, log: Logger) -> Self {
        let topic = config.position_topic();
        let reader = readers.of(config.kafka.settings(), &topic);
        Positions { config: Arc::clone(config), topic, reader, log }
    }

    /// Names the topic in errors.
    pub fn describe(&self) -> String {
        format!("topic {}", self.topic)
    }

    /// Makes the record of a position.
    pub fn record(&self, position: &Position) -> Result<Record> {
        let value =
            serde_json::to_vec(position).map_err(|error| self.invalid().caused_by(error))?;
        let value = Some(value.into());
        Ok(Record { value, ..self.tombstone(position.checkpoint.system_id) })
    }

    /// Makes the record that deletes the slot's position.
    fn tombstone(&self, cluster: u64) -> Record {
        Record { key: self.key(cluster).into(), partition: Some(PARTITION), ..Record::default() }
    }

    /// Names a position in errors.
    pub fn describe_record(&self) -> String {
        format!("the position of slot {}", self.config.postgres.slot)
    }

    /// Deletes the slot's position from the topic.
    pub async fn forget(&self, cluster: u64) -> Result<()> {
        let settings = self.config.kafka.settings();
        let client =
            PipelinedClient::start(&settings, ClientThread::Own, unobserved(), self.log.clone())?;
        let topic = Arc::from(self.topic.as_str());
        client.send_single(&topic, self.tombstone(cluster), self.describe_record()).await
    }

    fn key(&self, cluster: u64) -> String {
        format!("{cluster}/{}", self.config.postgres.slot)
    }

    /// Creates the topic if it is missing and topics may be created, and makes sure that Kafka
    /// keeps the newest position of each slot in it.
    ///
    /// # Errors
    /// A refusal stops the relay: nothing can be relayed without the topic.
    pub async fn create(&self) -> Result<()> {
        let mut kafka = self.config.kafka.settings();
        kafka.topics.partitions = Some(1);
        kafka.topics.config.insert(CLEANUP.into(), COMPACT.into());
        let admin = TopicAdmin::new(&kafka)?;
        let prepared = admin.prepare(&self.topic).await.map_err(as_relay_error)?;
        if prepared.created {
            info!(self.log, "topic for positions created"; "topic" => &self.topic);
        }
        self.ensure_compacted(&admin).await
    }

    /// Makes sure that the topic is only compacted: with any other `cleanup.policy` Kafka deletes
    /// old positions, and events up to them would be sent again.
    async fn ensure_compacted(&self, admin: &TopicAdmin) -> Result<()> {
        let policy = match admin.setting(&self.topic, CLEANUP).await {
            Ok(policy) => policy.unwrap_or_default(),
            Err(error) => {
                warn!(self.log, "topic for positions can't be checked"; "topic" => &self.topic,
                    "error" => %error, "remedy" => format!("see to it that its {CLEANUP} is \
                    {COMPACT}, or give the user the ACL DescribeConfigs on it"));
                return Ok(());
            }
        };
        if policy == COMPACT {
            return Ok(());
        }
        let altered = match self.config.kafka.topics.create {
            true => admin.alter(&self.topic, CLEANUP, COMPACT).await,
            false => Err(Error::new(ErrorKind::KafkaRefused, "kafka.topics.create = false")),
        };
        match altered {
            Ok(()) => {
                warn!(self.log, "topic for positions is compacted from now on";
                    "topic" => &self.topic, "before" => policy);
                Ok(())
            }
            Err(error) => Err(self.not_compacted(&policy).caused_by(error)),
        }
    }

    fn not_compacted(&self, policy: &str) -> Error {
        let what = format!(
            "{} has {CLEANUP}={policy}: Kafka would delete positions, and what was sent up to \
             them would be sent again",
            self.describe()
        );
        Error::new(ErrorKind::KafkaRefused, what).remedy(compact_command(&self.config))
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// True if the topic exists.
    pub async fn exist(&self) -> Result<bool> {
        let limit = self.config.postgres.connect_timeout;
        let cluster = TopicAdmin::new(&self.config.kafka.settings())?.cluster(limit).await?;
        Ok(cluster.topics.contains_key(&self.topic))
    }

    /// Reads the newest committed position of this slot; none if there never was one.
    ///
    /// Waits for the end of a transaction that is open with a position of this slot.
    pub async fn read(&self, cluster: u64) -> Result<Option<Position>> {
        let key = self.key(cluster);
        let (began, limit) = (Instant::now(), self.config.delivery.transaction_timeout);
        let newest = loop {
            let why = match self.reader.newest(key.as_bytes(), &self.log).await? {
                Newest::Is(newest) => break newest,
                Newest::Undecided(why) => why,
            };
            if began.elapsed() > limit {
                let what = format!("cannot tell the position in {}", self.describe());
                return Err(Error::new(ErrorKind::KafkaUnavailable, what).caused_by(why));
            }
            debug!(self.log, "waiting for the position"; "topic" => &self.topic, "because" => why);
            sleep(LOOK_INTERVAL).await;
        };
        let parse = |value: Bytes| {
            serde_json::from_slice(&value).map_err(|error| self.invalid().caused_by(error))
        };
        newest.map(parse).transpose()
    }

    fn invalid(&self) -> Error {
        let what = format!(
            "the position of slot {} in {} is not readable",
            self.config.postgres.slot,
            self.describe()
        );
        Error::new(ErrorKind::CheckpointInvalid, what)
            .remedy("does another program write to this topic?")
    }
}
