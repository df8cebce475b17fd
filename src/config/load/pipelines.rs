//! Loads the pipelines of a fleet: from a folder with a file for each and from the names of databases,
//! over the settings that all share.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use super::{Given, Loaded, Loader};
use crate::{
    Error, ErrorKind, Result,
    config::{FleetConfig, environment, explain::unreadable, file, reference::find},
};

/// Sections of the process, which no pipeline has for itself.
const SHARED_SECTIONS: [&str; 3] = ["fleet.", "http.", "log."];

impl Loader {
    /// Lists the pipelines by name: those of the folder and those of these databases. A pipeline's
    /// number changes when one of the files does that its configuration is read from.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the folder can't be read.
    pub fn pipelines(
        &self,
        fleet: &FleetConfig,
        databases: &[String],
    ) -> Result<BTreeMap<String, u64>> {
        let dotenv = self.folder.join(".env");
        let shared = [self.config_file(&environment::dotenv(&dotenv)?), Some(dotenv)];
        let shared = shared.into_iter().flatten().map(|path| std::fs::read(path).ok());
        let shared: Vec<_> = shared.collect();
        let number = |text: Option<Vec<u8>>| {
            let mut hasher = DefaultHasher::new();
            (&shared, text).hash(&mut hasher);
            hasher.finish()
        };
        let databases = databases.iter().filter(|name| is_pipeline(name));
        let mut pipelines: BTreeMap<_, _> =
            databases.map(|name| (name.clone(), number(None))).collect();
        let Some(folder) = &fleet.pipelines else { return Ok(pipelines) };
        let folder = self.folder.join(folder);
        let unreadable = |error| unreadable(&folder, error);
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // The hidden entries of a folder that Kubernetes mounts are not files of ours.
            if let Some(name) = name.strip_suffix(".toml").filter(|name| !name.starts_with('.')) {
                pipelines.insert(name.to_owned(), number(std::fs::read(&path).ok()));
            }
        }
        Ok(pipelines)
    }

    /// Loads a pipeline of the folder or of a database.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the first mistake, in one line.
    pub fn load_pipeline(&self, fleet: &FleetConfig, name: &str) -> Result<Loaded> {
        if !is_pipeline(name) {
            let failure = format!("{name:?} does not name a pipeline");
            let remedy = "use lower-case letters, digits, '_', '-' and '.'";
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
        }
        let path = fleet.pipelines.as_ref().map(|folder| self.folder.join(folder));
        let path = path.map(|folder| folder.join(format!("{name}.toml")));
        let path = path.filter(|path| path.exists() || !fleet.has_database(name));
        let mut loader = self.clone();
        let slot = format!("factlib_{}", name.replace(['-', '.'], "_"));
        loader.default_of_pipeline(name, "postgres.slot", &slot);
        let own = path.as_deref().map(own_settings).transpose()?.unwrap_or_default();
        if fleet.has_database(name) && own.iter().all(|own| own.setting.name != "postgres.url") {
            loader.default_of_pipeline(name, "postgres.database", name);
        }
        loader.pipeline.extend(own);
        loader.load()
    }

    fn default_of_pipeline(&mut self, name: &str, setting: &str, value: &str) {
        if let Some((setting, _)) = find(setting) {
            let source = format!("default of pipeline {name}");
            self.pipeline.push(Given::text(setting, None, value, source));
        }
    }
}

/// Reads the file of a pipeline.
fn own_settings(path: &Path) -> Result<Vec<Given>> {
    let own = file::read(path)?;
    for given in &own {
        let setting = given.setting.name;
        if SHARED_SECTIONS.iter().any(|section| setting.starts_with(section)) {
            let failure = format!("{setting} in {} is not a setting of one pipeline", given.source);
            let remedy = "set it in the file of the process";
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
        }
    }
    Ok(own.into_iter().map(|given| given.within(path)).collect())
}

/// True for a text that can name a pipeline, as it is part of the slot's name.
pub fn is_pipeline(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    name.chars().all(legal)
}
