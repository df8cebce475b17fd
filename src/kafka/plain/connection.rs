//! A connection of the crate `kafka`: sends runs of records and converts the crate's errors.
//!
//! The crate does not match answers to requests: after a failed request, the next answer may belong
//! to that one. So a connection is not used again after any failure.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use kafka::{
    client::KafkaClient,
    error::{Error as ClientError, KafkaCode as Code},
    producer::{Compression, Producer, Record, RequiredAcks},
};

use super::versions;
use crate::{
    Error, ErrorKind, Result,
    kafka::{Compression as Wanted, KafkaSettings},
};

/// Time for which a broker waits for the other replicas before it reports a failure.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);

/// Of the first question to a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum age of a topic's metadata.
const METADATA_AGE: Duration = Duration::from_secs(10);

/// A run of records for a partition: key, and value or a tombstone.
pub(super) struct Run<'a> {
    pub partition: i32,
    pub records: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// Connections to the brokers that lead a topic's partitions.
pub(crate) struct Connection {
    producer: Producer,
    topic: String,
    informed: Instant,
}

impl Connection {
    /// Connects, and asks for the topic. `attempt` varies which broker is asked first.
    pub fn open(settings: &KafkaSettings, topic: &str, attempt: usize) -> Result<Self> {
        let mut brokers = settings.brokers.clone();
        let first = attempt % brokers.len().max(1);
        brokers.rotate_left(first);
        versions::check_now(&brokers, CONNECT_TIMEOUT)?;
        let mut client = KafkaClient::new(brokers);
        client.set_client_id(settings.client_id.clone());
        let producer = Producer::from_client(client)
            .with_compression(compression(settings.compression))
            .with_required_acks(RequiredAcks::All)
            .with_ack_timeout(ACK_TIMEOUT)
            .create()
            .map_err(|error| failed("cannot create the Kafka client", &error))?;
        let topic = topic.to_owned();
        let mut connection = Connection { producer, topic, informed: Instant::now() };
        // Before 4.0, a broker that is asked for a topic by name creates it, if it does so at all;
        // asked for all of them, it does not.
        guarded(|| connection.producer.client_mut().load_metadata_all())?;
        connection.known()?;
        Ok(connection)
    }

    /// Number of the topic's partitions, at least one.
    pub fn partitions(&mut self) -> Result<i32> {
        if self.informed.elapsed() > METADATA_AGE {
            self.inform()?;
        }
        self.known()
    }

    fn known(&mut self) -> Result<i32> {
        let topics = self.producer.client().topics();
        let count = topics.partitions(&self.topic).map_or(0, |partitions| partitions.len());
        match i32::try_from(count) {
            Ok(count @ 1..) => Ok(count),
            _ => {
                let what = format!("topic {} does not exist, or may not be seen", self.topic);
                Err(Error::new(ErrorKind::TopicUnavailable, what).remedy("create the topic"))
            }
        }
    }

    /// Partitions by who leads them: none where nobody does now.
    pub(super) fn leaders(&self, of: &[i32]) -> BTreeMap<Option<i32>, Vec<i32>> {
        let topics = self.producer.client().topics();
        let all = topics.partitions(&self.topic);
        let mut leaders = BTreeMap::<_, Vec<_>>::new();
        for partition in of {
            let known = all.as_ref().and_then(|all| all.partition(*partition));
            let leader = known.and_then(|partition| partition.leader()).map(|broker| broker.id());
            leaders.entry(leader).or_default().push(*partition);
        }
        leaders
    }

    /// Sends runs that one broker leads, and gives what it says to each.
    pub(super) fn produce(&mut self, runs: &[Run<'_>]) -> Result<BTreeMap<i32, Option<Code>>> {
        let records = runs.iter().flat_map(|run| {
            let with = |(key, value): &(_, Option<_>)| Record {
                key: *key,
                // To the crate, empty is none.
                value: value.unwrap_or_default(),
                topic: &self.topic,
                partition: run.partition,
            };
            run.records.iter().map(with)
        });
        let records: Vec<Record<'_, &[u8], &[u8]>> = records.collect();
        let producer = &mut self.producer;
        let confirms = guarded(|| producer.send_all(&records))?;
        let of_partitions = confirms.into_iter().flat_map(|confirm| confirm.partition_confirms);
        Ok(of_partitions.map(|confirm| (confirm.partition, confirm.offset.err())).collect())
    }

    fn inform(&mut self) -> Result<()> {
        let (client, topic) = (self.producer.client_mut(), self.topic.as_str());
        guarded(|| client.load_metadata(&[topic]))?;
        self.informed = Instant::now();
        Ok(())
    }
}

/// The crate panics at some answers that it can't read.
fn guarded<T>(ask: impl FnOnce() -> kafka::Result<T>) -> Result<T> {
    const WHAT: &str = "a question to Kafka failed";
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(WHAT, &error)),
        Err(_) => Err(Error::new(ErrorKind::KafkaUnavailable, WHAT)
            .caused_by("the client panicked at the answer")),
    }
}

fn failed(what: &str, error: &ClientError) -> Error {
    let kind = match error {
        ClientError::Kafka(code) => kind(*code),
        _ => ErrorKind::KafkaUnavailable,
    };
    // The crate's error can't be shared between threads.
    Error::new(kind, what).caused_by(error.to_string())
}

/// The error for what a broker said to a run.
pub(super) fn refusal(topic: &str, code: Code) -> Error {
    let error = Error::new(kind(code), format!("Kafka did not take a record for {topic}"));
    let error = error.caused_by(match code {
        Code::Unknown => "an error that the client kafka has no name for".to_owned(),
        code => format!("{code:?}"),
    });
    match code {
        Code::MessageSizeTooLarge | Code::RecordListTooLarge => {
            error.remedy("raise max.message.bytes of the topic, or message.max.bytes of the broker")
        }
        Code::TopicAuthorizationFailed => {
            error.remedy("the user ANONYMOUS needs the ACLs Describe and Write on the topic")
        }
        _ => error,
    }
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::MessageSizeTooLarge | Code::RecordListTooLarge => ErrorKind::RecordTooLarge,
        Code::InvalidMessageSize => ErrorKind::RecordRefused,
        // The topic alone.
        Code::InvalidTopic => ErrorKind::TopicRefused,
        Code::TopicAuthorizationFailed => ErrorKind::TopicUnavailable,
        // Somebody has to change a setting or a right.
        Code::ClusterAuthorizationFailed | Code::UnsupportedVersion | Code::InvalidRequiredAcks => {
            ErrorKind::KafkaRefused
        }
        // Everything else has to do with brokers that come and go.
        _ => ErrorKind::KafkaUnavailable,
    }
}

fn compression(wanted: Wanted) -> Compression {
    match wanted {
        Wanted::Gzip => Compression::GZIP,
        Wanted::Snappy => Compression::SNAPPY,
        // The others are refused before.
        Wanted::None | Wanted::Lz4 | Wanted::Zstd => Compression::NONE,
    }
}
