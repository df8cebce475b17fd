//! Stores a slot's checkpoint in a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{Checkpoint, CheckpointStore};
use crate::{Error, ErrorKind, Result};

/// Stores one slot's checkpoint in a file, as JSON.
///
/// A save writes a new file beside it, syncs that, renames it over the old one and syncs the folder.
/// After a crash, the file has the old position or the new one.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// Creates a store at `path`, whose folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FileStore { path: path.into() }
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("{what} checkpoint file {}", self.path.display()))
    }

    fn invalid(&self) -> Error {
        self.error(ErrorKind::CheckpointInvalid, "cannot use").remedy(
            "put a good copy back, or remove it so that the slot's own position counts: \
             what was delivered since that was confirmed is then sent again",
        )
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path.clone();
        let result = tokio::task::spawn_blocking(move || work(&path)).await;
        let unavailable = || self.error(ErrorKind::CheckpointUnavailable, what);
        result
            .map_err(|error| unavailable().caused_by(error))?
            .map_err(|error| unavailable().caused_by(error))
    }
}

#[async_trait]
impl CheckpointStore for FileStore {
    async fn load(&self, slot: &str) -> Result<Option<Checkpoint>> {
        let read = |path: &Path| match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        };
        let Some(bytes) = self.blocking("cannot read", read).await? else { return Ok(None) };
        let checkpoint: Checkpoint =
            serde_json::from_slice(&bytes).map_err(|error| self.invalid().caused_by(error))?;
        if checkpoint.slot != slot {
            let other = format!("it belongs to slot {}, not to {slot}", checkpoint.slot);
            return Err(self.invalid().caused_by(other));
        }
        Ok(Some(checkpoint))
    }

    async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let text = serde_json::to_vec(checkpoint).map_err(|error| {
            self.error(ErrorKind::CheckpointInvalid, "cannot write").caused_by(error)
        })?;
        self.blocking("cannot write", move |path| replace(path, &text)).await
    }

    async fn remove(&self, _: &str) -> Result<()> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(()) => sync_folder(path),
            failed => failed,
        };
        self.blocking("cannot remove", remove).await
    }

    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

/// Syncs the folder, without which a rename may not survive a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;

    fn checkpoint(lsn: u64) -> Checkpoint {
        Checkpoint { slot: "s".into(), system_id: u64::MAX, timeline: 1, lsn: Lsn::new(lsn) }
    }

    #[tokio::test]
    async fn a_load_returns_the_last_save() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::new(folder.path().join("position"));
        assert_eq!(store.load("s").await.expect("no file yet"), None);
        store.save(&checkpoint(1)).await.expect("saved");
        store.save(&checkpoint(2)).await.expect("saved");
        assert_eq!(store.load("s").await.expect("a good file"), Some(checkpoint(2)));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        store.remove("s").await.expect("removed");
        assert_eq!(store.load("s").await.expect("no file any more"), None);
    }

    #[tokio::test]
    async fn a_corrupt_or_foreign_file_is_refused_with_its_path_and_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("position");
        let store = FileStore::new(&path);
        store.save(&checkpoint(1)).await.expect("saved");
        let foreign = store.load("other").await.unwrap_err();
        fs::write(&path, b"{\"slot\":\"s\",\"sys").expect("written");
        let corrupt = store.load("s").await.unwrap_err();
        for error in [foreign, corrupt] {
            assert_eq!(error.kind(), ErrorKind::CheckpointInvalid);
            assert!(error.to_string().contains("position") && error.advice().is_some(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_missing_folder_is_a_transient_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FileStore::new(folder.path().join("no/position"));
        let error = store.save(&checkpoint(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CheckpointUnavailable);
    }
}
