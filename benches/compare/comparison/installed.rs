//! Finds other relays in the cache, which `scripts/bootstrap --compare` fills.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::support::Result;

/// Class path of Debezium Server, and its version.
pub fn debezium_server() -> Result<(String, String)> {
    let jars = cached("debezium-server-")?.join("debezium-server");
    let version = version_of("debezium-server-kafka-", &jars.join("lib"))?;
    let runner = jars.join(format!("debezium-server-dist-{version}-runner.jar"));
    Ok((format!("{}:{}/lib/*", runner.display(), jars.display()), version))
}

/// Class path of Kafka Connect with Debezium's connector, and the versions of both.
pub fn kafka_connect() -> Result<(String, String)> {
    let libs = cached("debezium-connect-")?.join("libs");
    let debezium = version_of("debezium-connector-postgres-", &libs)?;
    let version = format!("{}, connector {debezium}", version_of("connect-runtime-", &libs)?);
    Ok((format!("{}/*", libs.display()), version))
}

/// Finds the newest folder in the cache whose name begins so.
fn cached(prefix: &str) -> Result<PathBuf> {
    let cache = env::var_os("FACTLIB_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache/factlib"));
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named
        .map(|entry| entry.path())
        .max()
        .ok_or_else(|| "it is not installed: scripts/bootstrap --compare".into())
}

/// Takes the version out of the name of a jar.
pub fn version_of(jar: &str, libs: &Path) -> Result<String> {
    let entries = fs::read_dir(libs)?.flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let version = names.find_map(|name| {
        let version = name.strip_prefix(jar)?.strip_suffix(".jar")?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    });
    version.ok_or_else(|| format!("no {jar}*.jar in its folder").into())
}
