use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

#[cfg(feature = "schema-registry")]
use super::client::Client;
#[cfg(not(feature = "schema-registry"))]
use crate::config::SchemaRegistryConfig;
use crate::{
    Error, ErrorKind, Result,
    config::Config,
    format::{Need, Prefixes, Schema},
};

/// How long a refusal counts before the registry is asked again.
const REFUSAL_LIFE: Duration = Duration::from_secs(5);

/// Answers that are kept; names made of ids would be more.
const KNOWN_MAX: usize = 10_000;

/// A schema registry, and what it has said.
pub(crate) struct Registry {
    #[cfg(feature = "schema-registry")]
    client: Option<Client>,
    auto_register: bool,
    cache: Duration,
    known: Mutex<HashMap<Need, Known>>,
    /// By topic, what could not be asked.
    unanswered: Mutex<HashMap<String, Need>>,
}

struct Known {
    prefix: Result<Bytes>,
    /// When it was asked.
    at: Instant,
}

impl Registry {
    /// The registry of a configuration; nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a certificate that can't be read.
    pub fn new(config: &Config) -> Result<Self> {
        let settings = &config.schema_registry;
        Ok(Registry {
            #[cfg(feature = "schema-registry")]
            client: Client::new(settings)?,
            auto_register: settings.auto_register,
            cache: Some(settings.cache).filter(|cache| !cache.is_zero()).unwrap_or(Duration::MAX),
            known: Mutex::default(),
            unanswered: Mutex::default(),
        })
    }

    /// How many subjects it has; zero where no registry is configured.
    ///
    /// # Errors
    /// As [`prefixes`](Self::prefixes).
    #[cfg(feature = "schema-registry")]
    pub async fn subjects(&self) -> Result<usize> {
        match &self.client {
            Some(client) => client.subjects().await,
            None => Ok(0),
        }
    }

    /// What values of these schemas begin with, as far as it need not be asked.
    pub fn known(&self, needs: impl Iterator<Item = Need>) -> Option<Prefixes> {
        let mut prefixes = Prefixes::default();
        for need in needs {
            if !prefixes.has(&need) {
                let prefix = self.answer(&need)?;
                prefixes.insert(need, prefix);
            }
        }
        Some(prefixes)
    }

    /// What values of these schemas begin with; `topic` is where they go.
    ///
    /// # Errors
    /// [`ErrorKind::RegistryUnavailable`], [`ErrorKind::RegistryRefused`]; what is refused for
    /// its schema has its error among the prefixes.
    pub async fn prefixes(
        &self,
        topic: &str,
        needs: impl IntoIterator<Item = Need>,
    ) -> Result<Prefixes> {
        let mut prefixes = Prefixes::default();
        for need in needs {
            if prefixes.has(&need) {
                continue;
            }
            let prefix = match self.answer(&need) {
                Some(prefix) => prefix,
                None => self.asked(topic, &need).await?,
            };
            prefixes.insert(need, prefix);
        }
        Ok(prefixes)
    }

    /// Whether it answers again, where it has not when it was last asked for this topic.
    ///
    /// # Errors
    /// As [`prefixes`](Self::prefixes).
    pub async fn answers(&self, topic: &str) -> Result<()> {
        let need = lock(&self.unanswered).get(topic).cloned();
        match need {
            Some(need) => self.asked(topic, &need).await.map(drop),
            None => Ok(()),
        }
    }

    fn answer(&self, need: &Need) -> Option<Result<Bytes>> {
        let known = lock(&self.known);
        let known = known.get(need)?;
        let life = match &need.schema {
            _ if known.prefix.is_err() => REFUSAL_LIFE,
            // What was registered keeps its id.
            Schema::Protobuf | Schema::Json if self.auto_register => Duration::MAX,
            _ => self.cache,
        };
        (known.at.elapsed() < life).then(|| known.prefix.clone())
    }

    async fn asked(&self, topic: &str, need: &Need) -> Result<Result<Bytes>> {
        let prefix = self.ask(need).await;
        if let Err(error) = &prefix
            && error.kind() != ErrorKind::RecordRefused
        {
            lock(&self.unanswered).insert(topic.to_owned(), need.clone());
            return Err(error.clone());
        }
        lock(&self.unanswered).remove(topic);
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(need.clone(), Known { prefix: prefix.clone(), at: Instant::now() });
        Ok(prefix)
    }

    #[cfg(feature = "schema-registry")]
    async fn ask(&self, need: &Need) -> Result<Bytes> {
        match &self.client {
            Some(client) => client.prefix(need).await,
            None => Err(Error::new(ErrorKind::Config, NOT_SET)),
        }
    }

    #[cfg(not(feature = "schema-registry"))]
    async fn ask(&self, _: &Need) -> Result<Bytes> {
        Err(Error::new(ErrorKind::Config, SchemaRegistryConfig::NOT_BUILT))
    }
}

#[cfg(feature = "schema-registry")]
const NOT_SET: &str = "the format needs schema_registry.url";

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
