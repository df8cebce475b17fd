//! Injects faults into a running pipeline at named steps, for tests.
//!
//! Crash safety is decided between two steps; a [`FaultSite`] names each such point. A pipeline in
//! production has no hook, and reaching a site costs one comparison per batch.
//!
//! With the feature `faults`, which no shipped build has, the environment variable `FACTLIB_FAULT`
//! puts faults into the real binary: `site:action:n`, several separated by commas. `site` is a
//! [`FaultSite`] in snake case; `action` is `abort` (the process, as by SIGKILL), `panic` (the
//! actor) or `hang` (its thread, for ever). The action runs the `n`-th time that the site is
//! reached; `n+` means that time and every later one. `FACTLIB_FAULT=after_save:abort:17` aborts
//! after the seventeenth position is saved and before it is confirmed. Without the variable there
//! is no hook.

use std::{fmt, sync::Arc};

#[cfg(feature = "faults")]
mod script;

/// Environment variable that lists the faults of a process.
#[cfg(feature = "faults")]
pub(crate) const VARIABLE: &str = "FACTLIB_FAULT";

/// A step of the pipeline where a fault can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultSite {
    /// The reader has cut a batch and not sent it yet.
    WalReader,
    /// The decoder has received a batch.
    Decoder,
    /// The router has received a batch of events.
    Router,
    /// A topic's producer has received its part.
    TopicProducer,
    /// The checkpointer has been told that a batch is done.
    Checkpointer,
    /// Kafka has acknowledged a part, and the router does not know yet.
    AfterProduce,
    /// A position is about to be saved.
    BeforeSave,
    /// A position is saved and about to be confirmed to PostgreSQL.
    AfterSave,
    /// The events of a Kafka transaction are sent, its position is not.
    BeforePosition,
    /// Events and position of a Kafka transaction are sent, and it is about to be committed.
    BeforeCommit,
    /// A Kafka transaction is committed, and no other actor knows yet.
    AfterCommit,
    /// Draining has begun.
    Draining,
}

/// A test's hook for all sites; does nothing by default.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<dyn Fn(FaultSite) + Send + Sync>>);

impl Faults {
    /// Calls `hook` at every site, on the actor's own thread; the hook may panic.
    #[cfg(feature = "faults")]
    pub fn hook(hook: impl Fn(FaultSite) + Send + Sync + 'static) -> Self {
        Faults(Some(Arc::new(hook)))
    }

    /// Calls the hook for `site`, if there is one.
    pub(crate) fn reach(&self, site: FaultSite) {
        if let Some(hook) = &self.0 {
            hook(site);
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(hook)" } else { "Faults(none)" })
    }
}
