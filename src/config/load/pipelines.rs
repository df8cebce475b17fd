//! Loads the pipelines of a fleet: a folder with one file for each, over the settings that all share.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use super::{Given, Loaded, Loader};
use crate::{
    Error, ErrorKind, Result,
    config::{environment, explain::unreadable, file, reference::find},
};

/// Sections of the process, which no pipeline has for itself.
const SHARED_SECTIONS: [&str; 3] = ["fleet.", "http.", "log."];

impl Loader {
    /// Lists the pipelines of a folder by name. A pipeline's number changes when one of the files
    /// does that its configuration is read from.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the folder can't be read.
    pub fn pipelines(&self, folder: &Path) -> Result<BTreeMap<String, u64>> {
        let folder = self.folder.join(folder);
        let unreadable = |error| unreadable(&folder, error);
        let dotenv = self.folder.join(".env");
        let shared = [self.config_file(&environment::dotenv(&dotenv)?), Some(dotenv)];
        let shared = shared.into_iter().flatten().map(|path| std::fs::read(path).ok());
        let shared: Vec<_> = shared.collect();
        let mut pipelines = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // The hidden entries of a folder that Kubernetes mounts are not files of ours.
            let Some(name) = name.strip_suffix(".toml").filter(|name| !name.starts_with('.'))
            else {
                continue;
            };
            let mut hasher = DefaultHasher::new();
            (&shared, std::fs::read(&path).ok()).hash(&mut hasher);
            pipelines.insert(name.to_owned(), hasher.finish());
        }
        Ok(pipelines)
    }

    /// Loads a pipeline of a folder.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the first mistake, in one line.
    pub fn load_pipeline(&self, folder: &Path, name: &str) -> Result<Loaded> {
        let path = self.folder.join(folder).join(format!("{name}.toml"));
        self.clone().pipeline(name, &path)?.load()
    }

    /// Adds a pipeline's file, which overrides everything else.
    fn pipeline(mut self, name: &str, path: &PathBuf) -> Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
        if !name.chars().all(legal) {
            let failure = format!("{name:?} does not name a pipeline");
            let remedy = "use lower-case letters, digits, '_', '-' and '.'";
            return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
        }
        if let Some((setting, _)) = find("postgres.slot") {
            let slot = format!("factlib_{}", name.replace(['-', '.'], "_"));
            let source = format!("default of pipeline {name}");
            self.pipeline.push(Given::text(setting, None, &slot, source));
        }
        for given in file::read(path)? {
            let setting = given.setting.name;
            if SHARED_SECTIONS.iter().any(|section| setting.starts_with(section)) {
                let failure =
                    format!("{setting} in {} is not a setting of one pipeline", given.source);
                let remedy = "set it in the file of the process";
                return Err(Error::new(ErrorKind::Config, failure).remedy(remedy));
            }
            self.pipeline.push(given.within(path));
        }
        Ok(self)
    }
}
