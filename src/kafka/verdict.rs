//! Judges what an error means for the record that it came with.
//!
//! A broker answers for a batch, and librdkafka gives the batch's error to each of its records.
//! Since Kafka 2.4 an answer may name records, and librdkafka marks the others of the batch with
//! `_INVALID_DIFFERENT_RECORD`; but it drops errors that several named records share. So only the
//! error of a record that was sent alone is certain to be that record's own.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::errors::kafka_error;
use crate::{Error, ErrorKind, record::Record};

/// Partition and time that a record asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordPlacement {
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
}

impl RecordPlacement {
    pub fn of(record: &Record) -> Self {
        RecordPlacement { partition: record.partition, timestamp_ms: record.timestamp_ms }
    }
}

/// Ordered by how much it says of what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// This record is refused, whatever it was sent with.
    Itself,
    /// The topic or its brokers have a problem.
    Topic,
    /// A record of its batch is refused: this one, or another.
    Batch,
    /// Another record of its batch is refused.
    Bystander,
    /// It was not sent: the client gave up because of another one.
    NotSent,
}

impl Verdict {
    pub fn of(error: &KafkaError, place: RecordPlacement) -> Self {
        let Some(code) = error.rdkafka_error_code() else { return Verdict::Topic };
        match code {
            // librdkafka looks for the partition before there is a batch.
            Code::UnknownPartition if place.partition.is_some() => Verdict::Itself,
            // Its time is that of now: another record's is wrong, or this machine's clock.
            Code::InvalidTimestamp if place.timestamp_ms.is_none() => Verdict::Bystander,
            Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            // Said of records by a broker that looks into them.
            | Code::PolicyViolation => Verdict::Batch,
            Code::InvalidDifferentRecord => Verdict::Bystander,
            Code::Fatal | Code::GaplessGuarantee | Code::PurgeQueue => Verdict::NotSent,
            _ => Verdict::Topic,
        }
    }

    /// The verdict for a record that was sent alone.
    pub fn of_alone(self) -> Self {
        match self {
            Verdict::Batch => Verdict::Itself,
            Verdict::Bystander => Verdict::Topic,
            other => other,
        }
    }

    /// The error of a part that could not be delivered whole.
    pub fn failure(self, topic: &str, error: KafkaError) -> Error {
        let what = match self {
            Verdict::Itself | Verdict::Topic => {
                return kafka_error(format!("Kafka did not take a record for {topic}"), error);
            }
            Verdict::Batch | Verdict::Bystander => format!(
                "Kafka refused a batch of records for {topic}; those that may be the cause are \
                 sent one by one"
            ),
            Verdict::NotSent => format!("a record for {topic} was not sent, as another one failed"),
        };
        Error::new(ErrorKind::KafkaUnavailable, what).caused_by(error)
    }
}

/// True where a batch was larger than its topic takes.
pub(super) fn is_too_large(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge))
}

/// The error of a record that is refused for what it is; `name` is what errors call it.
pub(super) fn refused(topic: &str, name: &str, place: RecordPlacement, error: KafkaError) -> Error {
    let code = match is_too_large(&error) {
        true => Some(Code::MessageSizeTooLarge),
        false => error.rdkafka_error_code(),
    };
    refused_with(topic, name, place, code, error)
}

/// The same for an error of this code, whoever tells of it in `cause`.
pub(super) fn refused_with(
    topic: &str,
    name: &str,
    place: RecordPlacement,
    code: Option<Code>,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let what = format!("Kafka did not take the record of {name} for {topic}");
    if code == Some(Code::MessageSizeTooLarge) {
        let remedy = "raise max.message.bytes of the topic, or message.max.bytes of the broker";
        return Error::new(ErrorKind::RecordTooLarge, what).caused_by(cause).remedy(remedy);
    }
    let refused = Error::new(ErrorKind::RecordRefused, what);
    match place_refused(place, code) {
        Some(place) => refused.caused_by(place.caused_by(cause)),
        None => refused.caused_by(cause),
    }
}

/// The error for a record that asks for a place that Kafka does not have; none where the broker's
/// answer is about something else.
fn place_refused(place: RecordPlacement, code: Option<Code>) -> Option<Error> {
    let what = match (code?, place.partition, place.timestamp_ms) {
        (Code::UnknownPartition, Some(partition), _) => {
            format!("its topic has no partition {partition}")
        }
        (Code::InvalidTimestamp, _, Some(ms)) => {
            format!("its topic takes no record of the time {ms} ms")
        }
        _ => return None,
    };
    Some(Error::new(ErrorKind::RecordRefused, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: Code, partition: Option<i32>, timestamp_ms: Option<i64>) -> Verdict {
        let place = RecordPlacement { partition, timestamp_ms };
        Verdict::of(&KafkaError::MessageProduction(code), place)
    }

    #[test]
    fn an_error_is_about_a_record_a_batch_or_a_topic() {
        for (code, partition, time, expected) in [
            (Code::UnknownPartition, Some(9), None, Verdict::Itself),
            (Code::UnknownPartition, None, None, Verdict::Topic),
            (Code::InvalidTimestamp, None, Some(7), Verdict::Batch),
            (Code::InvalidTimestamp, None, None, Verdict::Bystander),
            (Code::InvalidRecord, None, None, Verdict::Batch),
            (Code::PolicyViolation, None, None, Verdict::Batch),
            (Code::MessageSizeTooLarge, None, None, Verdict::Batch),
            (Code::InvalidDifferentRecord, None, None, Verdict::Bystander),
            (Code::PurgeQueue, None, None, Verdict::NotSent),
            (Code::PurgeInflight, None, None, Verdict::Topic),
            (Code::TopicAuthorizationFailed, None, None, Verdict::Topic),
        ] {
            assert_eq!(verdict(code, partition, time), expected, "{code}");
        }
    }

    #[test]
    fn an_error_of_a_record_that_was_sent_alone_is_its_own() {
        let alone = |code, time| verdict(code, None, time).of_alone();
        assert_eq!(alone(Code::InvalidTimestamp, Some(7)), Verdict::Itself);
        assert_eq!(alone(Code::InvalidTimestamp, None), Verdict::Topic, "the clock is wrong");
        assert_eq!(alone(Code::PurgeQueue, None), Verdict::NotSent);
    }
}
