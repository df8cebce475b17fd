//! The pipelines that run in this process, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slog::o;
use tokio::sync::watch;

use super::{
    MakePipeline,
    keeper::{Keeper, Surroundings},
};
use crate::ops::Members;

#[derive(Clone)]
pub(super) struct Keepers {
    keepers: Arc<Mutex<BTreeMap<String, Keeper>>>,
    around: Surroundings,
}

impl Keepers {
    pub fn new(around: Surroundings) -> Self {
        Keepers { keepers: Arc::default(), around }
    }

    /// Starts a pipeline, once the one of this name has stopped in order, if there is one. The future
    /// ends when it runs, or waits for nothing but its slot. `shared`: as [`Surroundings`] has it.
    pub fn start(
        &self,
        name: String,
        make: MakePipeline,
        shared: Option<watch::Receiver<bool>>,
    ) -> impl Future<Output = ()> + use<> {
        let mut keepers = self.lock();
        let log = self.around.log.new(o!("pipeline" => name.clone()));
        let around = Surroundings { shared, log, ..self.around.clone() };
        let keeper = Keeper::start(make, keepers.remove(&name), around);
        let ready = keeper.ready();
        keepers.insert(name, keeper);
        ready
    }

    /// Takes a pipeline out of the list, which does not stop it; dropped, it is stopped in order.
    pub fn take(&self, name: &str) -> Option<Keeper> {
        self.lock().remove(name)
    }

    /// Takes all pipelines out of the list.
    pub fn take_all(&self) -> BTreeMap<String, Keeper> {
        std::mem::take(&mut *self.lock())
    }

    /// The list, as the servers show it.
    pub fn members(&self) -> Arc<Members> {
        let keepers = self.clone();
        Arc::new(move || keepers.lock().iter().map(|(name, one)| one.member(name)).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
