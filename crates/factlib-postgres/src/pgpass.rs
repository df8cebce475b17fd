//! libpq's password file: `host:port:database:user:password` a line.
//!
//! Read at each connection, so that a rotated password is found without a restart.

use std::{fs, path::Path};

use secrecy::SecretString;

use crate::{Notice, Observer};

/// What a line is held against.
pub(super) struct Login<'a> {
    /// The host name; `localhost` stands for a Unix socket's directory.
    pub host: &'a str,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// The password of the first line of the file that matches; none where there is no file.
pub(super) fn password(
    path: &Path,
    login: &Login<'_>,
    observer: &dyn Observer,
) -> Option<SecretString> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    if is_open_to_others(&metadata) {
        observer.notice(&Notice::PasswordFileIgnored { path });
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| matching_password(line, login)).map(SecretString::from)
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

fn matching_password(line: &str, login: &Login<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let port = login.port.to_string();
    let mut rest = line;
    for wanted in [login.host, &port, login.dbname, login.user] {
        let (field, after) = take_field(rest);
        if field != wanted && !(field == "*" && rest.starts_with('*')) {
            return None;
        }
        rest = after?;
    }
    let (password, _) = take_field(rest);
    (!password.is_empty()).then_some(password)
}

/// The field up to the next colon, unescaped; what follows that colon, if there is one.
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

    const LOGIN: Login<'_> = Login { host: "::1", port: 5432, dbname: "shop", user: "relay" };

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
            assert_eq!(matching_password(line, &LOGIN).as_deref(), password, "{line}");
        }
    }
}
