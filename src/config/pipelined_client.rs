//! What `kafka.client = "pipelined"` can't do: each is refused before anything is connected.

use super::{
    Config, KafkaClient, RefusalPolicy,
    validate::{Check, wrong},
};

const CLIENT: &str = "kafka.client = \"pipelined\"";

pub(super) fn check_client(config: &Config) -> Check {
    let kafka = &config.kafka;
    if kafka.client != KafkaClient::Pipelined {
        return Ok(());
    }
    if config.dead_letter.policy == RefusalPolicy::Block {
        let problem = format!(
            "{CLIENT} sends what is behind a refused record: take \"rdkafka\", or another policy"
        );
        return wrong("dead_letter.policy", "\"block\"", problem);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        config.kafka.client = KafkaClient::Pipelined;
        change(&mut config);
        check_client(&config)
            .err()
            .map(|mistake| mistake.error(None).to_string())
            .unwrap_or_default()
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        assert_eq!(problem(|_| {}), "");
        let policy = problem(|c| c.dead_letter.policy = RefusalPolicy::Block);
        let text = "kafka.client = \"pipelined\" sends what is behind a refused record: take \
                    \"rdkafka\", or another policy";
        assert!(policy.contains("dead_letter.policy") && policy.contains(text), "{policy}");
    }
}
