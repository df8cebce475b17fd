//! Reading the dead-letter topic.

use slog::Logger;

use super::letter::{Letter, LetterFilter, LetterPosition};
use crate::{
    Error, ErrorKind, Result,
    config::Config,
    kafka::reader::{Isolation, TopicReader},
};

/// The dead-letter topic of a relay.
pub struct DeadLetterTopic {
    name: String,
    reader: TopicReader,
}

impl DeadLetterTopic {
    /// Looks the topic up; none when there is none, and so no dead letter.
    ///
    /// # Errors
    /// Brokers that can't be reached or don't let us in.
    pub async fn open(config: &Config, log: &Logger) -> Result<Option<Self>> {
        let name = config.dead_letter_topic();
        let reader = TopicReader::open(
            &config.kafka.settings(),
            &name,
            Isolation::ReadCommitted,
            log.clone(),
        )
        .await?;
        Ok(reader.map(|reader| DeadLetterTopic { name, reader }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The letters from the topic's beginning to its present end that the filter
    /// takes: partition by partition, in the order in which they were parked there.
    pub fn letters(&mut self, filter: LetterFilter) -> Letters<'_> {
        Letters {
            partitions: self.reader.partitions().to_vec().into_iter(),
            topic: self,
            filter,
            open: None,
        }
    }

    /// One letter.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none at that position.
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
        self.reader.seek(partition, offset)?;
        match self.reader.next(partition, offset + 1).await? {
            Some(record) => Ok(Letter::new(&record)),
            None => Err(none("the record at that offset is gone".into())),
        }
    }
}

/// Letters as they are read, see [`DeadLetterTopic::letters`].
pub struct Letters<'a> {
    topic: &'a mut DeadLetterTopic,
    filter: LetterFilter,
    partitions: std::vec::IntoIter<i32>,
    /// The partition that is read, and where it ended when that began.
    open: Option<(i32, i64)>,
}

impl Letters<'_> {
    /// The next letter; none after the last.
    ///
    /// # Errors
    /// Brokers that go away and do not come back soon.
    pub async fn next(&mut self) -> Result<Option<Letter>> {
        let reader = &self.topic.reader;
        loop {
            let Some((partition, end)) = self.open else {
                let Some(partition) = self.partitions.next() else { return Ok(None) };
                let offsets = reader.offsets(partition).await?;
                if !offsets.is_empty() {
                    reader.seek(partition, offsets.start)?;
                    self.open = Some((partition, offsets.end));
                }
                continue;
            };
            let letter = reader.next(partition, end).await?.map(|record| Letter::new(&record));
            if letter.as_ref().is_none_or(|letter| letter.position.offset + 1 >= end) {
                self.open = None;
            }
            if let Some(letter) = letter.filter(|letter| self.filter.takes(letter)) {
                return Ok(Some(letter));
            }
        }
    }
}
