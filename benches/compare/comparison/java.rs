//! Finds a Java of at least some version: Debezium Server needs a newer one than the broker.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::Result;

/// Java's program, and its version as it prints it.
#[derive(Clone, Debug)]
pub struct Java {
    pub program: PathBuf,
    pub version: String,
}

/// Finds the first suitable one of `JAVA_HOME`, the `PATH` and Debian's folder of Javas.
pub fn find(least: u32) -> Result<Java> {
    let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let folders = home
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(installed.map(|entry| entry.path().join("bin")));
    folders
        .map(|folder| folder.join("java"))
        .filter(|program| program.is_file())
        .find_map(|program| {
            let version = version(&program)?;
            (major(&version)? >= least).then_some(Java { program, version })
        })
        .ok_or_else(|| format!("it needs Java {least} or later: set JAVA_HOME to one").into())
}

/// Takes `25.0.3` out of `openjdk version "25.0.3" 2026-04-21 LTS`.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.split('"').nth(1)?.to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
