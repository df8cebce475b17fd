//! The properties file of a broker.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    listeners::{BoundListener, ListenerSettings},
    zookeeper::KRAFT_ONLY,
};

/// Properties of every broker, which the builder's override. Any other property has Kafka's own
/// default; the comment above each line gives the reason for the deviation.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    // KRaft has no defaults for these.
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "BROKER"),
    // Start-up time: each partition of Kafka's own topics costs files, and the tests need few.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    // Start-up time: a consumer group would wait for further members for three seconds.
    ("group.initial.rebalance.delay.ms", "0"),
    // Kafka deletes by the records' timestamps, and some tests send records from years ago.
    ("log.retention.ms", "-1"),
    // Start-up time: a killed broker may join again only after its old session has ended.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    // Resources: threads, and the memory of the log cleaner.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("log.cleaner.dedupe.buffer.size", "8388608"),
];

/// The logging configuration of every broker.
pub(super) const LOG4J: &str = "\
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
";

/// Properties that differ between the brokers of a cluster.
pub(super) struct BrokerProperties<'a> {
    pub id: usize,
    pub log_dir: String,
    /// The clients' listener, and the address that it advertises.
    pub client: &'a str,
    pub advertised: &'a str,
    pub internal: &'a str,
    pub controller: String,
    pub listeners: &'a [BoundListener<'a>],
}

/// The servers that keep the cluster's metadata.
pub(super) enum Quorum {
    /// The brokers themselves, as `controller.quorum.voters` lists them.
    Controllers(String),
    /// The address of a ZooKeeper.
    ZooKeeper(String),
}

/// Properties that all brokers of a cluster share.
pub(super) struct ClusterProperties<'a> {
    pub brokers: usize,
    /// Users of the clients' listener, with their passwords; empty: no login.
    pub users: &'a [(String, String)],
    pub authorizer: bool,
    pub listeners: &'a [ListenerSettings],
    /// The builder's own, which override all others.
    pub given: &'a BTreeMap<String, String>,
    pub quorum: &'a Quorum,
}

impl ClusterProperties<'_> {
    /// Returns the text of one broker's properties file.
    pub(super) fn file(&self, broker: &BrokerProperties<'_>) -> String {
        let mut own = self.addresses(broker);
        self.add_replication(&mut own);
        self.add_security(&mut own);
        let own = own.iter().map(|(key, value)| (key.to_string(), value));
        let of_listeners = self.listeners.iter().flat_map(ListenerSettings::prefixed);
        let given = self.given.iter().map(|(key, value)| (key.clone(), value));
        let mut text = String::new();
        // Of two lines with one key, Java takes the last.
        for (key, value) in own.chain(of_listeners).chain(given) {
            if self.has_zookeeper() && KRAFT_ONLY.contains(&key.as_str()) {
                continue;
            }
            let value = value.replace('\\', "\\\\").replace('\n', "\\n");
            writeln!(text, "{key}={value}").ok();
        }
        text
    }

    fn has_zookeeper(&self) -> bool {
        matches!(self.quorum, Quorum::ZooKeeper(_))
    }

    fn addresses(&self, broker: &BrokerProperties<'_>) -> BTreeMap<&'static str, String> {
        let BrokerProperties { client, advertised, internal, controller, .. } = broker;
        let protocol = if self.users.is_empty() { "PLAINTEXT" } else { "SASL_PLAINTEXT" };
        let list = |entry: fn(&BoundListener<'_>) -> [String; 2]| {
            let entries = broker.listeners.iter().map(entry);
            entries.map(|[name, value]| format!(",{name}{value}")).collect::<String>()
        };
        let bound = list(|one| [one.settings.name.clone(), format!("://{}", one.address)]);
        let known = list(|one| [one.settings.name.clone(), format!("://{}", one.advertised)]);
        let protocols =
            list(|one| [one.settings.name.clone(), format!(":{}", one.settings.protocol)]);
        let (id, quorum, controller) = match self.quorum {
            Quorum::Controllers(voters) => {
                let controller = format!(",CONTROLLER://{controller}");
                ("node.id", ("controller.quorum.voters", voters), controller)
            }
            Quorum::ZooKeeper(address) => {
                ("broker.id", ("zookeeper.connect", address), String::new())
            }
        };
        BTreeMap::from([
            (id, broker.id.to_string()),
            (quorum.0, quorum.1.clone()),
            ("log.dirs", broker.log_dir.clone()),
            ("listeners", format!("CLIENT://{client},BROKER://{internal}{controller}{bound}")),
            ("advertised.listeners", format!("CLIENT://{advertised},BROKER://{internal}{known}")),
            (
                "listener.security.protocol.map",
                format!("CLIENT:{protocol},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}"),
            ),
        ])
    }

    /// Kafka's own topics have three replicas by default, more than a smaller cluster can hold. A
    /// cluster of several brokers is there to lose one, so its topics are replicated by default,
    /// which is not Kafka's default.
    fn add_replication(&self, properties: &mut BTreeMap<&str, String>) {
        let replicas = self.brokers.min(3);
        for key in [
            "default.replication.factor",
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "share.coordinator.state.topic.replication.factor",
        ] {
            properties.insert(key, replicas.to_string());
        }
        // One broker may be lost.
        let in_sync = replicas.saturating_sub(1).max(1);
        for key in ["transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"] {
            properties.insert(key, in_sync.to_string());
        }
    }

    fn add_security(&self, properties: &mut BTreeMap<&str, String>) {
        if !self.users.is_empty() {
            let mut module =
                "org.apache.kafka.common.security.plain.PlainLoginModule required".to_owned();
            for (user, password) in self.users {
                write!(module, " user_{user}=\"{password}\"").ok();
            }
            properties.insert("listener.name.client.sasl.enabled.mechanisms", "PLAIN".into());
            properties.insert("listener.name.client.plain.sasl.jaas.config", module + ";");
        }
        if self.authorizer {
            let class = match self.has_zookeeper() {
                true => "kafka.security.authorizer.AclAuthorizer",
                false => "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            };
            properties.insert("authorizer.class.name", class.into());
            // The user of connections to the brokers' own listeners, which have no login.
            properties.insert("super.users", "User:ANONYMOUS".into());
        }
    }
}
