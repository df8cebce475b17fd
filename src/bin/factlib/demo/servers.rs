//! The demo's two servers: throwaway ones, or those that the user named by flags.
//!
//! On the user's servers the demo makes a slot, a publication and topics of its own, after it has
//! asked, and removes them at its end. What an earlier demo left behind is replaced.

use std::time::{Duration, Instant};

use factlib::{
    Error, ErrorKind, Result,
    binary::{Loader, kafka_error, kafka_settings},
    config::{Config, KafkaClient, RefusalPolicy, StoreKind},
    postgres,
    testing::PostgresServer,
};
use factlib_kafka::{
    Client, Code,
    client::{Isolation, NewTopic},
};
use factlib_postgres::{Slot, publication};
use postgres_protocol::escape::escape_identifier;
use slog::Logger;
use tokio::time::sleep;

use super::{
    AGGREGATE_TYPES,
    broker::{Broker, PARTITIONS},
};
use crate::{
    args::{DemoArgs, SettingArgs},
    ask, output,
};

/// Prefix on throwaway servers; not `factlib`, to show that it is a setting.
const PREFIX: &str = "shop";
/// Prefix on the user's servers, which nothing else has.
const OWN_PREFIX: &str = "factlib-demo";
/// Name of the slot and of the publication on the user's servers.
const OWN_NAME: &str = "factlib_demo";

/// Time that servers have to finish a removal: a slot is busy until its reader's process has
/// ended, and a topic's name until its files are gone.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);
/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Both servers, with the configuration that leads to them.
pub struct Servers {
    pub config: Config,
    /// The fake broker, unless the user named a Kafka.
    pub broker: Option<Broker>,
    postgres: Option<PostgresServer>,
    topics: Vec<String>,
    /// True once the user agreed to what is made on their servers.
    agreed: bool,
}

impl Servers {
    /// Starts the servers that the user did not name.
    pub async fn start(settings: &SettingArgs) -> Result<Self> {
        let mut config = config(settings)?;
        let mut servers = Servers {
            topics: topics(&config),
            broker: None,
            postgres: None,
            agreed: false,
            config: config.clone(),
        };
        if settings.postgres_url.is_none() {
            let postgres = PostgresServer::start().await?;
            config.postgres.url = postgres.url().into();
            servers.postgres = Some(postgres);
        }
        if settings.brokers.is_none() {
            let broker = Broker::start(&servers.topics).await?;
            config.kafka.brokers = vec![broker.bootstrap()];
            servers.broker = Some(broker);
        }
        servers.config = config;
        Ok(servers)
    }

    /// Topics of the facts.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Lines that say where the servers are.
    pub fn describe(&self) -> String {
        let postgres = match &self.postgres {
            Some(server) => format!("127.0.0.1:{}, throwaway", server.port()),
            None => format!("yours, slot {}", self.config.postgres.slot),
        };
        let brokers = self.config.kafka.brokers.join(", ");
        let kind = if self.broker.is_some() { "fake" } else { "yours" };
        format!("PostgreSQL   {postgres}\nKafka        {brokers}, {kind}\n")
    }

    /// Asks whether to make what the demo needs on the user's servers, and removes what an earlier
    /// demo left there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the user does not agree, or something of that name exists.
    pub async fn agree(&mut self, args: &DemoArgs, log: &Logger) -> Result<()> {
        if self.are_throwaway() {
            return Ok(());
        }
        let left = self.find_left_over(log).await?;
        let question = self.question(args, &left);
        if args.yes {
            output::print(&question)?;
        } else if !ask::confirm(&question) {
            let failure = "nothing was made on your servers, as nobody agreed";
            return Err(Error::new(ErrorKind::Config, failure).remedy("--yes agrees beforehand"));
        }
        self.agreed = true;
        if left.is_empty() { Ok(()) } else { self.remove(log).await }
    }

    /// Removes what was made on the user's servers, and says so.
    pub async fn clean(&self, log: &Logger) -> Result<()> {
        if self.are_throwaway() || !self.agreed {
            return Ok(());
        }
        self.remove(log).await?;
        output::print(&format!("removed: {}\n", self.things().join(", ")))
    }

    fn are_throwaway(&self) -> bool {
        self.postgres.is_some() && self.broker.is_some()
    }

    /// What the demo makes on the user's servers.
    fn things(&self) -> Vec<String> {
        let mut things = Vec::new();
        if self.postgres.is_none() {
            let settings = &self.config.postgres;
            things.push(format!("slot {}", settings.slot));
            things.push(format!("publication {}", settings.publication));
        }
        if self.broker.is_none() {
            things.extend(self.all_topics().map(|topic| format!("topic {topic}")));
        }
        things
    }

    fn all_topics(&self) -> impl Iterator<Item = String> {
        let positions = self.config.is_exactly_once().then(|| self.config.position_topic());
        self.topics.iter().cloned().chain(positions)
    }

    fn question(&self, args: &DemoArgs, left: &[String]) -> String {
        let lines = |things: &[String]| things.iter().map(|it| format!("  {it}\n")).collect();
        let made: String = lines(&self.things());
        let mut text =
            format!("The demo makes these on your servers, and removes them at its end:\n{made}");
        if !left.is_empty() {
            let left: String = lines(left);
            text += &format!("These are left from an earlier demo, and are replaced:\n{left}");
        }
        if self.postgres.is_none() {
            let until = match args.seconds {
                0 => "until you end it".into(),
                seconds => format!("for {seconds} s"),
            };
            text += &format!(
                "It writes {} facts a second to the WAL {until}; no table changes.\n",
                args.rate
            );
        }
        text
    }

    /// What of the demo's names exists.
    async fn find_left_over(&self, log: &Logger) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if self.postgres.is_none() {
            let settings = &self.config.postgres;
            let client = postgres::connect(settings, log).await?;
            if let Some(slot) = Slot::read(&client, &settings.slot).await? {
                if slot.active_pid.is_some() {
                    return Err(exists(format!("slot {} is in use", settings.slot), "slot"));
                }
                left.push(format!("slot {}", settings.slot));
            }
            if publication::exists(&client, &settings.publication).await? {
                left.push(format!("publication {}", settings.publication));
            }
            if !left.is_empty() && (settings.slot != OWN_NAME || settings.publication != OWN_NAME) {
                return Err(exists(format!("{} exists", left.join(" and ")), "slot"));
            }
        }
        if self.broker.is_none() {
            let client = self.kafka()?;
            for topic in self.all_topics() {
                let found = client.partitions(&topic).await;
                let found = found.map_err(|error| self.refused("cannot look up a topic", error))?;
                if found.is_some() && self.config.topic_prefix() != OWN_PREFIX {
                    return Err(exists(format!("topic {topic} exists"), "topic-prefix"));
                }
                left.extend(found.map(|_| format!("topic {topic}")));
            }
        }
        Ok(left)
    }

    /// Creates the topics on the user's Kafka.
    pub async fn make_topics(&self) -> Result<()> {
        if self.broker.is_some() {
            return Ok(());
        }
        let client = self.kafka()?;
        let settings = &self.config.kafka.topics;
        let replicas = settings.replication_factor;
        for topic in &self.topics {
            let new = NewTopic {
                name: topic.clone(),
                partitions: Some(PARTITIONS),
                replication_factor: replicas.and_then(|count| i16::try_from(count).ok()),
                settings: Vec::new(),
            };
            let what = format!("cannot create topic {topic}");
            let begin = Instant::now();
            while let Err(error) = client.create_topic(&new, false).await {
                // Its predecessor is being deleted.
                let is_going = error.code() == Some(Code::TopicAlreadyExists);
                if !is_going || begin.elapsed() > REMOVAL_LIMIT {
                    return Err(self.refused(&what, error));
                }
                sleep(RETRY_PAUSE).await;
            }
            self.wait_for_leaders(&client, topic).await?;
        }
        Ok(())
    }

    async fn wait_for_leaders(&self, client: &Client, topic: &str) -> Result<()> {
        for partition in 0..PARTITIONS {
            let begin = Instant::now();
            while let Err(error) = client.offsets(topic, partition, Isolation::ReadCommitted).await
            {
                if begin.elapsed() > REMOVAL_LIMIT {
                    return Err(self.refused("cannot read a topic that was just created", error));
                }
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Removes everything that has the demo's names; what does not exist is no error.
    async fn remove(&self, log: &Logger) -> Result<()> {
        let postgres = self.remove_from_postgres(log).await;
        postgres.and(self.remove_topics().await)
    }

    async fn remove_from_postgres(&self, log: &Logger) -> Result<()> {
        if self.postgres.is_some() {
            return Ok(());
        }
        let settings = &self.config.postgres;
        let client = postgres::connect(settings, log).await?;
        let begin = Instant::now();
        while Slot::read(&client, &settings.slot).await?.is_some() {
            match Slot::drop(&client, &settings.slot).await {
                Ok(()) => break,
                Err(error) if begin.elapsed() > REMOVAL_LIMIT => return Err(error.into()),
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
        let name = escape_identifier(&settings.publication);
        let statement = format!("DROP PUBLICATION IF EXISTS {name}");
        let failure = format!("cannot drop publication {}", settings.publication);
        postgres::sql::run(&client, &failure, &statement).await
    }

    async fn remove_topics(&self) -> Result<()> {
        if self.broker.is_some() {
            return Ok(());
        }
        let client = self.kafka()?;
        for topic in self.all_topics() {
            match client.delete_topic(&topic).await {
                Err(error) if error.code() != Some(Code::UnknownTopicOrPartition) => {
                    return Err(self.refused(&format!("cannot delete topic {topic}"), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn kafka(&self) -> Result<Client> {
        Ok(Client::new(kafka_settings(&self.config)?))
    }

    fn refused(&self, what: &str, error: factlib_kafka::Error) -> Error {
        kafka_error(&self.config, what, error)
    }
}

fn exists(failure: String, flag: &str) -> Error {
    let remedy =
        format!("remove it if nothing needs it, or give the demo another name by --{flag}");
    Error::new(ErrorKind::Config, failure).remedy(remedy)
}

fn topics(config: &Config) -> Vec<String> {
    AGGREGATE_TYPES.iter().map(|name| format!("{}.{name}", config.topic_prefix())).collect()
}

/// Builds the configuration from flags. Files and the environment are for real servers: only
/// logins to the servers that flags name come from there.
fn config(settings: &SettingArgs) -> Result<Config> {
    let empty = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::Config, "cannot make a temporary folder").caused_by(error)
    })?;
    let is_own = settings.postgres_url.is_some() || settings.brokers.is_some();
    let prefix = if is_own { OWN_PREFIX } else { PREFIX };
    let loader = Loader::new(empty.path()).flag("the demo", "postgres.message_prefix", prefix);
    let mut config = settings.add_to(loader)?.load()?.config;
    if is_own {
        let given = settings.loader()?.load()?.config;
        if settings.postgres_url.is_some() {
            config.postgres.password = given.postgres.password;
            config.postgres.password_file = given.postgres.password_file;
            config.postgres.password_command = given.postgres.password_command;
            config.postgres.connect_timeout = given.postgres.connect_timeout;
        }
        if settings.brokers.is_some() {
            let mut kafka = given.kafka;
            kafka.topic_prefix = config.kafka.topic_prefix;
            kafka.format = config.kafka.format;
            kafka.unrouted = config.kafka.unrouted;
            config.kafka = kafka;
        }
        let name = |given: &Option<String>| given.clone().unwrap_or_else(|| OWN_NAME.into());
        config.postgres.slot = name(&settings.slot);
        config.postgres.publication = name(&settings.publication);
        // Neither store needs a table.
        config.checkpoint.store = StoreKind::Memory;
        config.dead_letter.policy = RefusalPolicy::Stop;
    } else {
        config.checkpoint.store = StoreKind::Postgres;
    }
    if !config.is_exactly_once() {
        config.kafka.client = KafkaClient::Pipelined;
    }
    Ok(config)
}
