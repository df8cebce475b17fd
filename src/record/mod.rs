//! What goes to Kafka and the rules for it, whoever makes it and whoever sends it.

mod topic_name;

pub(crate) use self::topic_name::{is_legal_in_topic, is_legal_topic, legal_topic};
