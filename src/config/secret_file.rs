//! Reads secrets from files of their own, as Kubernetes and Docker mount them, and finds files that
//! every user can read.

use std::{fs, path::Path};

use factlib_postgres::ConnectInfo;
use figment::value::Value;

use super::reference::{Setting, find};
use crate::{Error, ErrorKind, Result, kafka::secret::without_line_end};

/// Suffix that turns a secret's name into the setting of its file.
const SUFFIX: &str = "_file";

/// Finds the secret whose file a name sets, such as `kafka.password_file` or
/// `kafka.properties.ssl.key.password_file`.
pub(crate) fn find_of_file(name: &str) -> Option<(&'static Setting, Option<&str>)> {
    let (setting, key) = find(name.strip_suffix(SUFFIX)?)?;
    setting.is_secret(key).then_some((setting, key))
}

/// Reads the file of the secret `name` without its final newline; `source` is what names the file.
pub(crate) fn read(path: &str, name: &str, source: &str) -> Result<Value> {
    let failed = || {
        let failure = format!("cannot read {path}, the file of {name} that {source} names");
        Error::new(ErrorKind::Config, failure)
    };
    let text = fs::read_to_string(path).map_err(|error| failed().caused_by(error))?;
    match without_line_end(&text) {
        "" => Err(failed().caused_by("it is empty")),
        text => Ok(text.into()),
    }
}

/// True if the value is a secret; a connection string is one only if it has a password.
pub(crate) fn is_sensitive(setting: &Setting, key: Option<&str>, value: &Value) -> bool {
    match value.as_str() {
        Some(url) if matches!(setting.name, "postgres.url" | "postgres.primary_url") => {
            ConnectInfo::holds_secret(url)
        }
        _ => setting.is_secret(key),
    }
}

/// True if every user of this machine can read the file.
#[cfg(unix)]
pub(crate) fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
pub(crate) fn is_open(_: &Path) -> bool {
    false
}
