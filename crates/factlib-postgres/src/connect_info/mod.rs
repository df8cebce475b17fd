//! The parameters of a connection: parsed by libpq's rules from a connection string, a service file
//! and environment variables, and checked.
//!
//! Keywords, defaults and environment variables are libpq's
//! (`libpq-connect.html`, `libpq-envars.html`). Unsupported keywords, such as those of GSSAPI, are
//! refused rather than ignored: a connection must not be weaker than its string says.

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
use super::{
    connection_string,
    pgpass::{self, PassfileKey},
    require_auth::RequireAuth,
    settings::{ChannelBinding, LoadBalanceHosts, Settings, TargetSessionAttrs, invalid},
    silent_hosts::SilentHosts,
};
use super::{password_command::PasswordCommand, password_file::PasswordFile};
use crate::{Observer, Result, observer::NoObserver};

/// Parameters of connections to PostgreSQL.
///
/// Parsed from a connection string of libpq, a URL or `keyword=value` pairs. Environment variables
/// such as `PGHOST` and `PGUSER` provide the parameters that the string leaves out.
#[derive(Clone)]
pub struct ConnectInfo {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) dbname: String,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) require_auth: RequireAuth,
    /// Time limit for each address, within the caller's own limit.
    pub(super) connect_timeout: Option<Duration>,
    application_name: Option<String>,
    /// Used if the connection string and the environment have none.
    default_application_name: String,
    pub(super) options: Option<String>,
    pub(super) keepalives: Keepalives,
    pub(super) target: TargetSessionAttrs,
    /// True if the string or the environment has `target_session_attrs`.
    target_is_given: bool,
    pub(super) load_balance: LoadBalanceHosts,
    /// Hosts that did not answer; shared with clones.
    pub(super) silent: SilentHosts,
    /// The worst exposure that was reported so far; shared with clones.
    pub(super) warned: Arc<AtomicU8>,
    password: Option<SecretString>,
    /// Source to get the password from, instead of `password`.
    password_source: Option<PasswordSource>,
    passfile: Option<PathBuf>,
    /// True if the string or the environment names the passfile.
    passfile_is_named: bool,
    observer: Arc<dyn Observer>,
}

/// A source of the password that is asked at each connection.
#[derive(Clone)]
enum PasswordSource {
    File(PasswordFile),
    Command(Arc<PasswordCommand>),
}

/// TCP keepalive settings.
///
/// Operating systems wait for two hours by default. These defaults detect a dead peer within two
/// minutes.
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
            target_is_given: settings.text("target_session_attrs").is_some(),
            load_balance: settings.choice("load_balance_hosts")?,
            silent: SilentHosts::default(),
            warned: Arc::default(),
            password: settings.text("password").map(SecretString::from),
            password_source: None,
            observer: Arc::new(NoObserver),
            passfile_is_named: settings.text("passfile").is_some(),
            passfile: settings
                .text("passfile")
                .map(PathBuf::from)
                .or_else(|| Some(home(env)?.join(".pgpass"))),
        })
    }

    /// Connects to this database, instead of the connection string's.
    pub fn with_database(self, database: impl Into<String>) -> Self {
        ConnectInfo { dbname: database.into(), ..self }
    }

    /// Sets the password, instead of the connection string's.
    pub fn with_password(self, password: SecretString) -> Self {
        ConnectInfo { password: Some(password), password_source: None, ..self }
    }

    /// Reads the password from this file at each connection.
    pub fn with_password_from(self, file: PasswordFile) -> Self {
        ConnectInfo { password_source: Some(PasswordSource::File(file)), ..self }
    }

    /// Runs this command for the password at each connection.
    pub fn with_password_command(self, command: PasswordCommand) -> Self {
        let source = PasswordSource::Command(Arc::new(command));
        ConnectInfo { password_source: Some(source), ..self }
    }

    /// Describes the file or command that the password comes from, if one was named explicitly.
    pub(super) fn changing_password(&self) -> Option<String> {
        match &self.password_source {
            Some(PasswordSource::Command(command)) => {
                return Some(format!("that {} printed", command.name()));
            }
            Some(PasswordSource::File(file)) => {
                return Some(format!("in {}", file.path().display()));
            }
            None => {}
        }
        let named = self.password.is_none() && self.passfile_is_named;
        let passfile = self.passfile.as_deref().filter(|_| named)?;
        Some(format!("in {}", passfile.display()))
    }

    /// Sets the `application_name` to use if the connection string and the environment have none.
    pub fn with_default_application_name(self, name: impl Into<String>) -> Self {
        ConnectInfo { default_application_name: name.into(), ..self }
    }

    /// Connects to a primary only, if the connection string does not say otherwise.
    pub fn of_primary(self) -> Self {
        match self.target {
            TargetSessionAttrs::Any => ConnectInfo { target: TargetSessionAttrs::Primary, ..self },
            _ => self,
        }
    }

    /// Looks for the host that accepts writes, the primary, if there are several hosts and neither the
    /// string nor the environment has `target_session_attrs`.
    pub fn with_default_target_primary(self) -> Self {
        let target = match self.hosts.len() > 1 && !self.target_is_given {
            true => TargetSessionAttrs::ReadWrite,
            false => self.target,
        };
        ConnectInfo { target, ..self }
    }

    /// Returns a copy for each host, which connects to that host alone, whatever
    /// `target_session_attrs` is.
    pub fn each_host(&self) -> Vec<Self> {
        self.hosts.iter().map(|host| self.only(host.clone())).collect()
    }

    /// Sets the observer that receives notices about connections.
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        ConnectInfo { observer, ..self }
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.observer)
    }

    /// The `application_name` of connections.
    pub fn application_name(&self) -> &str {
        self.application_name.as_deref().unwrap_or(&self.default_application_name)
    }

    /// Returns a copy that connects to this host alone, whatever `target_session_attrs` is.
    pub(super) fn only(&self, host: Host) -> Self {
        ConnectInfo { hosts: vec![host], target: TargetSessionAttrs::Any, ..self.clone() }
    }

    /// True if a connection string has a password, or can't be parsed and so might have one.
    pub fn holds_secret(text: &str) -> bool {
        let parameters = connection_string::parse(text);
        parameters.map_or(true, |parameters| {
            parameters.iter().any(|(keyword, _)| matches!(&**keyword, "password" | "sslpassword"))
        })
    }

    /// File with the key of the client certificate.
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

    /// Returns the password for `host`: from the file or command that was set, from the string or the
    /// environment, otherwise from the password file. A command may take its own limit.
    pub(super) async fn password(&self, host: &Host) -> Result<Option<SecretString>> {
        match &self.password_source {
            Some(PasswordSource::Command(command)) => {
                let (address, port) = (host.address(), host.port.to_string());
                let variables = [
                    ("PGHOST", &*address),
                    ("PGPORT", &port),
                    ("PGUSER", &self.user),
                    ("PGDATABASE", &self.dbname),
                ];
                command.run(&variables).await.map(Some)
            }
            // If the file is missing for a moment, the last known password may still work.
            Some(PasswordSource::File(file)) => Ok(file.read().or_else(|| self.password.clone())),
            None => Ok(self.password.clone().or_else(|| self.password_of_passfile(host))),
        }
    }

    fn password_of_passfile(&self, host: &Host) -> Option<SecretString> {
        let address = host.address();
        let key = PassfileKey {
            host: if host.is_unix() { "localhost" } else { &address },
            port: host.port,
            dbname: &self.dbname,
            user: &self.user,
        };
        pgpass::password(self.passfile.as_deref()?, &key, &*self.observer)
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

/// Looks up an environment variable.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn home(env: Environment<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from)
}

#[cfg(test)]
mod tests;
