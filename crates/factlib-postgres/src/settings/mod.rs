//! The keywords of connection strings: which are supported, and lookup of their values.

mod choices;

use std::str::FromStr;

pub(super) use self::choices::{
    ChannelBinding, Choice, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
    TlsVersion,
};
use super::{connection_string::Parameters, service_file};
use crate::{Error, ErrorKind, Result};

/// Supported keywords, each with the environment variable of its default, as in libpq.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("require_auth", "PGREQUIREAUTH"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("fallback_application_name", ""),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslpassword", ""),
    ("sslsni", "PGSSLSNI"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

/// Keywords of libpq that are accepted only with the values that describe our behaviour anyway.
const FIXED: &[(&str, &[&str])] = &[
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
];

/// Keywords of libpq that are not supported. The list is in docs/configuration.md too.
const UNSUPPORTED: &[&str] = &[
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "sslkeylogfile",
    "tty",
];

/// The values of keywords: from the string, then its service, then the environment.
pub(super) struct Settings<'a> {
    given: Parameters,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Settings<'a> {
    /// Refuses a keyword that is unknown or has no effect here.
    pub fn new(given: Parameters, env: &'a dyn Fn(&str) -> Option<String>) -> Result<Self> {
        check_keywords(&given)?;
        let mut settings = Settings { given, env };
        if let Some(service) = settings.text("service") {
            let mut all = service_file::parameters(&service, settings.text("servicefile"), env)?;
            check_keywords(&all).map_err(|error| {
                let message = format!("service {service} of PostgreSQL's connection service file");
                Error::new(ErrorKind::Config, message).caused_by(error)
            })?;
            // The string takes precedence over the service.
            all.append(&mut settings.given);
            settings.given = all;
        }
        Ok(settings)
    }

    /// Returns the value of `keyword`, unless it is empty.
    pub fn text(&self, keyword: &str) -> Option<String> {
        let given = self.given.iter().rev().find(|(given, _)| given == keyword);
        let from_env = || {
            let (_, variable) = KEYWORDS.iter().find(|(known, _)| *known == keyword)?;
            (!variable.is_empty()).then(|| (self.env)(variable)).flatten()
        };
        given
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
            .or_else(from_env)
            .filter(|value| !value.is_empty())
    }

    /// Returns the value of `keyword` as a number.
    pub fn number<T: FromStr>(&self, keyword: &str) -> Result<Option<T>> {
        let number = |text: String| {
            text.trim().parse().map_err(|_| invalid(keyword, "must be a whole number, 0 or more"))
        };
        self.text(keyword).map(number).transpose()
    }

    /// Returns the value of `keyword`, one of a fixed set.
    pub fn choice<T: Choice>(&self, keyword: &str) -> Result<T> {
        let Some(text) = self.text(keyword) else { return Ok(T::default()) };
        T::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
            invalid(keyword, &format!("must be one of {}", names.join(", ")))
        })
    }
}

fn check_keywords(given: &Parameters) -> Result<()> {
    let mut after_secret = false;
    for (keyword, value) in given {
        if let Some((_, allowed)) = FIXED.iter().find(|(fixed, _)| fixed == keyword) {
            if !allowed.contains(&value.as_str()) {
                return Err(invalid(keyword, &format!("must be one of {}", allowed.join(", "))));
            }
        } else if keyword == "replication" {
            return Err(invalid(keyword, "is set where it is needed").with_remedy("leave it out"));
        } else if UNSUPPORTED.contains(&keyword.as_str()) {
            return Err(invalid(keyword, "is not supported")
                .with_remedy("leave it out: docs/configuration.md lists what is taken"));
        } else if !KEYWORDS.iter().any(|(known, _)| known == keyword) {
            let known: Vec<_> = KEYWORDS.iter().map(|(known, _)| *known).collect();
            let error = match after_secret {
                // The keyword may be the end of a password with a space in it.
                true => Error::new(
                    ErrorKind::Config,
                    "what follows the password of the PostgreSQL connection string is unknown: \
                     a password with a space or a & in it is quoted, or %-encoded in a URL",
                ),
                false => invalid(keyword, "is unknown or not supported"),
            };
            return Err(error.with_remedy(format!("supported are {}", known.join(", "))));
        }
        after_secret = matches!(keyword.as_str(), "password" | "sslpassword");
    }
    Ok(())
}

/// Returns an error that names a keyword, but not its value.
pub(super) fn invalid(keyword: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{keyword} of the PostgreSQL connection string {reason}"))
}
