//! Settings of a throwaway Kafka, and its start.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use nix::sys::signal::Signal;

use super::{
    Broker, KafkaServer,
    install::{self, Java, Version},
    listeners::{Advertised, BoundListener, ListenerSettings},
    properties::{BrokerProperties, ClusterProperties, DEFAULTS, LOG4J, Quorum},
    server_error, zookeeper,
};
use crate::{
    Error, ErrorKind, Result,
    ports::free_port,
    process::{GuardedChild, ServerHome},
    proxy::Proxy,
};

/// Sixteen arbitrary bytes in base64.
const CLUSTER_ID: &str = "ZmFjdGxpYi10ZXN0LTEyMw";

/// Formatting takes a second, and longer on a busy machine.
const FORMAT_LIMIT: Duration = Duration::from_secs(120);

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
    listeners: Vec<ListenerSettings>,
    authorizer: bool,
    jvm: Option<Vec<String>>,
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

    /// Sets the number of brokers, each also a controller: one, or three to lose one. Their ids begin
    /// at 1.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// Starts the last Kafka before 4.0, which still supports the first version of each request.
    pub fn before_4(mut self) -> Self {
        self.version = Version::Old;
        self
    }

    /// Starts the last Kafka before 3.0 (2.8), with a ZooKeeper. It has no
    /// [`scram_user`](Self::scram_user).
    pub fn before_3(mut self) -> Self {
        self.version = Version::Oldest;
        self
    }

    /// Sets a property of every broker.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// Sets the `host:port` that a broker advertises to clients.
    pub fn advertised(mut self, broker: usize, address: impl Into<String>) -> Self {
        self.advertised.insert(broker, address.into());
        self
    }

    /// Puts a [`Proxy`] before every broker, see [`KafkaServer::proxy`]. Only clients use it.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Requires clients to log in by SASL/PLAIN (`SASL_PLAINTEXT`), with one of these pairs of user
    /// and password.
    pub fn sasl_plain_users<'a>(
        mut self,
        users: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        self.users = users.into_iter().map(|(user, word)| (user.into(), word.into())).collect();
        self
    }

    /// Adds a user with a password, for listeners with SCRAM.
    pub fn scram_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.scram_users.push((user.into(), password.into()));
        self
    }

    /// Adds a listener for clients at `localhost`: its name in capitals, its protocol such as
    /// `SASL_SSL`, and its properties without the prefix that names the listener. Its address is
    /// [`KafkaServer::listener`].
    pub fn listener<'a>(
        self,
        name: impl Into<String>,
        protocol: impl Into<String>,
        properties: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let properties = properties.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.add_listener(name.into(), protocol.into(), properties.collect(), Advertised::Own)
    }

    /// Adds a plaintext listener that clients reach through its own [`Proxy`], see
    /// [`KafkaServer::listener_proxy`].
    pub fn proxied_listener(self, name: impl Into<String>) -> Self {
        self.add_listener(name.into(), "PLAINTEXT".into(), Vec::new(), Advertised::Proxy)
    }

    /// Adds a plaintext listener that advertises another address than its own.
    pub fn misadvertised_listener(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        let advertised = Advertised::Other(address.into());
        self.add_listener(name.into(), "PLAINTEXT".into(), Vec::new(), advertised)
    }

    fn add_listener(
        mut self,
        name: String,
        protocol: String,
        properties: Vec<(String, String)>,
        advertised: Advertised,
    ) -> Self {
        self.listeners.push(ListenerSettings { name, protocol, properties, advertised });
        self
    }

    /// Allows users only what an ACL grants; [`grant`](crate::grant) adds ACLs through
    /// [`KafkaServer::admin_bootstrap`].
    pub fn authorizer(mut self) -> Self {
        self.authorizer = true;
        self
    }

    /// Sets options of the JVM, in place of those that start it fast and keep it small.
    pub fn jvm<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.jvm = Some(options.into_iter().map(Into::into).collect());
        self
    }

    /// Formats the folders and starts the brokers.
    pub async fn start(mut self) -> Result<KafkaServer> {
        if self.brokers == 0 {
            return Err(Error::new(ErrorKind::Setup, "a Kafka needs at least one broker"));
        }
        let java = install::find(self.version, self.jvm.take())?;
        let home = ServerHome::create("kafka", Signal::SIGKILL)?;
        home.write("log4j2.properties", LOG4J)?;
        let ports = (0..self.brokers)
            .map(|_| Ok([free_port()?, free_port()?, free_port()?]))
            .collect::<Result<Vec<_>>>()?;
        let voters = ports.iter().enumerate().map(|(i, p)| format!("{}@127.0.0.1:{}", i + 1, p[2]));
        let quorum = match self.version {
            Version::Oldest => Quorum::ZooKeeper(zookeeper::start(&java, &home)?),
            Version::Present | Version::Old => {
                Quorum::Controllers(voters.collect::<Vec<_>>().join(","))
            }
        };
        let mut brokers = Vec::new();
        let mut formats = Vec::new();
        for (index, ports) in ports.into_iter().enumerate() {
            let broker = self.prepare(&home, index + 1, ports, &quorum).await?;
            if let Quorum::Controllers(_) = quorum {
                formats.push(self.format(&java, &home, &broker)?);
            }
            brokers.push(broker);
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

    /// Gives a broker its addresses and writes its properties file.
    async fn prepare(
        &self,
        home: &ServerHome,
        id: usize,
        [client_port, broker_port, controller_port]: [u16; 3],
        quorum: &Quorum,
    ) -> Result<Broker> {
        let proxy = match self.proxied {
            true => Some(Proxy::start(([127, 0, 0, 1], client_port).into()).await?),
            false => None,
        };
        let client = format!("127.0.0.1:{client_port}");
        let advertised = match (self.advertised.get(&id), &proxy) {
            (Some(address), _) => address.clone(),
            (None, Some(proxy)) => proxy.address().to_string(),
            (None, None) => client.clone(),
        };
        let internal = format!("127.0.0.1:{broker_port}");
        let mut listeners = Vec::new();
        for settings in &self.listeners {
            listeners.push(settings.bind().await?);
        }
        let cluster = ClusterProperties {
            brokers: self.brokers,
            users: &self.users,
            authorizer: self.authorizer,
            listeners: &self.listeners,
            given: &self.properties,
            quorum,
        };
        let text = cluster.file(&BrokerProperties {
            id,
            log_dir: home.path().join(format!("data-{id}")).display().to_string(),
            client: &client,
            advertised: &advertised,
            internal: &internal,
            controller: format!("127.0.0.1:{controller_port}"),
            listeners: &listeners,
        });
        let file = format!("broker-{id}.properties");
        home.write(&file, text)?;
        let listeners = listeners.into_iter().map(BoundListener::into_entry).collect();
        Ok(Broker { id, advertised, internal, listeners, file, proxy, child: Mutex::new(None) })
    }

    /// Starts the program that formats a broker's folder.
    fn format(&self, java: &Java, home: &ServerHome, broker: &Broker) -> Result<GuardedChild> {
        let mut args =
            vec!["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", &broker.file];
        let credentials = self.scram_credentials();
        args.extend(credentials.iter().flat_map(|one| ["--add-scram", one]));
        java.spawn(home, &format!("format-{}", broker.id), &args)
    }

    fn scram_credentials(&self) -> Vec<String> {
        let credentials = |(user, password): &(String, String)| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|mechanism| format!("{mechanism}=[name={user},password={password}]"))
        };
        self.scram_users.iter().flat_map(credentials).collect()
    }
}
