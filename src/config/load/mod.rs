//! Loads a configuration from its sources; later ones override earlier ones:
//!
//! 1. defaults,
//! 2. a TOML file: `--config`, or `FACTLIB_CONFIG`, or `factlib.toml` in the
//!    working folder if it exists,
//! 3. the file `.env` in the working folder,
//! 4. the environment,
//! 5. flags,
//! 6. for a pipeline of a fleet, its own file.
//!
//! In 3 and 4, `FACTLIB_SECTION__KEY` overrides the Go worker's name of the same setting, and an
//! empty variable counts as not set.
//!
//! Each value is its own layer in figment, so that its source is known. A mistake is reported in
//! one line: the setting, its source, what is allowed.

mod pipelines;
mod values;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

pub use self::pipelines::is_pipeline;
use self::values::{Values, sourced};
use super::{
    Config, environment,
    explain::unknown,
    file,
    reference::{Setting, find},
    secret_file::{self, find_of_file, is_open, is_sensitive},
};
use crate::Result;

/// Collects the sources of a configuration; reads nothing before [`load`](Self::load).
#[derive(Clone, Default)]
#[must_use = "nothing is read until `load`"]
pub struct Loader {
    folder: PathBuf,
    file: Option<PathBuf>,
    /// The text of the configuration file, which is not read then.
    text: Option<String>,
    env: BTreeMap<String, String>,
    flags: Vec<Flag>,
    /// Values of one pipeline of a fleet.
    pipeline: Vec<Given>,
}

/// A flag of the command line.
#[derive(Clone)]
struct Flag {
    name: String,
    setting: String,
    value: String,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables and flags may be secrets.
        let Loader { folder, file, text: _, env: _, flags: _, pipeline: _ } = self;
        f.debug_struct("Loader").field("folder", folder).field("file", file).finish_non_exhaustive()
    }
}

/// A configuration with the source of each value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The configuration, validated.
    pub config: Config,
    /// Every setting with its source; secrets are redacted.
    pub values: Vec<Sourced>,
    /// Source of each `[[route]]`.
    pub routes: Vec<String>,
    /// Files with secrets or private keys that every user of this machine can read.
    pub exposed: Vec<PathBuf>,
}

impl Loaded {
    /// Returns true if no source sets anything.
    pub fn is_default(&self) -> bool {
        self.routes.is_empty() && self.values.iter().all(|value| value.source == "default")
    }
}

/// A value with its source.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sourced {
    /// Name of the setting, `section.key`; a name within a table is quoted.
    pub name: String,
    /// The value; `null` if it is not set.
    pub value: serde_json::Value,
    /// Source, such as `factlib.toml line 3`, `environment variable KAFKA_BROKERS` or `default`.
    pub source: String,
}

/// A value from one source.
#[derive(Clone)]
pub(crate) struct Given {
    pub setting: &'static Setting,
    /// Name within a table.
    pub key: Option<String>,
    pub value: Value,
    pub source: String,
    /// For an array of tables, the location of everything in it, by path.
    pub locations: BTreeMap<String, String>,
    /// File that contains this value, if it is a secret.
    pub file: Option<PathBuf>,
    /// File that contains only this value.
    pub own_file: Option<PathBuf>,
}

impl Loader {
    /// A loader that reads only the files in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Loader { folder: folder.into(), ..Loader::default() }
    }

    /// A loader for this process's working folder and environment.
    ///
    /// # Errors
    /// A variable that sets something is not UTF-8.
    pub fn process() -> Result<Self> {
        Ok(Loader::new("").env(environment::process()?))
    }

    /// Sets the configuration file, which must exist.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Sets the text of a configuration file that does not exist; messages name it by this path.
    pub fn text(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        (self.file, self.text) = (Some(path.into()), Some(text.into()));
        self
    }

    /// Adds environment variables.
    pub fn env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(variables);
        self
    }

    /// Adds a flag: its name for messages, the setting, the value.
    pub fn flag(
        mut self,
        name: impl Into<String>,
        setting: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        let (name, setting, value) = (name.into(), setting.into(), value.into());
        self.flags.push(Flag { name, setting, value });
        self
    }

    /// Reads all sources and validates the result.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the first mistake, in one line.
    pub fn load(&self) -> Result<Loaded> {
        let dotenv = environment::dotenv(&self.folder.join(".env"))?;
        let mut given = Vec::new();
        if let Some(path) = self.config_file(&dotenv) {
            let of_file = match &self.text {
                Some(text) => file::parse(&path, text)?,
                None => file::read(&path)?,
            };
            given.extend(of_file.into_iter().map(|given| given.within(&path)));
        }
        let path = self.folder.join(".env");
        let of_dotenv = environment::read(&dotenv, &format!(" in {}", path.display()))?;
        given.extend(of_dotenv.into_iter().map(|given| given.within(&path)));
        given.extend(environment::read(&self.env, "")?);
        for flag in &self.flags {
            given.push(flag.given()?);
        }
        given.extend(self.pipeline.iter().cloned());
        let mut exposed: Vec<_> = given.iter().filter_map(|given| given.file.clone()).collect();
        let own_files: Vec<_> = given.iter().filter_map(Given::with_own_file).collect();
        let values = Values::new(given);
        let mut config = values.config()?;
        // Files to read again at each connection, if the value in effect came from one.
        let file_of = |name: &str| {
            let source = values.source(name)?;
            let mut files = own_files.iter().filter(|(setting, ..)| setting == name);
            files.find(|(_, given, _)| *given == source).map(|(.., path)| path.clone())
        };
        config.postgres.password_file = file_of("postgres.password");
        config.postgres.url_file = file_of("postgres.url");
        config.kafka.password_file = file_of("kafka.password");
        config.kafka.tls_key_password_file = file_of("kafka.tls_key_password");
        config.kafka.oauth_client_secret_file = file_of("kafka.oauth_client_secret");
        let of_property =
            |name: &String| Some((name.clone(), file_of(&format!("kafka.properties.{name}"))?));
        config.kafka.property_files =
            config.kafka.properties.keys().filter_map(of_property).collect();
        config.check().map_err(|mistake| {
            let source = values.source(&mistake.setting);
            mistake.error(source.as_deref())
        })?;
        let routes = 0..config.route.len();
        let routes = routes.map(|index| values.source(&format!("route[{index}]")));
        let routes = routes.map(Option::unwrap_or_default).collect();
        let values = sourced(&values, &config)?;
        exposed.extend(key_files(&config));
        exposed.sort();
        exposed.dedup();
        exposed.retain(|path| is_open(path));
        Ok(Loaded { config, values, routes, exposed })
    }

    fn config_file(&self, dotenv: &BTreeMap<String, String>) -> Option<PathBuf> {
        let named = || {
            let name = environment::CONFIG_FILE;
            let path = self.env.get(name).or_else(|| dotenv.get(name))?;
            (!path.is_empty()).then(|| self.folder.join(path))
        };
        let found = || Some(self.folder.join("factlib.toml")).filter(|path| path.exists());
        self.file.clone().or_else(named).or_else(found)
    }
}

impl Flag {
    fn given(&self) -> Result<Given> {
        let Flag { name, setting, value } = self;
        let source = format!("flag {name}");
        if let Some((setting, key)) = find_of_file(setting) {
            return Given::secret(setting, key.map(Into::into), value, source);
        }
        let Some((setting, key)) = find(setting) else { return Err(unknown(setting, &source)) };
        Ok(Given::text(setting, key.map(Into::into), value, source))
    }
}

impl Given {
    /// A value given as text.
    pub fn text(
        setting: &'static Setting,
        key: Option<String>,
        text: &str,
        source: String,
    ) -> Self {
        let value = if key.is_some() { text.into() } else { setting.kind.read(text) };
        let locations = BTreeMap::new();
        Given { setting, key, value, source, locations, file: None, own_file: None }
    }

    /// A secret read from its own file.
    pub fn secret(
        setting: &'static Setting,
        key: Option<String>,
        path: &str,
        source: String,
    ) -> Result<Self> {
        let suffix = key.as_ref().map(|key| format!(".{key}")).unwrap_or_default();
        let value = secret_file::read(path, &format!("{}{suffix}", setting.name), &source)?;
        let source = format!("file {path}, named by {source}");
        let file = is_sensitive(setting, key.as_deref(), &value).then(|| path.into());
        let (locations, own_file) = (BTreeMap::new(), Some(path.into()));
        Ok(Given { setting, key, value, source, locations, file, own_file })
    }

    /// The setting, source and file of a value that has its own file.
    fn with_own_file(&self) -> Option<(String, String, PathBuf)> {
        let suffix = self.key.as_ref().map(|key| format!(".{key}")).unwrap_or_default();
        let name = format!("{}{suffix}", self.setting.name);
        Some((name, self.source.clone(), self.own_file.clone()?))
    }

    /// Notes that a secret is in this file, unless it has its own.
    fn within(mut self, path: &Path) -> Self {
        if self.file.is_none() && is_sensitive(self.setting, self.key.as_deref(), &self.value) {
            self.file = Some(path.to_owned());
        }
        self
    }
}

/// The private key files that the configuration names.
fn key_files(config: &Config) -> Vec<PathBuf> {
    let names = ["ssl.key.location", "ssl.keystore.location"];
    let of_kafka = names.iter().filter_map(|name| config.kafka.properties.get(*name));
    let of_kafka = of_kafka.map(PathBuf::from).chain(config.kafka.tls_key.clone());
    let of_postgres = config.postgres.connect_info().ok();
    let of_postgres = of_postgres.and_then(|info| info.key_file().map(Path::to_owned));
    of_kafka.chain(of_postgres).collect()
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let path = self.setting.name.split('.').chain(self.key.as_deref());
        let nest = |value, name: &str| Value::from(Dict::from([(name.to_owned(), value)]));
        let value = path.rev().fold(self.value.clone(), nest);
        Ok(Map::from([(Profile::Default, value.into_dict().unwrap_or_default())]))
    }
}
