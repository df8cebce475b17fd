//! A throwaway schema registry with Confluent's API: Apicurio Registry.
//!
//! It keeps its schemas in its folder, so that they survive a restart.

use std::{
    env,
    ffi::OsString,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    Error, ErrorKind, Result,
    cache::cache_folder,
    certificate::Signed,
    java,
    ports::free_port,
    process::{GuardedChild, ServerHome},
};

/// The version that `scripts/bootstrap` downloads.
const VERSION: &str = "3.0.9";

const START_LIMIT: Duration = Duration::from_secs(120);

/// The path of Confluent's API.
const API: &str = "/apis/ccompat/v7";

/// Options for a registry that holds some schemas and lives for seconds.
const JVM: [&str; 4] =
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];

/// A throwaway schema registry.
#[derive(Debug)]
pub struct SchemaRegistry {
    java: PathBuf,
    jar: PathBuf,
    port: u16,
    /// The port for TLS.
    tls: Option<u16>,
    child: Mutex<Option<GuardedChild>>,
    home: ServerHome,
}

impl SchemaRegistry {
    /// Starts a registry, and returns when it answers.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// Starts a registry that also offers TLS with this certificate, see [`tls_url`](Self::tls_url).
    pub async fn start_tls(signed: &Signed) -> Result<Self> {
        Self::start_with(Some(signed)).await
    }

    async fn start_with(signed: Option<&Signed>) -> Result<Self> {
        let home = ServerHome::create("registry", Signal::SIGKILL)?;
        if let Some(Signed { certificate, key }) = signed {
            for (file, pem) in [("tls.crt", certificate), ("tls.key", key)] {
                fs::write(home.path().join(file), pem).map_err(|error| {
                    Error::new(ErrorKind::Setup, format!("cannot write {file}")).caused_by(error)
                })?;
            }
        }
        let registry = SchemaRegistry {
            java: java::program()?,
            jar: jar()?,
            port: free_port()?,
            tls: signed.map(|_| free_port()).transpose()?,
            child: Mutex::default(),
            home,
        };
        registry.start_again().await?;
        Ok(registry)
    }

    /// Returns the URL of Confluent's API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }

    /// Returns the `https` URL with this host name, for a registry started with
    /// [`start_tls`](Self::start_tls).
    pub fn tls_url(&self, host: &str) -> Option<String> {
        self.tls.map(|port| format!("https://{host}:{port}{API}"))
    }

    /// Kills the registry.
    pub async fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(child) = child {
            child.signal(Signal::SIGKILL);
            child.exited().await;
        }
    }

    /// Starts the registry again, on the same port and with its schemas.
    pub async fn start_again(&self) -> Result<()> {
        let mut args: Vec<OsString> = JVM.iter().map(OsString::from).collect();
        let schemas = self.home.path().join("schemas");
        let mut properties = vec![
            "quarkus.http.host=127.0.0.1".into(),
            format!("quarkus.http.port={}", self.port),
            "quarkus.http.access-log.enabled=false".into(),
            format!("apicurio.datasource.url=jdbc:h2:file:{}", schemas.display()),
        ];
        if let Some(port) = self.tls {
            let file = |name| self.home.path().join(name).display().to_string();
            properties.extend([
                format!("quarkus.http.ssl-port={port}"),
                format!("quarkus.http.ssl.certificate.files={}", file("tls.crt")),
                format!("quarkus.http.ssl.certificate.key-files={}", file("tls.key")),
            ]);
        }
        args.extend(properties.iter().map(|property| format!("-D{property}").into()));
        args.extend(["-jar".into(), self.jar.clone().into_os_string()]);
        let child = self.home.spawn("registry", &self.java, args, None)?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child.clone());
        let answering = async {
            while !self.answers().await.unwrap_or(false) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let failed = |what: &str| {
            let what = format!("{what}; its log ends with:\n{}", child.log_tail());
            Err(Error::new(ErrorKind::RegistryUnavailable, what))
        };
        tokio::select! {
            _ = child.exited() => failed("the schema registry ended while it started"),
            answered = timeout(START_LIMIT, answering) => match answered {
                Ok(()) => Ok(()),
                Err(_) => failed("the schema registry does not answer"),
            }
        }
    }

    async fn answers(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!("GET {API}/subjects HTTP/1.0\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).lines().next().is_some_and(|line| line.contains("200")))
    }
}

/// Finds the registry's program in `FACTLIB_REGISTRY_HOME` or the cache.
fn jar() -> Result<PathBuf> {
    let home = env::var_os("FACTLIB_REGISTRY_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| cache_folder().join(format!("apicurio-{VERSION}")));
    let jar = home.join(format!("apicurio-registry-app-{VERSION}-runner.jar"));
    if jar.is_file() {
        return Ok(jar);
    }
    let what = format!("no Apicurio Registry in {}", home.display());
    Err(Error::new(ErrorKind::Setup, what).remedy(format!(
        "unpack https://repo1.maven.org/maven2/io/apicurio/apicurio-registry-app/{VERSION}/\
         apicurio-registry-app-{VERSION}-all.tar.gz and set FACTLIB_REGISTRY_HOME to the folder; \
         in factlib's repository run: make bootstrap"
    )))
}
