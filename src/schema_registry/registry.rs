//! Caches the registry's answers: a schema goes in, the prefix of its values comes out.

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
    format::{Prefixes, Schema, SchemaRef},
};

/// Time for which a refusal is cached before the registry is asked again.
const REFUSAL_LIFE: Duration = Duration::from_secs(5);

/// Maximum number of cached answers. Schema names that contain ids would need more.
const MAX_CACHED_ANSWERS: usize = 10_000;

/// A schema registry and its cached answers.
pub(crate) struct Registry {
    #[cfg(feature = "schema-registry")]
    client: Option<Client>,
    auto_register: bool,
    cache: Duration,
    answers: Mutex<HashMap<SchemaRef, CachedAnswer>>,
    /// The last schema per topic for which the registry did not answer.
    unanswered: Mutex<HashMap<String, SchemaRef>>,
}

struct CachedAnswer {
    prefix: Result<Bytes>,
    /// Time at which the registry was asked.
    at: Instant,
}

impl Registry {
    /// Creates the registry of a configuration, without asking it anything.
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
            answers: Mutex::default(),
            unanswered: Mutex::default(),
        })
    }

    /// Counts the registry's subjects; zero if no registry is configured.
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

    /// Prefixes of these schemas, if all of them are cached.
    pub fn cached_prefixes(
        &self,
        schema_refs: impl Iterator<Item = SchemaRef>,
    ) -> Option<Prefixes> {
        let mut prefixes = Prefixes::default();
        for schema_ref in schema_refs {
            if !prefixes.has(&schema_ref) {
                let prefix = self.cached_answer(&schema_ref)?;
                prefixes.insert(schema_ref, prefix);
            }
        }
        Some(prefixes)
    }

    /// Prefixes of these schemas, for values that go to `topic`. Asks the registry for those that
    /// are not cached.
    ///
    /// # Errors
    /// [`ErrorKind::RegistryUnavailable`], [`ErrorKind::RegistryRefused`]. The refusal of a single
    /// schema is among the prefixes instead.
    pub async fn prefixes(
        &self,
        topic: &str,
        schema_refs: impl IntoIterator<Item = SchemaRef>,
    ) -> Result<Prefixes> {
        let mut prefixes = Prefixes::default();
        for schema_ref in schema_refs {
            if prefixes.has(&schema_ref) {
                continue;
            }
            let prefix = match self.cached_answer(&schema_ref) {
                Some(prefix) => prefix,
                None => self.ask_and_cache(topic, &schema_ref).await?,
            };
            prefixes.insert(schema_ref, prefix);
        }
        Ok(prefixes)
    }

    /// Asks again for the schema that was last left unanswered for this topic, if any.
    ///
    /// # Errors
    /// As [`prefixes`](Self::prefixes).
    pub async fn check_unanswered(&self, topic: &str) -> Result<()> {
        let schema_ref = lock(&self.unanswered).get(topic).cloned();
        match schema_ref {
            Some(schema_ref) => self.ask_and_cache(topic, &schema_ref).await.map(drop),
            None => Ok(()),
        }
    }

    fn cached_answer(&self, schema_ref: &SchemaRef) -> Option<Result<Bytes>> {
        let answers = lock(&self.answers);
        let answer = answers.get(schema_ref)?;
        let life = match &schema_ref.schema {
            _ if answer.prefix.is_err() => REFUSAL_LIFE,
            // A registered schema keeps its id.
            Schema::Protobuf | Schema::Json if self.auto_register => Duration::MAX,
            _ => self.cache,
        };
        (answer.at.elapsed() < life).then(|| answer.prefix.clone())
    }

    async fn ask_and_cache(&self, topic: &str, schema_ref: &SchemaRef) -> Result<Result<Bytes>> {
        let prefix = self.ask(schema_ref).await;
        if let Err(error) = &prefix
            && error.kind() != ErrorKind::RecordRefused
        {
            lock(&self.unanswered).insert(topic.to_owned(), schema_ref.clone());
            return Err(error.clone());
        }
        lock(&self.unanswered).remove(topic);
        let mut answers = lock(&self.answers);
        if answers.len() >= MAX_CACHED_ANSWERS {
            answers.clear();
        }
        answers.insert(
            schema_ref.clone(),
            CachedAnswer { prefix: prefix.clone(), at: Instant::now() },
        );
        Ok(prefix)
    }

    #[cfg(feature = "schema-registry")]
    async fn ask(&self, schema_ref: &SchemaRef) -> Result<Bytes> {
        match &self.client {
            Some(client) => client.prefix(schema_ref).await,
            None => Err(Error::new(ErrorKind::Config, NOT_SET)),
        }
    }

    #[cfg(not(feature = "schema-registry"))]
    async fn ask(&self, _: &SchemaRef) -> Result<Bytes> {
        Err(Error::new(ErrorKind::Config, SchemaRegistryConfig::NOT_BUILT))
    }
}

#[cfg(feature = "schema-registry")]
const NOT_SET: &str = "the format needs schema_registry.url";

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
