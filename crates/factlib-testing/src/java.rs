//! Finds Java on this machine.

use std::{env, path::PathBuf};

use crate::{Error, ErrorKind, Result};

/// Finds the `java` of `JAVA_HOME` or the `PATH`.
pub(crate) fn program() -> Result<PathBuf> {
    let at_home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut programs =
        at_home.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join("java"));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        Error::new(ErrorKind::Setup, "no java in JAVA_HOME or the PATH").remedy(
            "install Java 17 or later (Debian: apt-get install default-jre-headless), or set JAVA_HOME; \
             in factlib's repository run: make bootstrap",
        )
    })
}
