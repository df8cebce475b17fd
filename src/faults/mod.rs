//! Places where a test makes a running pipeline panic or wait.
//!
//! Crash safety is decided between two steps; these name the steps. A pipeline
//! in production has no hook, and reaching a site costs one comparison a batch.
//!
//! With the feature `faults`, which no shipped build has, the environment variable `FACTLIB_FAULT`
//! puts faults into the real binary: `site:action:n`, several separated by commas.
//! `site` is a [`FaultSite`] in snake case; `action` is `abort` (the process, as
//! by SIGKILL), `panic` (the actor) or `hang` (its thread, for ever); it is taken
//! the `n`-th time that the site is reached, or with `n+` from then on.
//! `FACTLIB_FAULT=after_save:abort:17` aborts between the seventeenth position
//! that is saved and its confirmation. Without the variable there is no hook.

use std::{fmt, sync::Arc};

#[cfg(feature = "faults")]
mod script;

/// Where the faults of a process are written.
#[cfg(feature = "faults")]
pub(crate) const VARIABLE: &str = "FACTLIB_FAULT";

/// A step of the pipeline that a fault can be put at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultSite {
    /// The reader has cut a batch and not handed it on.
    WalReader,
    /// The decoder has got a batch.
    Decoder,
    /// The router has got a batch of events.
    Router,
    /// A topic's producer has got its part.
    TopicProducer,
    /// The checkpointer has learnt that a batch is done.
    Checkpointer,
    /// Kafka has acknowledged a part, the router does not know yet.
    AfterProduce,
    /// A position is safe and about to be saved.
    BeforeSave,
    /// A position is saved and about to be confirmed.
    AfterSave,
    /// All events of a Kafka transaction are with Kafka, its position is not.
    BeforePosition,
    /// The position is, too, and the transaction is about to be committed.
    BeforeCommit,
    /// A Kafka transaction is committed, nobody else knows yet.
    AfterCommit,
    /// Draining has begun.
    Draining,
}

/// What a test does at the sites; nothing by default.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<dyn Fn(FaultSite) + Send + Sync>>);

impl Faults {
    /// Calls `hook` at every site, on the actor's own thread. It may panic.
    #[cfg(feature = "faults")]
    pub fn hook(hook: impl Fn(FaultSite) + Send + Sync + 'static) -> Self {
        Faults(Some(Arc::new(hook)))
    }

    /// The pipeline has come to `site`.
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
