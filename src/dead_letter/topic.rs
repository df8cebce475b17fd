//! Reads letters from the dead-letter topic.

use factlib_kafka::client::Isolation;
use slog::Logger;

use super::letter::{Letter, LetterFilter, LetterPosition};
use crate::{Error, ErrorKind, Result, config::Config, kafka::reader::TopicReader};

/// The dead-letter topic of a relay.
pub struct DeadLetterTopic {
    name: String,
    reader: TopicReader,
}

impl DeadLetterTopic {
    /// Opens the topic; none if it does not exist, so that there are no dead letters.
    ///
    /// # Errors
    /// The brokers can't be reached or refuse the user.
    pub async fn open(config: &Config, log: &Logger) -> Result<Option<Self>> {
        let (name, settings) = (config.dead_letter_topic(), config.kafka.settings());
        let reader =
            TopicReader::open(&settings, &name, Isolation::ReadCommitted, log.clone()).await?;
        Ok(reader.map(|reader| DeadLetterTopic { name, reader }))
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the selected letters from the topic's beginning to its present end, partition by
    /// partition, in the order of parking.
    pub fn letters(&mut self, filter: LetterFilter) -> Letters<'_> {
        Letters {
            partitions: self.reader.partitions().to_vec().into_iter(),
            topic: self,
            filter,
            open: None,
        }
    }

    /// Reads one letter.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is none at that position.
    pub async fn letter(&mut self, position: LetterPosition) -> Result<Letter> {
        let LetterPosition { partition, offset } = position;
        let none = |why: String| {
            let what = format!("there is no dead letter at {position} of topic {}", self.name);
            Error::new(ErrorKind::Config, what).caused_by(why)
        };
        if !self.reader.partitions().contains(&partition) {
            return Err(none(format!("it has {} partitions", self.reader.partitions().len())));
        }
        let offsets = self.reader.offsets(partition).await?;
        if !offsets.contains(&offset) {
            return Err(none(match offsets.is_empty() {
                true => format!("partition {partition} is empty"),
                false => {
                    format!("partition {partition} has {} to {}", offsets.start, offsets.end - 1)
                }
            }));
        }
        self.reader.seek(partition, offset);
        match self.reader.next(offset + 1).await? {
            Some(record) => Ok(Letter::new(partition, record)),
            None => Err(none("the record at that offset is gone".into())),
        }
    }
}

/// A stream of letters; see [`DeadLetterTopic::letters`].
pub struct Letters<'a> {
    topic: &'a mut DeadLetterTopic,
    filter: LetterFilter,
    partitions: std::vec::IntoIter<i32>,
    /// The partition being read, and its end when reading began.
    open: Option<(i32, i64)>,
}

impl Letters<'_> {
    /// Returns the next letter; none after the last.
    ///
    /// # Errors
    /// The brokers became unavailable.
    pub async fn next(&mut self) -> Result<Option<Letter>> {
        let reader = &mut self.topic.reader;
        loop {
            let Some((partition, end)) = self.open else {
                let Some(partition) = self.partitions.next() else { return Ok(None) };
                let offsets = reader.offsets(partition).await?;
                if !offsets.is_empty() {
                    reader.seek(partition, offsets.start);
                    self.open = Some((partition, offsets.end));
                }
                continue;
            };
            let letter = reader.next(end).await?.map(|record| Letter::new(partition, record));
            if letter.as_ref().is_none_or(|letter| letter.position.offset + 1 >= end) {
                self.open = None;
            }
            if let Some(letter) = letter.filter(|letter| self.filter.takes(letter)) {
                return Ok(Some(letter));
            }
        }
    }
}
