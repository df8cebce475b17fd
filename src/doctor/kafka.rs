//! Checks Kafka: the brokers, the existing topics, and the topics that would be created.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use slog::Logger;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{Check, Checks};
use crate::{
    Result,
    config::{Config, KafkaClient, PartitionsAdded, ReceiptStore},
    emit::DEFAULT_MAX_BYTES,
    exactly_once::{CLEANUP, COMPACT, compact_command},
    kafka::{
        admin::{Cluster, TopicAdmin, TopicSettings},
        groups::{GroupReader, is_foreign},
    },
    routing::Routes,
    startup::Startup,
};

/// Limit for the first request, which includes connecting.
const LIMIT: Duration = Duration::from_secs(10);

/// Limit for connecting to each advertised address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(3);

pub(super) async fn examine(config: &Arc<Config>, log: &Logger) -> Result<Vec<Check>> {
    let mut checks = Checks::new("kafka");
    let admin = TopicAdmin::new(&config.kafka.settings())?;
    let patience = config.pipeline.startup_timeout;
    let limit = if patience.is_zero() { LIMIT } else { patience.min(LIMIT) };
    match admin.cluster(limit).await {
        Ok(cluster) => {
            let brokers = cluster.brokers;
            checks.ok("brokers", format!("{brokers} in the cluster of {}", admin.brokers()));
            check_advertised_addresses(&cluster, &mut checks).await;
            #[cfg(feature = "client-kafka")]
            if config.kafka.client == KafkaClient::Kafka {
                let taken = crate::kafka::plain::check(config.kafka.brokers.clone(), limit).await;
                let found = taken.map(|()| "old enough for kafka.client = \"kafka\"".into());
                checks.result("versions", found, "start the brokers, or correct kafka.brokers");
            }
            let routes = Routes::new(&**config).map_err(|mistake| mistake.error(None))?;
            let prefixes = topic_prefixes(config);
            if let Some(table) = Startup::new(config)?.topic_partitions(log) {
                // If PostgreSQL can't be asked, its own checks say so.
                let last_used = table.load().await.unwrap_or_default();
                check_partitions(config, &cluster, last_used, &mut checks);
            }
            let topics =
                TopicChecks { config, routes, prefixes, cluster, admin, checks: &mut checks };
            topics.run().await;
            if let Some(group) = &config.fleet.group {
                check_group(config, group, &mut checks).await?;
            }
        }
        Err(error) => {
            checks.failed("brokers", &error, "start the brokers, or correct kafka.brokers")
        }
    }
    Ok(checks.checks)
}

/// Checks that the group of the fleet can be read, and is one of factlib's.
async fn check_group(config: &Config, group: &str, checks: &mut Checks) -> Result<()> {
    const NAME: &str = "group";
    let principal = config.kafka.username.as_deref().unwrap_or("ANONYMOUS");
    let grant = tool(
        config,
        &format!(
            "kafka-acls.sh --add --allow-principal User:{principal} --operation Read --group {group}"
        ),
    );
    match GroupReader::new(&config.kafka.settings())?.read(group).await {
        Ok(found) if is_foreign(&found) => checks.error(
            NAME,
            format!("{group} is a group of another program ({})", found.protocol_type),
            "give fleet.group a name that no other program uses",
        ),
        Ok(found) => checks.ok(NAME, format!("{group} has instances: {}", found.members.len())),
        Err(error) => checks.failed(NAME, &error, &grant),
    }
    Ok(())
}

/// Checks that this machine reaches the addresses that the brokers advertise to clients.
async fn check_advertised_addresses(cluster: &Cluster, checks: &mut Checks) {
    const NAME: &str = "advertised addresses";
    let tries = cluster.addresses.iter().map(|(host, port)| async move {
        let connecting = async {
            let found = lookup_host((host.as_str(), *port)).await;
            let addresses = found.map_err(|error| format!("can't be resolved: {error}"))?;
            let mut why = "can't be resolved".to_owned();
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(_) => return Ok(()),
                    Err(error) => why = format!("can't be reached: {error}"),
                }
            }
            Err(why)
        };
        let outcome = timeout(ADDRESS_LIMIT, connecting).await;
        let outcome = outcome.unwrap_or_else(|_| Err("does not answer".to_owned()));
        outcome.err().map(|why| format!("{host}:{port} {why}"))
    });
    let wrong: Vec<String> = join_all(tries).await.into_iter().flatten().collect();
    match wrong.is_empty() {
        true => checks.ok(NAME, "each broker answers at its advertised address"),
        false => checks.error(
            NAME,
            wrong.join("; "),
            "correct advertised.listeners on the broker, or the DNS or the network of this machine",
        ),
    }
}

/// Checks that no topic has more partitions than when the relay last sent to it.
fn check_partitions(
    config: &Config,
    cluster: &Cluster,
    last_used: BTreeMap<String, usize>,
    checks: &mut Checks,
) {
    const NAME: &str = "partitions";
    let letters = config.dead_letter_topic();
    let count = last_used.len();
    let changes = last_used.into_iter().filter_map(|(topic, before)| {
        let now = *cluster.partitions.get(&topic)?;
        (now > before && topic != letters).then(|| format!("{topic} (had {before}, has {now})"))
    });
    let changes = changes.collect::<Vec<_>>().join(", ");
    if changes.is_empty() {
        return checks.ok(NAME, format!("as many as the relay last used; topics: {count}"));
    }
    let found = format!("added since the relay last sent to the topic: {changes}");
    match config.kafka.on_partitions_added {
        PartitionsAdded::Stop => checks.error(
            NAME,
            found,
            "let the consumers read on to the end, and start the relay once with \
             kafka.on_partitions_added = \"drain\"",
        ),
        PartitionsAdded::Drain => checks.warning(
            NAME,
            found,
            "aggregates move: let the consumers read up to the offsets that the relay will log \
             before they read on",
        ),
        PartitionsAdded::Warn => checks.warning(
            NAME,
            found,
            "aggregates move: set kafka.on_partitions_added = \"drain\" to have the offsets logged",
        ),
    }
}

/// Prefixes of default topics: the configuration's, and those of outbox tables.
fn topic_prefixes(config: &Config) -> Vec<String> {
    let tables = config.outbox_tables();
    let usual = tables.is_empty() || tables.iter().any(|table| table.topic_prefix().is_none());
    let own = tables.iter().filter_map(|table| table.topic_prefix()).map(str::to_owned);
    let mut prefixes: Vec<_> =
        usual.then(|| config.topic_prefix().to_owned()).into_iter().collect();
    prefixes.extend(own);
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// Checks the topics.
struct TopicChecks<'a> {
    config: &'a Config,
    routes: Routes,
    prefixes: Vec<String>,
    cluster: Cluster,
    admin: TopicAdmin,
    checks: &'a mut Checks,
}

impl TopicChecks<'_> {
    async fn run(mut self) {
        let letters = self.config.dead_letter.policy.parks();
        if letters && self.config.kafka.client != KafkaClient::Kafka {
            self.dead_letter_topic().await;
        }
        if self.config.is_exactly_once() {
            self.position_topic().await;
        }
        if self.config.receipts.store == ReceiptStore::Topic {
            self.receipt_topic().await;
        }
        self.new_topics().await;
        self.named_topics().await;
        let topics = self.relay_topics();
        if topics.is_empty() {
            let found = format!("no topic {} exists yet", self.default_topics());
            return self.checks.ok("topic settings", found);
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        match self.admin.settings(&names).await {
            Ok(settings) if settings.len() == topics.len() => {
                self.check_replicas(&settings);
                self.check_message_sizes(&settings);
            }
            // Kafka reports the missing right for single topics, without a text.
            Ok(_) => self.warn_unreadable("the settings of some topics can't be read".into()),
            Err(error) => self.warn_unreadable(error.without_remedy()),
        }
    }

    /// Existing topics that the relay sends to, as far as their names tell.
    fn relay_topics(&self) -> Vec<String> {
        let prefixes: Vec<&str> = self.prefixes.iter().map(String::as_str).collect();
        let (letters, positions) = (self.config.dead_letter_topic(), self.config.position_topic());
        let is_ours = |name: &&String| {
            self.routes.may_send_to(name, &prefixes)
                || **name == letters
                || self.config.is_exactly_once() && **name == positions
                || self.config.receipts.store == ReceiptStore::Topic
                    && **name == self.config.receipt_topic()
        };
        self.cluster.topics.keys().filter(is_ours).cloned().collect()
    }

    /// Names the default topics for people: `shop.…`.
    fn default_topics(&self) -> String {
        let all = self.prefixes.iter().map(|prefix| format!("{prefix}.…"));
        all.collect::<Vec<_>>().join(" or ")
    }

    /// Checks that Kafka keeps the newest position of exactly-once delivery.
    async fn position_topic(&mut self) {
        const NAME: &str = "position topic";
        let topic = self.config.position_topic();
        if !self.cluster.topics.contains_key(&topic) {
            if self.config.kafka.topics.create {
                let may = self.admin.may_create(&topic).await;
                let found = may.map(|()| format!("{topic} does not exist; the start creates it"));
                return self.checks.result(
                    NAME,
                    found,
                    "set kafka.topics.create = false, and create them by hand",
                );
            }
            let create = self.tool(&format!(
                "kafka-topics.sh --create --topic {topic} --partitions 1 --config \
                 {CLEANUP}={COMPACT}"
            ));
            let found = format!("topic {topic} does not exist, and kafka.topics.create = false");
            return self.checks.error(NAME, found, create);
        }
        match self.admin.setting(&topic, CLEANUP).await {
            Ok(Some(policy)) if policy != COMPACT => {
                let found =
                    format!("{topic} has {CLEANUP}={policy}, so Kafka would delete positions");
                self.checks.error(NAME, found, compact_command(self.config));
            }
            Ok(_) => self.checks.ok(NAME, format!("{topic} exists and is compacted")),
            Err(error) => self.warn_unreadable(error.without_remedy()),
        }
    }

    /// Checks that the topic of receipts exists and forgets old ones, or can be created.
    async fn receipt_topic(&mut self) {
        const NAME: &str = "receipt topic";
        let (topic, config) = (self.config.receipt_topic(), self.config);
        let retention = config.receipts.retention.as_millis();
        let create = self.tool(&format!(
            "kafka-topics.sh --create --topic {topic} --config {CLEANUP}=delete --config \
             retention.ms={retention}"
        ));
        if !self.cluster.topics.contains_key(&topic) {
            if !config.kafka.topics.create {
                let found =
                    format!("topic {topic} does not exist, and kafka.topics.create = false");
                return self.checks.error(NAME, found, create);
            }
            let may = self.admin.may_create(&topic).await;
            let found = may.map(|()| format!("{topic} does not exist; the start creates it"));
            return self.checks.result(NAME, found, &create);
        }
        match self.admin.setting(&topic, CLEANUP).await {
            Ok(Some(policy)) if policy.contains(COMPACT) => {
                let found = format!(
                    "{topic} has {CLEANUP}={policy}, so Kafka deletes receipts of the same slot"
                );
                let alter = self.tool(&format!(
                    "kafka-configs.sh --alter --entity-type topics --entity-name {topic} \
                     --add-config {CLEANUP}=delete"
                ));
                self.checks.error(NAME, found, alter);
            }
            Ok(_) => self.checks.ok(NAME, format!("{topic} exists")),
            Err(error) => self.warn_unreadable(error.without_remedy()),
        }
    }

    /// Checks that missing topics of routes can be created.
    async fn named_topics(&mut self) {
        const NAME: &str = "topics of routes";
        for topic in self.routes.named_topics() {
            if self.cluster.topics.contains_key(&topic) {
                continue;
            }
            let create = self.tool(&format!("kafka-topics.sh --create --topic {topic}"));
            if !self.config.kafka.topics.create {
                let found =
                    format!("topic {topic} does not exist, and kafka.topics.create = false");
                self.checks.error(NAME, found, create);
            } else if let Err(error) = self.admin.may_create(&topic).await {
                self.checks.failed(NAME, &error, &create);
            }
        }
    }

    async fn dead_letter_topic(&mut self) {
        const NAME: &str = "dead-letter topic";
        let topic = self.config.dead_letter_topic();
        if self.cluster.topics.contains_key(&topic) {
            return self.checks.ok(NAME, format!("{topic} exists"));
        }
        if !self.config.kafka.topics.create {
            let create = self.tool(&format!("kafka-topics.sh --create --topic {topic}"));
            let found = format!("topic {topic} does not exist, and kafka.topics.create = false");
            return self.checks.error(NAME, found, create);
        }
        let may = self.admin.may_create(&topic).await;
        let found =
            may.map(|()| format!("{topic} does not exist; the first dead letter creates it"));
        self.checks.result(
            NAME,
            found,
            &self.tool(&format!("kafka-topics.sh --create --topic {topic}")),
        );
    }

    async fn new_topics(&mut self) {
        const NAME: &str = "new topics";
        let usual = self.default_topics();
        if !self.config.kafka.topics.create {
            let found = format!("kafka.topics.create = false: create each {usual} by hand");
            return self.checks.ok(NAME, found);
        }
        let mut may = Ok(());
        for prefix in &self.prefixes {
            if may.is_ok() {
                may = self.admin.may_create(&format!("{prefix}.factlib-doctor")).await;
            }
        }
        let found = may.map(|()| format!("{usual} may be created"));
        self.checks.result(NAME, found, "set kafka.topics.create = false, and create them by hand");
    }

    fn warn_unreadable(&mut self, why: String) {
        let principal = self.config.kafka.username.as_deref().unwrap_or("ANONYMOUS");
        let grant = |prefix: &String| {
            self.tool(&format!(
                "kafka-acls.sh --add --allow-principal User:{principal} --operation \
                 DescribeConfigs --topic {prefix}. --resource-pattern-type prefixed"
            ))
        };
        let grant = self.prefixes.iter().map(grant).collect::<Vec<_>>().join("; ");
        self.checks.warning("topic settings", why, grant);
    }

    fn check_replicas(&mut self, settings: &[TopicSettings]) {
        const NAME: &str = "min.insync.replicas";
        let (mut blocked, mut too_few) = (Vec::new(), Vec::new());
        for setting in settings {
            let replicas = self.cluster.topics.get(&setting.topic).copied().unwrap_or_default();
            let Some(min) = setting.min_insync_replicas else { continue };
            if min > replicas {
                blocked.push((setting.topic.as_str(), replicas));
            } else if replicas > 1 && min < 2 {
                too_few.push((setting.topic.as_str(), 2));
            }
        }
        let (is_error, topics) =
            if blocked.is_empty() { (false, too_few) } else { (true, blocked) };
        if topics.is_empty() {
            return self.checks.ok(NAME, format!("fits the replicas; topics: {}", settings.len()));
        }
        let names = topics.iter().map(|(topic, _)| *topic).collect::<Vec<_>>().join(", ");
        let alter = topics.iter().map(|(topic, to)| self.alter(topic, NAME, *to));
        let remedy = alter.collect::<Vec<_>>().join("; ");
        match is_error {
            true => self.checks.error(
                NAME,
                format!("more than the topic has replicas, so nothing can be written: {names}"),
                remedy,
            ),
            false => self.checks.warning(
                NAME,
                format!("1, so an acknowledged record may be on one broker only: {names}"),
                remedy,
            ),
        }
    }

    fn check_message_sizes(&mut self, settings: &[TopicSettings]) {
        const NAME: &str = "max.message.bytes";
        let small = |setting: &&TopicSettings| {
            setting.max_message_bytes.is_some_and(|bytes| bytes < DEFAULT_MAX_BYTES)
        };
        let small: Vec<&str> =
            settings.iter().filter(small).map(|setting| setting.topic.as_str()).collect();
        if small.is_empty() {
            let found = format!("large enough for the largest fact; topics: {}", settings.len());
            return self.checks.ok(NAME, found);
        }
        let found = format!(
            "less than the {DEFAULT_MAX_BYTES} bytes that a fact may have, so large facts become \
             dead letters: {}",
            small.join(", ")
        );
        // Kafka's own default.
        let alter = small.iter().map(|topic| self.alter(topic, NAME, 1_048_588));
        let remedy = alter.collect::<Vec<_>>().join("; ");
        self.checks.warning(NAME, found, remedy);
    }

    fn alter(&self, topic: &str, setting: &str, value: usize) -> String {
        self.tool(&format!(
            "kafka-configs.sh --alter --entity-type topics --entity-name {topic} \
             --add-config {setting}={value}"
        ))
    }

    fn tool(&self, call: &str) -> String {
        tool(self.config, call)
    }
}

/// Command line of one of Kafka's tools.
fn tool(config: &Config, call: &str) -> String {
    let (program, rest) = call.split_once(' ').unwrap_or((call, ""));
    format!("{program} --bootstrap-server {} {rest}", config.kafka.brokers.join(","))
}
