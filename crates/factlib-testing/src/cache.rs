//! The folder of downloaded servers.

use std::{env, path::PathBuf};

/// Returns `FACTLIB_CACHE`, or `~/.cache/factlib`: `scripts/bootstrap` of factlib's repository
/// downloads servers into it.
pub(crate) fn cache_folder() -> PathBuf {
    if let Some(folder) = env::var_os("FACTLIB_CACHE") {
        return folder.into();
    }
    env::home_dir().unwrap_or_default().join(".cache/factlib")
}
