//! Takes the password out of a connection string, so that the rest may be shown and stored.

use secrecy::SecretString;

use crate::{ConnectInfo, Error, ErrorKind, Result, connection_string};

impl ConnectInfo {
    /// Splits a connection string into one without its password, and the password.
    ///
    /// # Errors
    /// The string is malformed, or has the password of a TLS key (`sslpassword`).
    pub fn without_password(text: &str) -> Result<(String, Option<SecretString>)> {
        let parameters = connection_string::parse(text)?;
        let named = |name: &str| parameters.iter().rev().find(|(keyword, _)| keyword == name);
        let Some((_, password)) = named("password") else {
            return Ok((refuse_secrets(text)?, None));
        };
        let rest = match text.trim().split_once("://") {
            Some((scheme, rest)) => url_without_password(scheme, rest),
            None => parameters
                .iter()
                .filter(|(keyword, _)| keyword != "password")
                .map(|(keyword, value)| format!("{keyword}={}", quoted(value)))
                .collect::<Vec<_>>()
                .join(" "),
        };
        Ok((refuse_secrets(&rest)?, Some(SecretString::from(password.clone()))))
    }
}

/// Refuses a string with a secret that is left.
fn refuse_secrets(text: &str) -> Result<String> {
    if ConnectInfo::holds_secret(text) {
        let failure = "the PostgreSQL connection string has a secret beside the password";
        return Err(Error::new(ErrorKind::Config, failure));
    }
    Ok(text.trim().to_owned())
}

fn url_without_password(scheme: &str, rest: &str) -> String {
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, rest) = match authority.split_once('@') {
        Some((user, _)) => (user, rest.get(user.len() + 1..).unwrap_or_default()),
        None => ("", rest),
    };
    let user = user.split(':').next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parameters: Vec<_> =
        query.split('&').filter(|pair| !pair.starts_with("password=")).collect();
    let parameters = parameters.join("&");
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{user}{at}{place}{mark}{parameters}")
}

/// Writes a value of a pair as libpq reads it.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:,@%".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn split(text: &str) -> (String, Option<String>) {
        let (rest, password) = ConnectInfo::without_password(text).unwrap();
        (rest, password.map(|password| password.expose_secret().to_owned()))
    }

    #[test]
    fn a_password_is_taken_out_wherever_it_is() {
        for (text, rest, password) in [
            (
                "postgresql://relay:s3%40cret@db:5432/shop",
                "postgresql://relay@db:5432/shop",
                "s3@cret",
            ),
            ("postgres://:pw@db", "postgres://db", "pw"),
            (
                "postgresql://db/shop?password=pw&sslmode=require",
                "postgresql://db/shop?sslmode=require",
                "pw",
            ),
            ("postgresql://db/shop?password=pw", "postgresql://db/shop", "pw"),
            ("postgresql://u:a@db/shop?password=b", "postgresql://u@db/shop", "b"),
            ("host=db password='p w' dbname='my shop'", "host=db dbname='my shop'", "p w"),
        ] {
            assert_eq!(split(text), (rest.into(), Some(password.into())), "{text}");
        }
    }

    #[test]
    fn a_string_without_a_password_stays_as_it_is() {
        for text in ["postgresql://relay@db/shop?sslmode=require", "host=db user=relay"] {
            assert_eq!(split(text), (text.into(), None));
        }
    }

    #[test]
    fn another_secret_is_refused() {
        for text in [
            "host=db sslpassword=x",
            "postgresql://u:p@db?sslpassword=x",
            "postgresql://db?p%61ssword=x",
        ] {
            assert!(ConnectInfo::without_password(text).is_err(), "{text}");
        }
    }
}
