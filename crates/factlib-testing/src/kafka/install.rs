//! Finds Java and Kafka's jars on this machine, and runs Kafka's programs.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    Error, ErrorKind, Result,
    cache::cache_folder,
    java,
    process::{GuardedChild, ServerHome},
};

/// A version of Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    #[default]
    Present,
    /// The last version before 4.0.
    Old,
    /// The last version before 3.0, with a ZooKeeper.
    Oldest,
}

impl Version {
    /// Returns its number, and the variable that names the folder of its jars.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Version::Present => ("4.1.0", "FACTLIB_KAFKA_LIBS"),
            Version::Old => ("3.9.1", "FACTLIB_OLD_KAFKA_LIBS"),
            Version::Oldest => ("2.8.2", "FACTLIB_OLDEST_KAFKA_LIBS"),
        }
    }
}

/// Options for brokers that hold megabytes and live for seconds: they start fast and stay small.
const JVM: &[&str] = &[
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
];

/// Java with Kafka's jars.
#[derive(Debug)]
pub(super) struct Java {
    program: PathBuf,
    classpath: OsString,
    options: Vec<String>,
}

/// Finds the jars in the folder of the version's variable or in the cache, and Java.
///
/// `options` replace the default options of the JVM.
pub(super) fn find(version: Version, options: Option<Vec<String>>) -> Result<Java> {
    let (number, variable) = version.names();
    let libs = env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| cache_folder().join(format!("kafka-{number}/libs")));
    if !has_kafka(&libs) {
        return Err(missing(&libs, number, variable));
    }
    let program = java::program()?;
    let options = options.unwrap_or_else(|| JVM.iter().map(ToString::to_string).collect());
    Ok(Java { program, classpath: libs.join("*").into_os_string(), options })
}

fn has_kafka(libs: &Path) -> bool {
    let jars = std::fs::read_dir(libs).into_iter().flatten().flatten();
    jars.map(|jar| jar.file_name()).any(|name| name.to_string_lossy().starts_with("kafka_2.13-"))
}

fn missing(libs: &Path, number: &str, variable: &str) -> Error {
    Error::new(ErrorKind::Setup, format!("no Kafka jars in {}", libs.display())).remedy(format!(
        "unpack https://archive.apache.org/dist/kafka/{number}/kafka_2.13-{number}.tgz and set \
         {variable} to its folder libs; in factlib's repository run: make bootstrap"
    ))
}

impl Java {
    /// Starts a class of Kafka with these arguments.
    pub(super) fn spawn(
        &self,
        home: &ServerHome,
        name: &str,
        class_and_args: &[&str],
    ) -> Result<GuardedChild> {
        let mut args: Vec<OsString> = self.options.iter().map(OsString::from).collect();
        args.push("-Dlog4j2.configurationFile=log4j2.properties".into());
        args.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        args.extend(["-cp".into(), self.classpath.clone()]);
        args.extend(class_and_args.iter().map(OsString::from));
        home.spawn(name, &self.program, args, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_jars_the_error_says_where_to_get_them() {
        let (number, variable) = Version::Old.names();
        let error = missing(Path::new("/opt/kafka/libs"), number, variable);
        assert!(error.to_string().starts_with("no Kafka jars in /opt/kafka/libs (unpack https://"));
        let advice = error.advice().unwrap();
        assert!(advice.contains("/3.9.1/kafka_2.13-3.9.1.tgz") && advice.contains(variable));
    }
}
