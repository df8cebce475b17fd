//! Topics that handlers name: legal ones, and not more than there may be.

use std::{collections::HashSet, sync::Arc};

use crate::{Error, ErrorKind, Result, record::is_legal_topic, routing::OwnTopics};

/// The topics that handlers named so far.
pub(crate) struct ChosenTopics {
    known: HashSet<Arc<str>>,
    /// None without Kafka.
    limits: Option<(usize, OwnTopics)>,
}

impl ChosenTopics {
    /// At most `max` of them, and none of our own.
    pub fn of_kafka(max: usize, own: OwnTopics) -> Self {
        ChosenTopics { known: HashSet::new(), limits: Some((max, own)) }
    }

    /// There is no Kafka.
    pub fn none() -> Self {
        ChosenTopics { known: HashSet::new(), limits: None }
    }

    /// True where there is no Kafka.
    pub fn without_kafka(&self) -> bool {
        self.limits.is_none()
    }

    /// Checks that events may go to the topic.
    ///
    /// # Errors
    /// The reason why they may not.
    pub fn check(&mut self, topic: &Arc<str>) -> Result<()> {
        if self.known.contains(topic) {
            return Ok(());
        }
        let refused = |what: String| Err(Error::new(ErrorKind::RecordRefused, what));
        match &self.limits {
            None => refused(format!("the handler names topic {topic}, and there is no Kafka")),
            _ if !is_legal_topic(topic) => {
                refused(format!("the handler names {topic:?}, which is no legal topic name"))
            }
            Some((_, own)) if own.role(topic).is_some() => own.check(topic),
            Some((max, _)) if self.known.len() >= *max => refused(format!(
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
    use crate::config::Config;

    #[test]
    fn topics_are_legal_and_few() {
        let mut topics = ChosenTopics::of_kafka(1, OwnTopics::new(&Config::default()));
        let letters = Config::default().dead_letter_topic();
        for name in ["a b", "", "..", letters.as_str()] {
            assert!(topics.check(&name.into()).is_err());
        }
        assert!(topics.check(&"a".into()).is_ok() && topics.check(&"a".into()).is_ok());
        assert!(topics.check(&"b".into()).is_err());
        assert!(ChosenTopics::none().check(&"a".into()).is_err());
    }
}
