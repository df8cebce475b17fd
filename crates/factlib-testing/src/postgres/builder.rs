//! Settings of a throwaway PostgreSQL, and its start.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{PostgresServer, binaries, quote_literal, server_error};
use crate::{
    Result,
    ports::free_port,
    process::{Owner, ServerHome, file_error, make_private},
};

/// `initdb` takes a second, and longer on a busy machine.
const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// Settings of every server, which the builder's override.
const DEFAULTS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    // The data need not survive a power cut: the folder is removed with the server.
    ("fsync", "off"),
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("max_wal_senders", "100"),
    ("max_replication_slots", "100"),
    ("max_prepared_transactions", "20"),
    ("shared_buffers", "64MB"),
    ("password_encryption", "scram-sha-256"),
    ("timezone", "UTC"),
];

/// Settings of a [`PostgresServer`] to be started.
#[derive(Debug)]
pub struct PostgresServerBuilder {
    settings: BTreeMap<String, String>,
    bin: Option<PathBuf>,
    version: Option<u32>,
    password: Option<String>,
    tls: Option<[String; 2]>,
    client_ca: Option<String>,
    hba: Vec<String>,
}

impl PostgresServerBuilder {
    pub(super) fn new() -> Self {
        let settings = DEFAULTS.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        PostgresServerBuilder {
            settings: settings.collect(),
            bin: None,
            version: None,
            password: None,
            tls: None,
            client_ca: None,
            hba: Vec::new(),
        }
    }

    /// Sets a parameter of `postgresql.conf`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Sets the folder with `initdb` and `postgres`, for a version other than the newest.
    pub fn version_dir(mut self, bin: impl Into<PathBuf>) -> Self {
        self.bin = Some(bin.into());
        self
    }

    /// Sets the major version, from the cache or `/usr/lib/postgresql`.
    pub fn version(mut self, major: u32) -> Self {
        self.version = Some(major);
        self
    }

    /// Sets the password of the user `postgres`. Connections over TCP then need it (SCRAM); those over
    /// the Unix socket do not.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Offers TLS with this certificate and key, both PEM.
    pub fn ssl(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some([certificate.into(), key.into()]);
        self
    }

    /// Checks client certificates against this authority (PEM), where [`hba`](Self::hba) asks for one.
    pub fn client_ca(mut self, certificate: impl Into<String>) -> Self {
        self.client_ca = Some(certificate.into());
        self
    }

    /// Adds a line to `pg_hba.conf`, before those of the builder; the first that matches applies.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// Makes the data folder and starts the server.
    pub async fn start(mut self) -> Result<PostgresServer> {
        let mut bin = match self.version {
            Some(major) => binaries::find_version(major)?,
            None => binaries::find(self.bin.take())?,
        };
        let owner = Owner::instead_of_root()?;
        let home = ServerHome::create("pg", Signal::SIGQUIT)?;
        if let Some(owner) = owner {
            owner.give(home.path())?;
        }
        if let (Some(installation), Some(_)) = (binaries::cached_installation(&bin), owner) {
            // Another user may not read root's cache.
            let from = installation.as_os_str().to_owned();
            let copy = home.spawn(
                "copy",
                Path::new("cp"),
                [OsString::from("-a"), from, "server".into()],
                None,
            )?;
            if !copy.exited_or_killed(INITDB_LIMIT).await.success() {
                return Err(server_error("PostgreSQL can't be copied", &copy));
            }
            bin = home.path().join("server/bin");
        }
        let args = "-D data -U postgres -A trust -E UTF8 --no-locale --no-sync";
        let initdb = home.spawn("initdb", &bin.join("initdb"), args.split(' '), owner)?;
        if !initdb.exited_or_killed(INITDB_LIMIT).await.success() {
            return Err(server_error("initdb failed", &initdb));
        }
        let port = free_port()?;
        self.settings.insert("port".into(), port.to_string());
        let socket_dir = home.path().display().to_string();
        self.settings.insert("unix_socket_directories".into(), socket_dir);
        self.write_tls(&home, owner)?;
        home.write("data/pg_hba.conf", self.pg_hba())?;
        let server = PostgresServer {
            postgres: bin.join("postgres"),
            owner,
            port,
            settings: Mutex::new(self.settings),
            receipt: Mutex::new(None),
            child: Mutex::new(None),
            home,
        };
        include_settings(&server)?;
        server.start_again().await?;
        if let Some(password) = self.password {
            let set = format!("ALTER ROLE postgres PASSWORD {}", quote_literal(&password));
            server.execute("postgres", &set).await?;
        }
        Ok(server)
    }

    fn write_tls(&mut self, home: &ServerHome, owner: Option<Owner>) -> Result<()> {
        let files = self.tls.take().into_iter().flatten().zip(["server.crt", "server.key"]);
        let files = files.chain(self.client_ca.take().zip(Some("client-ca.crt")));
        for (pem, name) in files {
            let path = home.write(format!("data/{name}"), pem)?;
            // PostgreSQL refuses a key that other users may read.
            make_private(&path)?;
            if let Some(owner) = owner {
                owner.give(&path)?;
            }
            match name {
                "client-ca.crt" => self.settings.insert("ssl_ca_file".into(), name.into()),
                _ => self.settings.insert("ssl".into(), "on".into()),
            };
        }
        Ok(())
    }

    fn pg_hba(&self) -> String {
        let tcp = if self.password.is_some() { "scram-sha-256" } else { "trust" };
        let mut lines = self.hba.clone();
        for database in ["all", "replication"] {
            lines.push(format!("local {database} all trust"));
            lines.push(format!("host {database} all all {tcp}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// Includes the file that [`PostgresServer::set`] writes at the end of `postgresql.conf`, where it
/// overrides initdb's settings.
fn include_settings(server: &PostgresServer) -> Result<()> {
    let path = server.home.path().join("data/postgresql.conf");
    let conf =
        fs::read_to_string(&path).map_err(|cause| file_error("cannot read", &path, cause))?;
    server.home.write("data/postgresql.conf", conf + "\ninclude '../factlib.conf'\n")?;
    server.write_settings()
}
