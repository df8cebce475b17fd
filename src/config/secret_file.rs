//! Secrets in files of their own, as Kubernetes and Docker mount them, and files that others
//! can read.

use std::{fs, path::Path};

use factlib_postgres::ConnectInfo;
use figment::value::Value;

use super::reference::{Setting, find};
use crate::{Error, ErrorKind, Result};

/// Behind the name of a secret, for the file that holds it.
const SUFFIX: &str = "_file";

/// The secret whose file that name sets: `kafka.password_file`, and of the properties
/// `kafka.properties.ssl.key.password_file`.
pub(crate) fn find_of_file(name: &str) -> Option<(&'static Setting, Option<&str>)> {
    let (setting, key) = find(name.strip_suffix(SUFFIX)?)?;
    setting.is_secret(key).then_some((setting, key))
}

/// What the file holds, but for an end of line at its end. `by` says who named it.
pub(crate) fn read(path: &str, name: &str, by: &str) -> Result<Value> {
    let failed = || {
        let what = format!("cannot read {path}, the file of {name} that {by} names");
        Error::new(ErrorKind::Config, what)
    };
    let text = fs::read_to_string(path).map_err(|error| failed().caused_by(error))?;
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.trim_end_matches('\r'));
    match text.is_empty() {
        true => Err(failed().caused_by("it is empty")),
        false => Ok(text.into()),
    }
}

/// Whether that value has to be kept from others: a connection string may be without password.
pub(crate) fn is_sensitive(setting: &Setting, key: Option<&str>, value: &Value) -> bool {
    match value.as_str() {
        Some(url) if setting.name == "postgres.url" => ConnectInfo::holds_secret(url),
        _ => setting.is_secret(key),
    }
}

/// Every user of this machine can read it.
#[cfg(unix)]
pub(crate) fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
pub(crate) fn is_open(_: &Path) -> bool {
    false
}
