//! The keywords that a connection string may use, and the values that some are limited to.

use std::str::FromStr;

use super::{connection_string::Parameters, service_file};
use crate::{Error, ErrorKind, Result};

/// Keywords we act on, each with the variable that libpq reads its default from.
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

/// Keywords of libpq that may only say what we do anyway.
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

/// Keywords with their values, from the string, then its service, then the environment.
pub(super) struct Settings<'a> {
    given: Parameters,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Settings<'a> {
    /// Refuses a keyword that is unknown or has no effect here.
    pub fn new(given: Parameters, env: &'a dyn Fn(&str) -> Option<String>) -> Result<Self> {
        check(&given)?;
        let mut settings = Settings { given, env };
        if let Some(service) = settings.text("service") {
            let mut all = service_file::parameters(&service, settings.text("servicefile"), env)?;
            check(&all).map_err(|error| {
                let what = format!("service {service} of PostgreSQL's connection service file");
                Error::new(ErrorKind::Config, what).caused_by(error)
            })?;
            // What the string itself says counts more.
            all.append(&mut settings.given);
            settings.given = all;
        }
        Ok(settings)
    }

    /// The value of `keyword`, unless it is empty.
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

    /// The value of `keyword` as a number.
    pub fn number<T: FromStr>(&self, keyword: &str) -> Result<Option<T>> {
        let number = |text: String| {
            text.trim().parse().map_err(|_| invalid(keyword, "must be a whole number, 0 or more"))
        };
        self.text(keyword).map(number).transpose()
    }

    /// The value of `keyword` as one of those that it is limited to.
    pub fn choice<T: Choice>(&self, keyword: &str) -> Result<T> {
        let Some(text) = self.text(keyword) else { return Ok(T::default()) };
        T::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
            invalid(keyword, &format!("must be one of {}", names.join(", ")))
        })
    }
}

fn check(given: &Parameters) -> Result<()> {
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
                // It may be the end of a password with a space in it.
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

/// An error that names a keyword and never its value.
pub(super) fn invalid(keyword: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{keyword} of the PostgreSQL connection string {why}"))
}

/// A keyword's values by name.
pub(super) trait Choice: Copy + Default + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// How much TLS protects: libpq's table, from weak to strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    /// No TLS.
    Disable,
    /// TLS only where the server insists.
    Allow,
    /// TLS where the server has it.
    #[default]
    Prefer,
    /// TLS; verified like verify-ca where a root certificate exists.
    Require,
    /// TLS, with a certificate of an authority that we trust.
    VerifyCa,
    /// The same, made out to the host that we asked for.
    VerifyFull,
}

impl Choice for SslMode {
    const ALL: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SslNegotiation {
    /// The client asks in PostgreSQL's protocol first.
    #[default]
    Postgres,
    /// At once, from PostgreSQL 17 on.
    Direct,
}

impl Choice for SslNegotiation {
    const ALL: &'static [(&'static str, Self)] =
        &[("postgres", Self::Postgres), ("direct", Self::Direct)];
}

/// Whether SCRAM binds the login to the TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

impl Choice for ChannelBinding {
    const ALL: &'static [(&'static str, Self)] =
        &[("disable", Self::Disable), ("prefer", Self::Prefer), ("require", Self::Require)];
}

/// Order in which hosts and their addresses are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LoadBalanceHosts {
    /// The order in which they are listed.
    #[default]
    Disable,
    Random,
}

impl Choice for LoadBalanceHosts {
    const ALL: &'static [(&'static str, Self)] =
        &[("disable", Self::Disable), ("random", Self::Random)];
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TlsVersion {
    Tls1,
    Tls1_1,
    /// libpq's own minimum.
    #[default]
    Tls1_2,
    Tls1_3,
}

impl Choice for TlsVersion {
    const ALL: &'static [(&'static str, Self)] = &[
        ("TLSv1", Self::Tls1),
        ("TLSv1.1", Self::Tls1_1),
        ("TLSv1.2", Self::Tls1_2),
        ("TLSv1.3", Self::Tls1_3),
    ];
}

/// Which of several servers will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TargetSessionAttrs {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Choice for TargetSessionAttrs {
    const ALL: &'static [(&'static str, Self)] = &[
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];
}

impl TargetSessionAttrs {
    /// What to look for, round after round.
    pub fn rounds(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// The query whose answer decides, and the answer it must give.
    pub fn test(self) -> Option<(&'static str, &'static str)> {
        const READ_ONLY: &str = "SHOW transaction_read_only";
        // A cast: a replication connection prints booleans its own way.
        const IN_RECOVERY: &str =
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END";
        match self {
            Self::Any => None,
            Self::ReadWrite => Some((READ_ONLY, "off")),
            Self::ReadOnly => Some((READ_ONLY, "on")),
            Self::Primary => Some((IN_RECOVERY, "off")),
            Self::Standby | Self::PreferStandby => Some((IN_RECOVERY, "on")),
        }
    }
}
