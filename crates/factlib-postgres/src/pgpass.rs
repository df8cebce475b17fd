//! Finds passwords in libpq's password file (`~/.pgpass`), which has `host:port:database:user:password`
//! on each line.
//!
//! The file is read at each connection, so a rotated password is found without a restart.

use std::{fs, path::Path};

use secrecy::SecretString;

use crate::{Notice, Observer};

/// Fields of a login that a line has to match.
pub(super) struct PassfileKey<'a> {
    /// Host name; `localhost` for a Unix socket.
    pub host: &'a str,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// Returns the password of the first line that matches; none if the file does not exist.
pub(super) fn password(
    path: &Path,
    key: &PassfileKey<'_>,
    observer: &dyn Observer,
) -> Option<SecretString> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    if is_open_to_others(&metadata) {
        observer.notice(&Notice::PasswordFileIgnored { path });
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| matching_password(line, key)).map(SecretString::from)
}

#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

fn matching_password(line: &str, key: &PassfileKey<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let port = key.port.to_string();
    let mut rest = line;
    for wanted in [key.host, &port, key.dbname, key.user] {
        let (field, after) = take_field(rest);
        if field != wanted && !(field == "*" && rest.starts_with('*')) {
            return None;
        }
        rest = after?;
    }
    let (password, _) = take_field(rest);
    (!password.is_empty()).then_some(password)
}

/// Returns the field up to the next colon, unescaped, and the text after that colon, if there is one.
fn take_field(text: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next() {
            Some(':') => return (field, Some(chars.as_str())),
            Some('\\') => field.extend(chars.next()),
            Some(c) => field.push(c),
            None => return (field, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PassfileKey<'_> =
        PassfileKey { host: "::1", port: 5432, dbname: "shop", user: "relay" };

    #[test]
    fn a_line_matches_by_value_or_star() {
        for (line, password) in [
            (r"\:\:1:5432:shop:relay:pw", Some("pw")),
            ("*:*:*:*:pw", Some("pw")),
            (r"*:*:*:relay:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:other:pw", None),
            ("*:5433:*:*:pw", None),
            (r"\*:*:*:*:pw", None),
            ("#*:*:*:*:pw", None),
            ("*:*:*:*:", None),
            ("*:*", None),
            ("", None),
        ] {
            assert_eq!(matching_password(line, &KEY).as_deref(), password, "{line}");
        }
    }
}
