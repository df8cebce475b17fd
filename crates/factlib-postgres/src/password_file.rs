//! Reads the password from a file of the user's choice, at each connection: a rotated password is
//! found without a restart.

use std::{
    fs,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::connection_string;

/// A file that contains a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFile {
    /// The file contains the password and nothing else.
    Whole(PathBuf),
    /// The file contains a connection string.
    Url(PathBuf),
}

impl PasswordFile {
    /// Reads the password; none if the file can't be read or has none.
    pub fn read(&self) -> Option<SecretString> {
        let text = fs::read_to_string(self.path()).ok()?;
        let text = text.strip_suffix('\n').map_or(&*text, |text| text.trim_end_matches('\r'));
        let password = match self {
            PasswordFile::Whole(_) => text.to_owned(),
            PasswordFile::Url(_) => {
                let parameters = connection_string::parse(text).ok()?;
                parameters.into_iter().rev().find(|(keyword, _)| keyword == "password")?.1
            }
        };
        (!password.is_empty()).then(|| password.into())
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        match self {
            PasswordFile::Whole(path) | PasswordFile::Url(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_password_is_read_as_it_is_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let password = |file: fn(PathBuf) -> PasswordFile| {
            file(path.clone()).read().map(|password| password.expose_secret().to_owned())
        };
        assert_eq!(password(PasswordFile::Whole), None);
        for (text, whole, url) in [
            ("one\r\n", Some("one"), None),
            ("host=a password=two", Some("host=a password=two"), Some("two")),
            ("postgresql://u:three@h/d\n", Some("postgresql://u:three@h/d"), Some("three")),
            ("\n", None, None),
        ] {
            fs::write(&path, text).expect("written");
            assert_eq!(password(PasswordFile::Whole).as_deref(), whole);
            assert_eq!(password(PasswordFile::Url).as_deref(), url);
        }
    }
}
