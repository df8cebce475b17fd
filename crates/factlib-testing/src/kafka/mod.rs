//! A throwaway Apache Kafka: brokers in KRaft mode.
//!
//! **Life cycle.** [`KafkaServer::start`] formats a folder, starts the brokers and returns when a
//! client sees all of them. Each broker can be stopped, killed or paused, and started again on the
//! same ports and data. When the server is dropped, or this process ends for any reason, the
//! brokers are killed and the folder removed (see `process`).
//!
//! Each broker has three listeners: for clients, brokers and controllers. A [`Proxy`] before the
//! clients' listener does not affect the traffic between brokers. Kafka 2.8 has a ZooKeeper instead
//! of controllers, which is started with it.

mod builder;
mod install;
mod listeners;
mod properties;
mod zookeeper;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use nix::sys::signal::Signal;

pub use self::builder::KafkaServerBuilder;
use self::{install::Java, listeners::Listener};
use crate::{
    Error, ErrorKind, Result,
    process::{GuardedChild, ServerHome},
    proxy::Proxy,
    topics,
};

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A throwaway Kafka of one broker or more; their ids begin at 1.
///
/// ```no_run
/// # async fn example() -> factlib_testing::Result<()> {
/// use factlib_testing::{KafkaServer, create_topic};
///
/// let kafka = KafkaServer::builder().brokers(3).start().await?;
/// create_topic(&kafka.bootstrap(), "orders", 6, &[]).await?;
/// kafka.kill(2).await?;
/// kafka.start_again(2).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KafkaServer {
    java: Java,
    brokers: Vec<Broker>,
    home: ServerHome,
}

#[derive(Debug)]
struct Broker {
    id: usize,
    /// The address that clients are told to connect to.
    advertised: String,
    /// The listener of the brokers.
    internal: String,
    /// Further listeners, by name.
    listeners: BTreeMap<String, Listener>,
    /// The name of its properties file.
    file: String,
    proxy: Option<Proxy>,
    child: Mutex<Option<GuardedChild>>,
}

impl Broker {
    fn child(&self) -> Option<GuardedChild> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this broker answers and lists the brokers of these ids.
    async fn ready(&self, ids: Vec<i32>) -> Result<()> {
        let Some(child) = self.child() else { return Ok(()) };
        tokio::select! {
            _ = child.exited() => Err(server_error("a broker ended while it started", &child)),
            seen = topics::await_broker(self.internal.clone(), ids, START_LIMIT) => {
                seen.map_err(|error| server_error("a broker does not serve", &child).caused_by(error))
            }
        }
    }
}

impl KafkaServer {
    /// Starts one broker with Kafka's defaults, except for settings that make it start fast and stay
    /// small.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder for a server with other settings.
    pub fn builder() -> KafkaServerBuilder {
        KafkaServerBuilder::new()
    }

    /// Returns the advertised addresses of the brokers, `host:port`, separated by commas.
    pub fn bootstrap(&self) -> String {
        self.addresses(|broker| &broker.advertised)
    }

    /// Returns the addresses of the listeners between brokers: no proxy, no login, every right.
    pub fn admin_bootstrap(&self) -> String {
        self.addresses(|broker| &broker.internal)
    }

    /// Returns the addresses of a listener that the builder added; empty for an unknown name.
    pub fn listener(&self, name: &str) -> String {
        let addresses = self.brokers.iter().filter_map(|broker| broker.listeners.get(name));
        addresses.map(|listener| listener.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Returns the proxy before a listener of a broker.
    pub fn listener_proxy(&self, broker: usize, name: &str) -> Result<&Proxy> {
        let listener = self.broker(broker)?.listeners.get(name);
        listener.and_then(|listener| listener.proxy.as_ref()).ok_or_else(|| {
            Error::new(ErrorKind::Setup, format!("no proxy before listener {name}"))
                .remedy("build the server with .proxied_listener()")
        })
    }

    /// Returns the proxy before a broker that was built with [`KafkaServerBuilder::proxied`].
    pub fn proxy(&self, broker: usize) -> Result<&Proxy> {
        self.broker(broker)?.proxy.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Setup, format!("no proxy before broker {broker}"))
                .remedy("build the server with .proxied()")
        })
    }

    /// Returns the process id of a broker; `None` while it is stopped.
    pub fn pid(&self, broker: usize) -> Result<Option<u32>> {
        let child = self.broker(broker)?.child();
        Ok(child.filter(GuardedChild::is_running).map(|child| child.pid()))
    }

    /// Returns the end of a broker's log.
    pub fn log(&self, broker: usize) -> Result<String> {
        Ok(self.broker(broker)?.child().map(|child| child.log_tail()).unwrap_or_default())
    }

    /// Stops a broker in order (SIGTERM).
    pub async fn stop(&self, broker: usize) -> Result<()> {
        self.end(broker, Signal::SIGTERM).await
    }

    /// Kills a broker, as a power cut would.
    pub async fn kill(&self, broker: usize) -> Result<()> {
        self.end(broker, Signal::SIGKILL).await
    }

    /// Pauses a broker (SIGSTOP): its connections stay open, and it does not answer.
    pub fn pause(&self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGSTOP)
    }

    /// Resumes a paused broker.
    pub fn resume(&self, broker: usize) -> Result<()> {
        self.signal(broker, Signal::SIGCONT)
    }

    /// Starts a broker again, on the same ports and data, and waits until it serves.
    pub async fn start_again(&self, broker: usize) -> Result<()> {
        let broker = self.broker(broker)?;
        self.launch(broker)?;
        broker.ready(vec![broker.id as i32]).await
    }

    async fn start_all(&self) -> Result<()> {
        self.brokers.iter().try_for_each(|broker| self.launch(broker))?;
        let all: Vec<i32> = self.brokers.iter().map(|broker| broker.id as i32).collect();
        try_join_all(self.brokers.iter().map(|broker| broker.ready(all.clone()))).await?;
        Ok(())
    }

    fn launch(&self, broker: &Broker) -> Result<()> {
        let mut child = broker.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !child.as_ref().is_some_and(GuardedChild::is_running) {
            let name = format!("broker-{}", broker.id);
            *child = Some(self.java.spawn(&self.home, &name, &["kafka.Kafka", &broker.file])?);
        }
        Ok(())
    }

    async fn end(&self, broker: usize, signal: Signal) -> Result<()> {
        if let Some(child) = self.broker(broker)?.child() {
            child.signal(signal);
            child.exited_or_killed(STOP_LIMIT).await;
        }
        Ok(())
    }

    fn signal(&self, broker: usize, signal: Signal) -> Result<()> {
        if let Some(child) = self.broker(broker)?.child() {
            child.signal(signal);
        }
        Ok(())
    }

    fn broker(&self, id: usize) -> Result<&Broker> {
        self.brokers.iter().find(|broker| broker.id == id).ok_or_else(|| {
            let count = self.brokers.len();
            Error::new(ErrorKind::Setup, format!("no broker {id}: the ids are 1 to {count}"))
        })
    }

    fn addresses(&self, of: impl Fn(&Broker) -> &String) -> String {
        self.brokers.iter().map(|broker| of(broker).as_str()).collect::<Vec<_>>().join(",")
    }
}

fn server_error(what: &str, child: &GuardedChild) -> Error {
    let text = format!("{what}; its log ends with:\n{}", child.log_tail());
    Error::new(ErrorKind::KafkaUnavailable, text)
}
