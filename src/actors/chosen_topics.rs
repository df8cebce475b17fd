//! Topics that handlers name: legal ones, and not more than there may be.

use std::{collections::HashSet, sync::Arc};

use crate::{Error, ErrorKind, Result, kafka::record::is_legal_topic};

/// The topics that were named so far.
pub(crate) struct ChosenTopics {
    known: HashSet<Arc<str>>,
    /// None without Kafka.
    max: Option<usize>,
}

impl ChosenTopics {
    /// At most `max` of them.
    pub fn of_kafka(max: usize) -> Self {
        ChosenTopics { known: HashSet::new(), max: Some(max) }
    }

    /// There is no Kafka.
    pub fn none() -> Self {
        ChosenTopics { known: HashSet::new(), max: None }
    }

    /// True where there is no Kafka.
    pub fn without_kafka(&self) -> bool {
        self.max.is_none()
    }

    /// Whether events may go to the topic.
    ///
    /// # Errors
    /// Why not.
    pub fn get(&mut self, topic: &Arc<str>) -> Result<()> {
        if self.known.contains(topic) {
            return Ok(());
        }
        let refused = |what: String| Err(Error::new(ErrorKind::RecordRefused, what));
        match self.max {
            None => refused(format!("the handler names topic {topic}, and there is no Kafka")),
            _ if !is_legal_topic(topic) => {
                refused(format!("the handler names {topic:?}, which is no legal topic name"))
            }
            Some(max) if self.known.len() >= max => refused(format!(
                "{topic} would be one topic more than the {max} allowed (kafka.topics.max)"
            )),
            Some(_) => {
                self.known.insert(Arc::clone(topic));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_legal_and_few() {
        let mut topics = ChosenTopics::of_kafka(1);
        for name in ["a b", "", ".."] {
            assert!(topics.get(&name.into()).is_err());
        }
        assert!(topics.get(&"a".into()).is_ok() && topics.get(&"a".into()).is_ok());
        assert!(topics.get(&"b".into()).is_err());
        assert!(ChosenTopics::none().get(&"a".into()).is_err());
    }
}
