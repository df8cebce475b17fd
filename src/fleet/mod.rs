//! Runs several pipelines in one process, on a pool of threads with one thread for each core.
//!
//! Each pipeline has its own slot and its own configuration. One that ends with an error does not
//! affect the others; it is started again after `fleet.retry_after`.
//!
//! | file | idea |
//! | --- | --- |
//! | `databases` | lists the databases that have a pipeline |
//! | `group` | shares the pipelines with other instances |
//! | `handle` | the handle of a running fleet: adds, replaces and removes pipelines |
//! | `keeper` | one pipeline: starts it, and starts it again when it fails |
//! | `keepers` | the pipelines that run in this process |
//! | `report` | the answer of `factlib fleet status` |

#[cfg(feature = "cli")]
mod databases;
mod group;
mod handle;
mod keeper;
mod keepers;
#[cfg(feature = "cli")]
mod report;

use std::{collections::BTreeMap, fmt, sync::Arc};

use actix_rt::System;
use slog::Logger;

pub use self::handle::FleetHandle;
#[cfg(feature = "cli")]
pub use self::{
    databases::databases,
    report::{FleetReport, InstanceReport, PipelineReport, report},
};
use crate::{
    Error, ErrorKind, PipelineBuilder, Result,
    config::{Config, FleetConfig, HttpConfig, KafkaConfig},
    logging,
    threads::ThreadPool,
};

/// Makes a pipeline each time that it is started.
type MakePipeline = Arc<dyn Fn() -> Result<PipelineBuilder> + Send + Sync>;

/// Several pipelines in one process.
///
/// ```no_run
/// # async fn example() -> factlib::Result<()> {
/// use factlib::{Fleet, Pipeline, config::Config};
///
/// let mut fleet = Fleet::builder();
/// for tenant in ["acme", "globex"] {
///     fleet = fleet.pipeline(tenant, move || {
///         let mut config = Config::default();
///         config.postgres.url = format!("postgresql://relay@db/{tenant}").into();
///         config.postgres.slot = format!("factlib_{tenant}");
///         Ok(Pipeline::builder().config(config))
///     });
/// }
/// let fleet = fleet.start()?;
/// // … until your application ends:
/// fleet.shutdown().await
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Fleet;

impl Fleet {
    /// Starts building a fleet; without pipelines, it begins empty.
    pub fn builder() -> FleetBuilder {
        FleetBuilder {
            http: HttpConfig::default(),
            config: FleetConfig::default(),
            kafka: KafkaConfig::default(),
            log: logging::default_logger(),
            pipelines: BTreeMap::new(),
        }
    }
}

/// Collects the pipelines of a [`Fleet`].
#[must_use = "a builder does nothing until `start`"]
pub struct FleetBuilder {
    http: HttpConfig,
    config: FleetConfig,
    kafka: KafkaConfig,
    log: Logger,
    pipelines: BTreeMap<String, MakePipeline>,
}

impl FleetBuilder {
    /// Sets the sections `[fleet]` and `[http]`, and with `fleet.group` the `[kafka]` of the group. The
    /// folder `fleet.pipelines` is not read.
    pub fn config(mut self, config: &Config) -> Self {
        self.http = config.http.clone();
        self.config = config.fleet.clone();
        self.kafka = config.kafka.clone();
        self
    }

    /// Sets the logger of the fleet and its pipelines, whose lines get the value `pipeline`.
    pub fn logger(mut self, log: Logger) -> Self {
        self.log = log;
        self
    }

    /// Adds a pipeline. `make` makes it each time that it is started; its ports and its logger are
    /// those of the fleet.
    pub fn pipeline(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> Result<PipelineBuilder> + Send + Sync + 'static,
    ) -> Self {
        self.pipelines.insert(name.into(), Arc::new(make));
        self
    }

    /// Starts the fleet and returns at once: the pipelines start in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a port is not available, there is no actix `System`, or the group can't be
    /// joined with these settings.
    pub fn start(self) -> Result<FleetHandle> {
        if System::try_current().is_none() {
            let failure = "a fleet starts inside an actix System, and this thread has none";
            let remedy = "begin the program with #[actix_rt::main]";
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
        }
        let FleetBuilder { http, config, kafka, log, pipelines } = self;
        let kafka = kafka.settings();
        let handle = FleetHandle::new(&http, &config, &kafka, ThreadPool::start(), log)?;
        for (name, make) in pipelines {
            handle.put(name, make);
        }
        Ok(handle)
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.pipelines.keys().collect();
        f.debug_struct("FleetBuilder").field("pipelines", &names).finish_non_exhaustive()
    }
}
