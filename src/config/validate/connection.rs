//! Validates the settings of connections to brokers: TLS, logins, batches and time limits.

use super::{Check, humantime, missing, positive, quoted, text, wrong};
use crate::{
    config::{
        KafkaConfig, TlsVerification,
        kafka::OAUTHBEARER,
        properties::{self, with_properties},
        secret::REDACTED,
        size::size_text,
    },
    kafka::Compression,
};

/// SASL mechanisms of factlib's own client.
pub(crate) const SASL_MECHANISMS: &[&str] =
    &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTHBEARER];

/// Minimum of `kafka.batch_bytes`; a batch has 61 bytes beside its records.
const MIN_BATCH_BYTES: u64 = 1024;

pub(super) fn check(kafka: &KafkaConfig) -> Check {
    properties::check(kafka)?;
    let kafka = &with_properties(kafka);
    check_login(kafka)?;
    check_tls(kafka)?;
    check_compression(kafka)?;
    let batch = kafka.batch_bytes;
    if batch.as_u64() < MIN_BATCH_BYTES {
        return wrong("kafka.batch_bytes", size_text(batch), "must be at least 1KiB");
    }
    positive("kafka.connect_timeout", kafka.connect_timeout)?;
    positive("kafka.request_timeout", kafka.request_timeout)?;
    positive("kafka.retry_backoff", kafka.retry_backoff)?;
    if kafka.retry_backoff_max < kafka.retry_backoff {
        let least = humantime(kafka.retry_backoff);
        let problem = format!("must not be below kafka.retry_backoff = {least}");
        return wrong("kafka.retry_backoff_max", humantime(kafka.retry_backoff_max), problem);
    }
    positive("kafka.metadata_max_age", kafka.metadata_max_age)
}

fn check_login(kafka: &KafkaConfig) -> Check {
    if !SASL_MECHANISMS.contains(&kafka.sasl_mechanism.as_str()) {
        let problem = format!("expected one of {}", SASL_MECHANISMS.join(", "));
        return wrong("kafka.sasl_mechanism", quoted(&kafka.sasl_mechanism), problem);
    }
    if kafka.has_token_login() {
        return check_oauth(kafka);
    }
    let is_set = [
        ("kafka.oauth_token_url", kafka.oauth_token_url.is_some()),
        ("kafka.oauth_client_id", kafka.oauth_client_id.is_some()),
        ("kafka.oauth_client_secret", kafka.oauth_client_secret.is_some()),
        ("kafka.oauth_scope", kafka.oauth_scope.is_some()),
        ("kafka.oauth_tls_ca", kafka.oauth_tls_ca.is_some()),
        ("kafka.oauth_extensions", !kafka.oauth_extensions.is_empty()),
    ];
    if let Some((setting, _)) = is_set.into_iter().find(|(_, is_set)| *is_set) {
        return wrong(setting, "given", "has no effect unless kafka.sasl_mechanism is OAUTHBEARER");
    }
    match (&kafka.username, &kafka.password) {
        (Some(username), _) if username.is_empty() => wrong(
            "kafka.username",
            "\"\"",
            "must not be empty; leave it out to connect without SASL",
        ),
        (Some(_), None) => missing("kafka.password", "kafka.username needs it"),
        (None, Some(_)) => missing("kafka.username", "kafka.password needs it"),
        _ => Ok(()),
    }
}

fn check_oauth(kafka: &KafkaConfig) -> Check {
    let mechanism = quoted(&kafka.sasl_mechanism);
    #[cfg(not(feature = "oauth"))]
    return wrong("kafka.sasl_mechanism", mechanism, crate::kafka::LoginSettings::NO_OAUTH);
    #[cfg(feature = "oauth")]
    {
        let _ = mechanism;
        if kafka.username.is_some() {
            return wrong("kafka.username", "given", "is not used with OAUTHBEARER");
        }
        if kafka.password.is_some() {
            return wrong("kafka.password", REDACTED, "is not used with OAUTHBEARER");
        }
        let needs = "kafka.sasl_mechanism = \"OAUTHBEARER\" needs it";
        let Some(url) = &kafka.oauth_token_url else {
            return missing("kafka.oauth_token_url", needs);
        };
        check_token_url(url)?;
        match &kafka.oauth_client_id {
            Some(id) => text("kafka.oauth_client_id", id)?,
            None => return missing("kafka.oauth_client_id", needs),
        }
        if kafka.oauth_client_secret.is_none() {
            return missing("kafka.oauth_client_secret", needs);
        }
        if let (Some(path), true) = (&kafka.oauth_tls_ca, url.starts_with("http:")) {
            let problem = "has no effect without an https address in kafka.oauth_token_url";
            return wrong("kafka.oauth_tls_ca", quoted(&path.to_string_lossy()), problem);
        }
        let mut extensions = kafka.oauth_extensions.iter();
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic());
        let valid = |text: &str| {
            crate::config::kafka::pair(text)
                .is_some_and(|(name, _)| is_name(&name) && name != "auth")
        };
        match extensions.find(|text| !valid(text)) {
            Some(text) => {
                let problem = "expected name=value, with letters only in the name";
                wrong("kafka.oauth_extensions", quoted(text), problem)
            }
            None => Ok(()),
        }
    }
}

#[cfg(feature = "oauth")]
fn check_token_url(url: &str) -> Check {
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
    match rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) {
        None => wrong("kafka.oauth_token_url", quoted(url), "expected http(s)://host/path"),
        // It may be a password, which is not shown.
        Some(rest) if rest.contains('@') => {
            let problem =
                "has credentials; use kafka.oauth_client_id and kafka.oauth_client_secret";
            wrong("kafka.oauth_token_url", "an address", problem)
        }
        Some(_) => Ok(()),
    }
}

fn check_tls(kafka: &KafkaConfig) -> Check {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| quoted(&path.to_string_lossy()))
    };
    let verification = kafka.tls_verification;
    let verification = quoted(&format!("{verification:?}").to_lowercase());
    let is_default = kafka.tls_verification == TlsVerification::Full;
    let of_tls = [
        ("kafka.tls_ca", path(&kafka.tls_ca)),
        ("kafka.tls_certificate", path(&kafka.tls_certificate)),
        ("kafka.tls_key", path(&kafka.tls_key)),
        ("kafka.tls_key_password", kafka.tls_key_password.as_ref().map(|_| REDACTED.to_owned())),
        ("kafka.tls_server_name", kafka.tls_server_name.as_deref().map(quoted)),
        ("kafka.tls_verification", (!is_default).then_some(verification)),
    ];
    if !kafka.tls {
        let mut given = of_tls.into_iter().filter_map(|(name, value)| Some((name, value?)));
        return match given.next() {
            Some((name, value)) => wrong(name, value, "has no effect while kafka.tls is false"),
            None => Ok(()),
        };
    }
    match (&kafka.tls_certificate, &kafka.tls_key) {
        (Some(_), None) => return missing("kafka.tls_key", "kafka.tls_certificate needs it"),
        (None, Some(_)) => return missing("kafka.tls_certificate", "kafka.tls_key needs it"),
        (None, None) if kafka.tls_key_password.is_some() => {
            return missing("kafka.tls_key", "kafka.tls_key_password is that of a key");
        }
        _ => {}
    }
    match &kafka.tls_server_name {
        Some(name) => text("kafka.tls_server_name", name),
        None => Ok(()),
    }
}

fn check_compression(kafka: &KafkaConfig) -> Check {
    let Some(level) = kafka.compression_level else { return Ok(()) };
    let (levels, problem) = match kafka.compression {
        Compression::Gzip => (1..=9, "gzip has the levels 1 to 9"),
        Compression::Zstd => (1..=22, "zstd has the levels 1 to 22"),
        Compression::None | Compression::Snappy | Compression::Lz4 => {
            let problem = "has no effect: only gzip and zstd in kafka.compression have levels";
            return wrong("kafka.compression_level", level, problem);
        }
    };
    if !levels.contains(&level) {
        return wrong("kafka.compression_level", level, problem);
    }
    Ok(())
}
