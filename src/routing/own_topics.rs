//! The relay's own topics (dead letters, positions, receipts), which events may not go to.

use super::RoutingSettings;
use crate::{Error, ErrorKind, Result};

/// Names of the relay's own topics, from its configuration.
#[derive(Clone, Debug)]
pub(crate) struct OwnTopics {
    dead_letters: String,
    /// Reserved with at-least-once too, because the mode may change later.
    positions: String,
    /// None if no receipts are kept there.
    receipts: Option<String>,
}

impl OwnTopics {
    pub fn new(settings: impl Into<RoutingSettings>) -> Self {
        let RoutingSettings { dead_letter_topic, position_topic, receipt_topic, .. } =
            settings.into();
        OwnTopics {
            dead_letters: dead_letter_topic,
            positions: position_topic,
            receipts: receipt_topic,
        }
    }

    /// The relay's use of the topic; none if events may go to it.
    pub fn role(&self, topic: &str) -> Option<&'static str> {
        match topic {
            _ if topic == self.dead_letters => Some("the dead-letter topic"),
            _ if topic == self.positions => Some("the topic of positions"),
            _ if self.receipts.as_deref() == Some(topic) => Some("the topic of receipts"),
            _ => None,
        }
    }

    /// Checks that events may go to the topic.
    ///
    /// # Errors
    /// [`ErrorKind::RecordRefused`] if the topic is one of the relay's own.
    pub fn check(&self, topic: &str) -> Result<()> {
        let Some(role) = self.role(topic) else { return Ok(()) };
        let what = format!("{topic} is the relay's own topic, {role}");
        let remedy = "emit another aggregate_type, or send it elsewhere with a [[route]]";
        Err(Error::new(ErrorKind::RecordRefused, what).remedy(remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn our_own_topics_are_named_as_configured() {
        let mut config = Config::default();
        config.kafka.topic_prefix = Some("shop".into());
        config.delivery.position_topic = Some("positions".into());
        let own = OwnTopics::new(&config);
        assert!(own.check("shop.user").is_ok() && own.check("shop.checkpoints").is_ok());
        for topic in ["shop.dead-letter", "positions"] {
            let error = own.check(topic).expect_err(topic);
            assert_eq!(error.kind(), ErrorKind::RecordRefused);
            assert!(error.to_string().contains("is the relay's own topic"), "{error}");
        }
    }
}
