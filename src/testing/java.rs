//! Where this machine has Java.

use std::{env, path::PathBuf};

use crate::{Error, ErrorKind, Result};

/// The `java` of `JAVA_HOME` or the `PATH`.
pub(super) fn program() -> Result<PathBuf> {
    let at_home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut programs =
        at_home.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join("java"));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        Error::new(ErrorKind::Config, "no java in JAVA_HOME or the PATH")
            .remedy("run: make bootstrap; or install Java 17 or newer")
    })
}
