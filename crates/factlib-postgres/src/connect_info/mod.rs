//! Where PostgreSQL is and how to log in: libpq's parameters, checked.
//!
//! Keywords, defaults and environment variables are libpq's
//! (`libpq-connect.html`, `libpq-envars.html`). What is not supported, such as
//! GSSAPI, is refused and not ignored: a connection must not be weaker than its
//! string says.

mod host;
mod tls_settings;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

use secrecy::SecretString;

pub(super) use self::{
    host::Host,
    tls_settings::{RootCert, TlsSettings},
};
use super::password_file::PasswordFile;
use super::{
    connection_string,
    passfile::{self, Login},
    require_auth::RequireAuth,
    settings::{ChannelBinding, LoadBalanceHosts, Settings, TargetSessionAttrs, invalid},
    silent_hosts::SilentHosts,
};
use crate::{Observer, Result, observer::NoObserver};

/// Where PostgreSQL is and how to log in.
///
/// Made from a connection string as libpq takes it, a URL or `keyword=value`
/// pairs; what it leaves out comes from `PGHOST`, `PGUSER` and the like.
#[derive(Clone)]
pub struct ConnectInfo {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) dbname: String,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) require_auth: RequireAuth,
    /// The most that one address may take; the caller's own limit holds beside it.
    pub(super) connect_timeout: Option<Duration>,
    application_name: Option<String>,
    /// Holds where the connection string and the environment have none.
    default_application_name: String,
    pub(super) options: Option<String>,
    pub(super) keepalives: Keepalives,
    pub(super) target: TargetSessionAttrs,
    pub(super) load_balance: LoadBalanceHosts,
    /// Shared with clones.
    pub(super) silent: SilentHosts,
    /// What was warned of already, by this value or a clone.
    pub(super) warned: Arc<AtomicU8>,
    password: Option<SecretString>,
    /// A file from which the password is read, in place of `password`.
    password_file: Option<PasswordFile>,
    passfile: Option<PathBuf>,
    /// The passfile was named, and so has to be there.
    passfile_is_named: bool,
    observer: Arc<dyn Observer>,
}

/// TCP keepalive.
///
/// Systems wait two hours by default; a relay wants to know of a dead peer within
/// two minutes, so that is our default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalives {
    pub enabled: bool,
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
    pub user_timeout: Option<Duration>,
}

impl ConnectInfo {
    /// Parses a connection string; no error repeats a secret.
    pub fn parse(text: &str) -> Result<Self> {
        Self::with_environment(text, &|name| env::var(name).ok())
    }

    fn with_environment(text: &str, env: Environment<'_>) -> Result<Self> {
        let settings = Settings::new(connection_string::parse(text)?, env)?;
        let user = match settings.text("user") {
            Some(user) => user,
            None => whoami::username().map_err(|error| {
                invalid("user", "is needed: the system's has no name").caused_by(error)
            })?,
        };
        let seconds = |keyword| {
            Ok::<_, crate::Error>(
                settings
                    .number::<u64>(keyword)?
                    .filter(|seconds| *seconds > 0)
                    .map(Duration::from_secs),
            )
        };
        Ok(ConnectInfo {
            hosts: host::hosts(&settings)?,
            dbname: settings.text("dbname").unwrap_or_else(|| user.clone()),
            user,
            tls: tls_settings::tls(&settings, env)?,
            channel_binding: settings.choice("channel_binding")?,
            require_auth: RequireAuth::read(&settings)?,
            connect_timeout: seconds("connect_timeout")?,
            application_name: settings
                .text("application_name")
                .or_else(|| settings.text("fallback_application_name")),
            default_application_name: "factlib-postgres".into(),
            options: settings.text("options"),
            keepalives: Keepalives {
                enabled: settings.number::<i32>("keepalives")? != Some(0),
                idle: seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(60)),
                interval: seconds("keepalives_interval")?.unwrap_or(Duration::from_secs(10)),
                count: settings.number("keepalives_count")?.filter(|count| *count > 0).unwrap_or(6),
                user_timeout: settings
                    .number("tcp_user_timeout")?
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis),
            },
            target: settings.choice("target_session_attrs")?,
            load_balance: settings.choice("load_balance_hosts")?,
            silent: SilentHosts::default(),
            warned: Arc::default(),
            password: settings.text("password").map(SecretString::from),
            password_file: None,
            observer: Arc::new(NoObserver),
            passfile_is_named: settings.text("passfile").is_some(),
            passfile: settings
                .text("passfile")
                .map(PathBuf::from)
                .or_else(|| Some(home(env)?.join(".pgpass"))),
        })
    }

    /// Sets the password, in place of the connection string's.
    pub fn with_password(self, password: SecretString) -> Self {
        ConnectInfo { password: Some(password), password_file: None, ..self }
    }

    /// Takes the password from this file, at each connection.
    pub fn with_password_from(self, file: PasswordFile) -> Self {
        ConnectInfo { password_file: Some(file), ..self }
    }

    /// The file that the password for a login is taken from, if it is one that somebody named.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        if let Some(file) = &self.password_file {
            return Some(file.path());
        }
        let named = self.password.is_none() && self.passfile_is_named;
        self.passfile.as_deref().filter(|_| named)
    }

    /// Sets the `application_name` that holds if the connection string and the environment have
    /// none.
    pub fn with_default_application_name(self, name: impl Into<String>) -> Self {
        ConnectInfo { default_application_name: name.into(), ..self }
    }

    /// Reports notices of connections to this observer.
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        ConnectInfo { observer, ..self }
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.observer)
    }

    /// The name under which the server shows this program.
    pub(super) fn application_name(&self) -> &str {
        self.application_name.as_deref().unwrap_or(&self.default_application_name)
    }

    /// A copy for this host alone, whether or not it is a primary.
    pub(super) fn only(&self, host: Host) -> Self {
        ConnectInfo { hosts: vec![host], target: TargetSessionAttrs::Any, ..self.clone() }
    }

    /// True if a connection string has a password in it, or may have.
    pub fn holds_secret(text: &str) -> bool {
        let parameters = connection_string::parse(text);
        parameters.map_or(true, |parameters| {
            parameters.iter().any(|(keyword, _)| matches!(&**keyword, "password" | "sslpassword"))
        })
    }

    /// The file of the key to the client certificate.
    pub fn key_file(&self) -> Option<&Path> {
        self.tls.key.as_deref()
    }

    /// The database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Hosts, ports and database, such as `db.example:5432/shop`; no secret.
    pub fn describe(&self) -> String {
        format!("{}/{}", self.describe_hosts(), self.dbname)
    }

    /// Hosts and ports, such as `db.example:5432`; no secret.
    pub fn describe_hosts(&self) -> String {
        self.hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",")
    }

    /// The password for `host`: the string's or the environment's, else the password file's.
    pub(super) fn password(&self, host: &Host) -> Option<SecretString> {
        let from_file = || {
            let path = self.passfile.as_deref()?;
            let address = host.hostaddr.map(|address| address.to_string());
            let login = Login {
                host: match &address {
                    _ if host.is_unix() => "localhost",
                    Some(address) if host.name.is_empty() => address,
                    _ => &host.name,
                },
                port: host.port,
                dbname: &self.dbname,
                user: &self.user,
            };
            passfile::password(path, &login, &*self.observer)
        };
        if let Some(file) = &self.password_file {
            // Where it is gone for a moment, the last one that is known may still do.
            return file.read().or_else(|| self.password.clone());
        }
        self.password.clone().or_else(from_file)
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("at", &self.describe())
            .field("user", &self.user)
            .field("sslmode", &self.tls.mode)
            .finish_non_exhaustive()
    }
}

/// The value of a variable.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn home(env: Environment<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::{ErrorKind, settings::SslMode};

    fn parse(text: &str) -> Result<ConnectInfo> {
        ConnectInfo::with_environment(text, &|_| None)
    }

    #[test]
    fn a_url_and_pairs_mean_the_same() {
        let url =
            parse("postgresql://relay:secret@db.example:5433/shop?sslmode=verify-full").unwrap();
        let pairs = parse(
            "host=db.example port=5433 user=relay password=secret dbname=shop sslmode=verify-full",
        )
        .unwrap();
        for info in [url, pairs] {
            assert_eq!(info.describe(), "db.example:5433/shop");
            assert_eq!((info.user(), info.dbname()), ("relay", "shop"));
            assert_eq!(info.tls.mode, Some(SslMode::VerifyFull));
            assert!(!format!("{info:?}").contains("secret"));
        }
    }

    #[test]
    fn hosts_and_ports_pair_up() {
        let describe = |text: &str| parse(text).map(|info| info.describe());
        assert_eq!(describe("postgresql://u@a:1,b:2/d").unwrap(), "a:1,b:2/d");
        assert_eq!(describe("host=a,b port=7 dbname=d").unwrap(), "a:7,b:7/d");
        assert_eq!(describe("host=a,b port=,7 dbname=d").unwrap(), "a:5432,b:7/d");
        assert_eq!(
            describe("host=a,b hostaddr=127.0.0.1,::1 dbname=d").unwrap(),
            "a:5432,b:5432/d"
        );
        assert_eq!(describe("hostaddr=::1 dbname=d").unwrap(), "::1:5432/d");
        assert_eq!(describe("postgresql://u@[::1]:7/d").unwrap(), "[::1]:7/d");
        assert_eq!(describe("postgresql://u@%2Frun%2Fpg/d").unwrap(), "/run/pg:5432/d");
        for (text, keyword, why) in [
            ("host=a,b,c port=1,2", "port", "lists 2 items for 3 hosts"),
            ("host=a,b hostaddr=::1", "hostaddr", "lists 1 items for 2 hosts"),
            ("host=a port=0", "port", "must be a number from 1 to 65535"),
            ("host=a port=x", "port", "must be a number from 1 to 65535"),
            ("hostaddr=a", "hostaddr", "must be an IPv4 or IPv6 address"),
            ("host=@a", "host", "in the abstract socket namespace is not supported"),
            ("host=a,b@c", "host", "has an @: write an @ in a password as %40"),
        ] {
            let error = describe(text).unwrap_err();
            let what = format!("{keyword} of the PostgreSQL connection string {why}");
            assert!(error.to_string().starts_with(&what), "{error}");
        }
    }

    #[test]
    fn the_environment_fills_in_what_is_left_out() {
        let env = |name: &str| {
            let value = match name {
                "PGHOST" => "env.example",
                "PGUSER" => "env",
                "PGPASSWORD" => "hush",
                "PGSSLMODE" => "require",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let info = ConnectInfo::with_environment("user=relay", &env).unwrap();
        assert_eq!(info.describe(), "env.example:5432/relay");
        assert_eq!(info.tls.mode, Some(SslMode::Require));
        let password = info.password(&info.hosts[0]).unwrap();
        assert_eq!(password.expose_secret(), "hush");
    }

    #[test]
    fn a_service_fills_in_what_the_string_leaves_out_before_the_environment_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services");
        std::fs::write(&path, "[shop]\nhost=db.example\nuser=relay\ndbname=shop\n").unwrap();
        let path = path.display().to_string();
        let env = |name: &str| match name {
            "PGSERVICE" => Some("shop".to_owned()),
            "PGSERVICEFILE" => Some(path.clone()),
            "PGUSER" | "PGPORT" => Some("7".to_owned()),
            _ => None,
        };
        let info = ConnectInfo::with_environment("dbname=other", &env).unwrap();
        assert_eq!((info.describe().as_str(), info.user()), ("db.example:7/other", "relay"));
        let info = parse(&format!("service=shop servicefile={path}")).unwrap();
        assert_eq!((info.describe().as_str(), info.user()), ("db.example:5432/shop", "relay"));
        std::fs::write(&path, "[shop]\ncolour=red\n").unwrap();
        let error = parse(&format!("service=shop servicefile={path}")).unwrap_err();
        let what = "service shop of PostgreSQL's connection service file: colour of the ";
        assert!(error.to_string().starts_with(what), "{error}");
    }

    #[test]
    fn what_may_be_the_end_of_a_password_is_not_repeated() {
        for text in ["password=a hunter2=b", "postgresql://u@h/d?password=a&hunter2=b"] {
            let error = parse(text).unwrap_err().to_string();
            let what = "what follows the password of the PostgreSQL connection string is unknown: \
                        a password with a space or a & in it is quoted, or %-encoded in a URL";
            assert!(error.starts_with(what) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_bad_value_is_named_and_a_secret_is_not() {
        for (text, expected) in [
            (
                "sslmode=on",
                "sslmode: must be one of disable, allow, prefer, require, verify-ca, verify-full",
            ),
            (
                "krbsrvname=pg",
                "krbsrvname: is not supported (leave it out: docs/configuration.md lists what is \
                 taken)",
            ),
            ("load_balance_hosts=yes", "load_balance_hosts: must be one of disable, random"),
            (
                "ssl_min_protocol_version=1.2",
                "ssl_min_protocol_version: must be one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3",
            ),
            (
                "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
                "ssl_max_protocol_version: is lower than ssl_min_protocol_version",
            ),
            ("colour=red", "colour: is unknown or not supported (supported are host, hostaddr, "),
            (
                "target_session_attrs=x",
                "target_session_attrs: must be one of any, read-write, read-only, primary, \
                 standby, prefer-standby",
            ),
            (
                "sslrootcert=system sslmode=require",
                "sslmode: must be verify-full with sslrootcert=system",
            ),
            (
                "sslnegotiation=direct sslmode=prefer",
                "sslmode: must be require, verify-ca or verify-full with sslnegotiation=direct",
            ),
            ("connect_timeout=soon", "connect_timeout: must be a whole number, 0 or more"),
            ("replication=database", "replication: is set where it is needed (leave it out)"),
            ("gssencmode=require", "gssencmode: must be one of disable, prefer"),
        ] {
            let error = parse(&format!("{text} password=secret")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            let said = error.to_string().replace(" of the PostgreSQL connection string", ":");
            assert!(said.starts_with(expected), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn the_systems_trust_implies_verify_full() {
        for local in [true, false] {
            assert_eq!(parse("sslrootcert=system").unwrap().tls.mode(local), SslMode::VerifyFull);
        }
    }

    #[test]
    fn a_certificate_is_verified_over_a_network_unless_sslmode_says_otherwise() {
        let mode = |text: &str, local| parse(text).unwrap().tls.mode(local);
        assert_eq!(mode("host=a", false), SslMode::VerifyFull);
        assert_eq!(mode("host=a sslmode=disable", false), SslMode::Disable);
        assert_eq!(mode("host=a", true), SslMode::Prefer);
    }
}
