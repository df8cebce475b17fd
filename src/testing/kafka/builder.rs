//! How a throwaway Kafka is to be, and its making.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex, time::Duration};

use nix::sys::signal::Signal;

use super::{
    Broker, KafkaServer,
    install::{self, Version},
    server_error,
};
use crate::{
    Error, ErrorKind, Result,
    testing::{ports::free_port, process::ServerHome, proxy::Proxy},
};

/// Any sixteen bytes in base64 do.
const CLUSTER_ID: &str = "ZmFjdGxpYi10ZXN0LTEyMw";

/// Formatting takes a second; a machine under load may take longer.
const FORMAT_LIMIT: Duration = Duration::from_secs(120);

/// Settings of every broker; the builder's come on top. All else is Kafka's own default: each
/// deviation is here for the reason above it, and for no other.
const DEFAULTS: &[(&str, &str)] = &[
    // A KRaft server has none of these by itself.
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "BROKER"),
    // Start-up time: each partition of Kafka's own topics costs files, and the tests need few.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    // Start-up time: a consumer group would wait for further members for three seconds.
    ("group.initial.rebalance.delay.ms", "0"),
    // Start-up time: a killed broker is let in again only after its old session has ended.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    // Resources: threads, and the memory of the log cleaner.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("log.cleaner.dedupe.buffer.size", "8388608"),
];

const LOG4J: &str = "\
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
";

/// Settings of a [`KafkaServer`] to be started.
#[derive(Debug)]
pub struct KafkaServerBuilder {
    brokers: usize,
    version: Version,
    properties: BTreeMap<String, String>,
    advertised: BTreeMap<usize, String>,
    proxied: bool,
    users: Vec<(String, String)>,
    scram_users: Vec<(String, String)>,
    listeners: Vec<Listener>,
    authorizer: bool,
    jvm: Option<Vec<String>>,
}

/// One more way in for clients.
#[derive(Debug)]
struct Listener {
    name: String,
    protocol: String,
    properties: Vec<(String, String)>,
    known_as: KnownAs,
}

/// The address of a listener that clients are told.
#[derive(Debug)]
enum KnownAs {
    Itself,
    /// The address of a proxy of its own.
    Proxy,
    Other(String),
}

/// A listener of one broker.
struct Bound<'a> {
    of: &'a Listener,
    at: String,
    known_as: String,
    proxy: Option<Proxy>,
}

impl KafkaServerBuilder {
    pub(super) fn new() -> Self {
        let defaults = DEFAULTS.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        KafkaServerBuilder {
            brokers: 1,
            version: Version::default(),
            properties: defaults.collect(),
            advertised: BTreeMap::new(),
            proxied: false,
            users: Vec::new(),
            scram_users: Vec::new(),
            listeners: Vec::new(),
            authorizer: false,
            jvm: None,
        }
    }

    /// How many brokers, each also a controller: one, or three to lose one. They are counted from 1.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// The last Kafka before 4.0, which still takes the first version of each request.
    pub fn before_4(mut self) -> Self {
        self.version = Version::Old;
        self
    }

    /// A property of every broker.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// The `host:port` that a broker tells clients to connect to.
    pub fn advertised(mut self, broker: usize, address: impl Into<String>) -> Self {
        self.advertised.insert(broker, address.into());
        self
    }

    /// Puts a [`Proxy`] before every broker: [`KafkaServer::proxy`]. Only clients go through it.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Has clients log in by SASL/PLAIN (`SASL_PLAINTEXT`) as one of these users and passwords.
    pub fn sasl_plain_users<'a>(
        mut self,
        users: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        self.users = users.into_iter().map(|(user, word)| (user.into(), word.into())).collect();
        self
    }

    /// A user with a password, for listeners that take SCRAM.
    pub fn scram_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.scram_users.push((user.into(), password.into()));
        self
    }

    /// One more listener for clients, at `localhost`: its name in capitals, its protocol such as
    /// `SASL_SSL`, and properties of its own, without the prefix that names it. Its address is
    /// [`KafkaServer::listener`].
    pub fn listener<'a>(
        self,
        name: impl Into<String>,
        protocol: impl Into<String>,
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let properties = properties.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.add_listener(name.into(), protocol.into(), properties.collect(), KnownAs::Itself)
    }

    /// Adds a plaintext listener that clients reach through a [`Proxy`] of its own, see
    /// [`KafkaServer::listener_proxy`].
    pub fn proxied_listener(self, name: impl Into<String>) -> Self {
        self.add_listener(name.into(), "PLAINTEXT".into(), Vec::new(), KnownAs::Proxy)
    }

    /// Adds a plaintext listener that advertises another address than its own.
    pub fn misadvertised_listener(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        let known_as = KnownAs::Other(address.into());
        self.add_listener(name.into(), "PLAINTEXT".into(), Vec::new(), known_as)
    }

    fn add_listener(
        mut self,
        name: String,
        protocol: String,
        properties: Vec<(String, String)>,
        known_as: KnownAs,
    ) -> Self {
        self.listeners.push(Listener { name, protocol, properties, known_as });
        self
    }

    /// Allows a user only what an ACL allows; ACLs are made through [`KafkaServer::admin_bootstrap`].
    pub fn authorizer(mut self) -> Self {
        self.authorizer = true;
        self
    }

    /// Options of the JVM, in place of those that start it fast and keep it small.
    pub fn jvm<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.jvm = Some(options.into_iter().map(Into::into).collect());
        self
    }

    /// Formats the folders and starts the brokers.
    pub async fn start(mut self) -> Result<KafkaServer> {
        if self.brokers == 0 {
            return Err(Error::new(ErrorKind::Config, "a Kafka needs at least one broker"));
        }
        let java = install::find(self.version, self.jvm.take())?;
        let home = ServerHome::create("kafka", Signal::SIGKILL)?;
        home.write("log4j2.properties", LOG4J)?;
        let ports = (0..self.brokers)
            .map(|_| Ok([free_port()?, free_port()?, free_port()?]))
            .collect::<Result<Vec<_>>>()?;
        let voters = ports.iter().enumerate().map(|(i, p)| format!("{}@127.0.0.1:{}", i + 1, p[2]));
        let voters = voters.collect::<Vec<_>>().join(",");
        let mut brokers = Vec::new();
        let mut formats = Vec::new();
        for (index, [client_port, broker_port, controller_port]) in ports.into_iter().enumerate() {
            let id = index + 1;
            let proxy = match self.proxied {
                true => Some(Proxy::start(([127, 0, 0, 1], client_port).into()).await?),
                false => None,
            };
            let direct = format!("127.0.0.1:{client_port}");
            let advertised = match (self.advertised.get(&id), &proxy) {
                (Some(address), _) => address.clone(),
                (None, Some(proxy)) => proxy.address().to_string(),
                (None, None) => direct.clone(),
            };
            let client = if self.users.is_empty() { "PLAINTEXT" } else { "SASL_PLAINTEXT" };
            let more = self.more_listeners().await?;
            let list = |of: fn(&Bound<'_>) -> String| {
                more.iter().map(of).map(|text| format!(",{text}")).collect::<String>()
            };
            let mut properties = BTreeMap::from([
                ("node.id", id.to_string()),
                ("controller.quorum.voters", voters.clone()),
                ("log.dirs", home.path().join(format!("data-{id}")).display().to_string()),
                (
                    "listeners",
                    format!(
                        "CLIENT://{direct},BROKER://127.0.0.1:{broker_port},\
                         CONTROLLER://127.0.0.1:{controller_port}{}",
                        list(|bound| format!("{}://{}", bound.of.name, bound.at))
                    ),
                ),
                (
                    "advertised.listeners",
                    format!(
                        "CLIENT://{advertised},BROKER://127.0.0.1:{broker_port}{}",
                        list(|bound| format!("{}://{}", bound.of.name, bound.known_as))
                    ),
                ),
                (
                    "listener.security.protocol.map",
                    format!(
                        "CLIENT:{client},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT{}",
                        list(|bound| format!("{}:{}", bound.of.name, bound.of.protocol))
                    ),
                ),
            ]);
            self.add_replication(&mut properties);
            self.add_security(&mut properties);
            let mut text = String::new();
            let own = properties.iter().map(|(key, value)| (key.to_string(), value));
            let of_listeners = self.listeners.iter().flat_map(Listener::prefixed);
            let given = self.properties.iter().map(|(key, value)| (key.clone(), value));
            // Of two lines with one key, Java takes the last.
            for (key, value) in own.chain(of_listeners).chain(given) {
                let value = value.replace('\\', "\\\\").replace('\n', "\\n");
                writeln!(text, "{key}={value}").ok();
            }
            let file = format!("broker-{id}.properties");
            home.write(&file, text)?;
            let mut format =
                vec!["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", &file];
            let credentials = self.scram_credentials();
            format.extend(credentials.iter().flat_map(|one| ["--add-scram", one]));
            formats.push(java.spawn(&home, &format!("format-{id}"), &format)?);
            let internal = format!("127.0.0.1:{broker_port}");
            let listeners = more.into_iter().map(Bound::into_entry).collect();
            let child = Mutex::new(None);
            brokers.push(Broker { id, advertised, internal, listeners, file, proxy, child });
        }
        for format in formats {
            if !format.exited_or_killed(FORMAT_LIMIT).await.success() {
                return Err(server_error("Kafka's folder could not be formatted", &format));
            }
        }
        let server = KafkaServer { java, brokers, home };
        server.start_all().await?;
        Ok(server)
    }

    /// Where a broker's further listeners are bound, and what clients are told.
    async fn more_listeners(&self) -> Result<Vec<Bound<'_>>> {
        let mut all = Vec::new();
        for of in &self.listeners {
            let port = free_port()?;
            let at = format!("127.0.0.1:{port}");
            let proxy = match of.known_as {
                KnownAs::Proxy => Some(Proxy::start(([127, 0, 0, 1], port).into()).await?),
                _ => None,
            };
            let known_as = match (&of.known_as, &proxy) {
                (KnownAs::Other(address), _) => address.clone(),
                (_, Some(proxy)) => proxy.address().to_string(),
                (_, None) => format!("localhost:{port}"),
            };
            all.push(Bound { of, at, known_as, proxy });
        }
        Ok(all)
    }

    fn scram_credentials(&self) -> Vec<String> {
        let credentials = |(user, password): &(String, String)| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|mechanism| format!("{mechanism}=[name={user},password={password}]"))
        };
        self.scram_users.iter().flat_map(credentials).collect()
    }

    /// Kafka's own topics have three replicas by default, which fewer brokers can't hold. A cluster
    /// of several is there to lose one: topics are then replicated, which is not Kafka's default.
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
            for (user, password) in &self.users {
                write!(module, " user_{user}=\"{password}\"").ok();
            }
            properties.insert("listener.name.client.sasl.enabled.mechanisms", "PLAIN".into());
            properties.insert("listener.name.client.plain.sasl.jaas.config", module + ";");
        }
        if self.authorizer {
            let class = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
            properties.insert("authorizer.class.name", class.into());
            // Whoever comes through the listeners of the brokers, which ask for no name.
            properties.insert("super.users", "User:ANONYMOUS".into());
        }
    }
}

impl Bound<'_> {
    /// Its name, and how it is reached.
    fn into_entry(self) -> (String, super::Listener) {
        // Nobody is at an address that is wrong.
        let is_wrong = matches!(self.of.known_as, KnownAs::Other(_));
        let address = if is_wrong { self.at } else { self.known_as };
        (self.of.name.clone(), super::Listener { address, proxy: self.proxy })
    }
}

impl Listener {
    fn prefixed(&self) -> impl Iterator<Item = (String, &String)> {
        let prefix = format!("listener.name.{}.", self.name.to_lowercase());
        self.properties.iter().map(move |(key, value)| (format!("{prefix}{key}"), value))
    }
}
