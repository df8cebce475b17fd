//! A password, key or token of the settings, read again from its file for each connection.

use std::{fs, io, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// A secret, and the file that it came from, if it came from one.
#[derive(Clone)]
pub(crate) struct Secret {
    value: SecretString,
    file: Option<PathBuf>,
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.value.expose_secret() == other.value.expose_secret()
    }
}

impl Secret {
    pub fn new(value: SecretString, file: Option<PathBuf>) -> Self {
        Secret { value, file }
    }

    /// The present value: reads the file, if there is one.
    ///
    /// # Errors
    /// The file can't be read, or is empty.
    pub fn read(&self) -> io::Result<String> {
        let Some(path) = &self.file else { return Ok(self.value.expose_secret().to_owned()) };
        let failed = |why: &dyn std::fmt::Display| {
            io::Error::other(format!("cannot read {}: {why}", path.display()))
        };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        match without_line_end(&text) {
            "" => Err(failed(&"it is empty")),
            text => Ok(text.to_owned()),
        }
    }
}

/// The text of a secret's file without its final line end.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.trim_end_matches('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_file_is_read_each_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let secret = Secret::new("old".to_owned().into(), Some(path.clone()));
        for (text, read) in [("new\n", "new"), ("new er\r\n", "new er"), ("last", "last")] {
            fs::write(&path, text).expect("a file");
            assert_eq!(secret.read().expect("a secret"), read);
        }
        fs::write(&path, "\n").expect("a file");
        let error = secret.read().expect_err("nothing is in it").to_string();
        assert!(error.ends_with("password: it is empty"), "{error}");
        fs::remove_file(&path).expect("removed");
        let error = secret.read().expect_err("it is gone").to_string();
        assert!(error.starts_with("cannot read /"), "{error}");
        let fixed = Secret::new("old".to_owned().into(), None);
        assert_eq!(fixed.read().expect("a secret"), "old");
    }
}
