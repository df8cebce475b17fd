//! Tries hosts, addresses and kinds of encryption in turn until a login succeeds.
//!
//! Order and fallbacks are libpq's: host by host, each with all its addresses; a login that is
//! refused ends the search. Each attempt gets an even share of the remaining time, so a host that
//! does not answer costs only its own share. For a while after that, it is tried last
//! (`silent_hosts`).

use std::{
    error::Error as StdError,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    time::Duration,
};

use secrecy::SecretString;
use tokio::time::{Instant, timeout};

use super::{
    connect_info::{ConnectInfo, Host},
    exposure::Exposure,
    settings::{LoadBalanceHosts, SslMode, TargetSessionAttrs},
    silent_hosts::HostOrAddress,
    stream::Stream,
    tls::{self, Answer},
};
use crate::{
    Error, ErrorKind, Result,
    error::{NO_PASSWORD, is_refused_password, sqlstate},
};

/// Logs in on a new stream and checks that the server is of the wanted kind.
pub(super) trait Startup: Sync {
    type Session: Send;
    /// True if the server may ask for a password.
    const NEEDS_PASSWORD: bool = true;

    fn start(
        &self,
        stream: Stream,
        server: &LoginTarget<'_>,
    ) -> impl Future<Output = Result<Self::Session>> + Send;
}

/// The server of a stream, with what is needed to log in there.
pub(super) struct LoginTarget<'a> {
    pub host: &'a Host,
    pub target: TargetSessionAttrs,
    pub password: Option<SecretString>,
}

/// Connects to the first suitable server, within `limit`.
pub(super) async fn connect<S: Startup>(
    info: &ConnectInfo,
    limit: Duration,
    startup: &S,
) -> Result<S::Session> {
    let mut deadline = Instant::now() + limit;
    let rounds = info.target.rounds();
    let mut left = rounds.len() * info.hosts.len();
    let mut failures = Vec::new();
    for target in rounds {
        let hosts = info.hosts.iter().enumerate().collect();
        let hosts =
            info.silent.silent_last(info.shuffled(hosts), |(index, _)| HostOrAddress::Host(*index));
        for (index, host) in hosts {
            let asking = Instant::now();
            let password = match S::NEEDS_PASSWORD {
                true => info.password(host).await,
                false => Ok(None),
            };
            // A command that is asked has a limit of its own.
            deadline += asking.elapsed();
            let host_deadline = share(deadline, left);
            left -= 1;
            let server = match password {
                Ok(password) => LoginTarget { host, target: *target, password },
                Err(error) => {
                    failures.push(error);
                    continue;
                }
            };
            let attempt = Attempt { info, index, host, server, startup };
            match attempt.try_host(host_deadline, &mut failures).await {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(all_failed(info, failures))
}

/// Returns the end of the first of `left` even shares of the time until `deadline`.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let shares = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + deadline.saturating_duration_since(now) / shares
}

/// An attempt to connect to one host.
struct Attempt<'a, S> {
    info: &'a ConnectInfo,
    /// Index of the host in the list.
    index: usize,
    host: &'a Host,
    server: LoginTarget<'a>,
    startup: &'a S,
}

/// An endpoint of a host.
#[derive(Clone, Copy)]
enum Endpoint {
    Unix,
    Tcp(SocketAddr),
}

impl<S: Startup> Attempt<'_, S> {
    /// Returns a session; or none, with the reasons in `failures`, if the next host is to be tried.
    async fn try_host(
        &self,
        deadline: Instant,
        failures: &mut Vec<Error>,
    ) -> Result<Option<S::Session>> {
        let (host, silent) = (HostOrAddress::Host(self.index), &self.info.silent);
        let endpoints = match self.within(deadline, self.endpoints()).await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                if was_silent(&error) {
                    silent.mark_silent(host);
                }
                failures.push(error);
                return Ok(None);
            }
        };
        let endpoints =
            silent.silent_last(self.info.shuffled(endpoints), |endpoint| match endpoint {
                Endpoint::Tcp(address) => HostOrAddress::Address(*address),
                Endpoint::Unix => host,
            });
        let (mut left, mut silent_count) = (endpoints.len(), 0);
        for endpoint in endpoints {
            let mut endpoint_deadline = share(deadline, left);
            left -= 1;
            if let Some(limit) = self.info.connect_timeout {
                endpoint_deadline = endpoint_deadline.min(Instant::now() + limit);
            }
            let result = self.within(endpoint_deadline, self.try_endpoint(endpoint)).await;
            if let Endpoint::Tcp(address) = endpoint {
                match &result {
                    Err(error) if was_silent(error) => {
                        silent.mark_silent(HostOrAddress::Address(address))
                    }
                    _ => silent.mark_answered(HostOrAddress::Address(address)),
                }
            }
            match result {
                Ok(session) => {
                    silent.mark_answered(host);
                    return Ok(Some(session));
                }
                // Other hosts would refuse it as well, or must not be tried.
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    silent_count += usize::from(was_silent(&error));
                    failures.push(error);
                }
            }
        }
        match silent_count {
            0 => silent.mark_answered(host),
            _ => silent.mark_silent(host),
        }
        Ok(None)
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = deadline.saturating_duration_since(Instant::now());
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(self.cannot_connect().caused_by(NoAnswer(limit))))
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        if self.host.is_unix() {
            return Ok(vec![Endpoint::Unix]);
        }
        if let Some(address) = self.host.hostaddr {
            return Ok(vec![Endpoint::Tcp((address, self.host.port).into())]);
        }
        let name = (self.host.name.as_str(), self.host.port);
        let found = tokio::net::lookup_host(name).await;
        Ok(found
            .map_err(|error| self.cannot_connect().caused_by(error))?
            .map(Endpoint::Tcp)
            .collect())
    }

    /// Tries one endpoint with the kinds of encryption that `sslmode` allows.
    async fn try_endpoint(&self, endpoint: Endpoint) -> Result<S::Session> {
        let stream = self.open(endpoint).await?;
        match self.info.tls.mode(stream.is_local()) {
            _ if self.host.is_unix() => self.start(stream).await,
            SslMode::Disable => self.start(stream).await,
            SslMode::Allow => match self.start(stream).await {
                Err(error) if is_refused_by_pg_hba(&error) => {
                    match self.negotiate(self.open(endpoint).await?).await? {
                        Answer::Encrypted(stream) => self.start(stream).await,
                        Answer::Declined(_) => Err(error),
                    }
                }
                result => result,
            },
            SslMode::Prefer => match self.negotiate(stream).await {
                Ok(Answer::Declined(stream)) => self.start(stream).await,
                Ok(Answer::Encrypted(stream)) => match self.start(stream).await {
                    // A password that was refused over TLS is not sent again without TLS.
                    Err(error) if is_refused_by_pg_hba(&error) => {
                        self.start(self.open(endpoint).await?).await.map_err(|_| error)
                    }
                    result => result,
                },
                Err(_) => self.start(self.open(endpoint).await?).await,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                match self.negotiate(stream).await? {
                    Answer::Encrypted(stream) => self.start(stream).await,
                    Answer::Declined(_) => {
                        let message = format!("PostgreSQL at {} does not offer TLS", self.host);
                        let remedy = match self.info.tls.mode {
                            Some(_) => "set ssl = on in the server, or a weaker sslmode",
                            None => {
                                "set ssl = on in the server; only where nobody else is on the network, \
                                 sslmode=disable in the connection string"
                            }
                        };
                        Err(Error::new(ErrorKind::Tls, message).with_remedy(remedy))
                    }
                }
            }
        }
    }

    async fn open(&self, endpoint: Endpoint) -> Result<Stream> {
        let opened = match endpoint {
            Endpoint::Unix => Stream::unix(self.host).await,
            Endpoint::Tcp(address) => Stream::tcp(address, &self.info.keepalives).await,
        };
        opened.map_err(|error| self.cannot_connect().caused_by(error))
    }

    async fn negotiate(&self, stream: Stream) -> Result<Answer> {
        tls::negotiate(stream, self.host, &self.info.tls).await
    }

    async fn start(&self, stream: Stream) -> Result<S::Session> {
        let exposure = Exposure::of(&stream);
        let session = self.startup.start(stream, &self.server).await;
        let session = session
            .map_err(|error| tls::explain_refused_certificate(self.host, &self.info.tls, error))
            .map_err(|error| transient_if_password_changes(self.info, error))?;
        exposure.report(self.info, self.host);
        Ok(session)
    }

    fn cannot_connect(&self) -> Error {
        let message = format!("cannot connect to PostgreSQL at {}", self.host);
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// Makes the error transient if the refused or missing password comes from a file or a command: it
/// may not be updated yet, and is asked for again at each attempt.
fn transient_if_password_changes(info: &ConnectInfo, error: Error) -> Error {
    let refused = is_refused_password(&error) || error.remedy() == Some(NO_PASSWORD);
    match info.changing_password().filter(|_| refused) {
        Some(password) => {
            let message = format!("the password {password} is missing or was refused");
            Error::new(ErrorKind::Unavailable, message)
                .with_remedy("correct it or the role's password: it is read at each try")
                .caused_by(error)
        }
        None => error,
    }
}

/// True for SQLSTATE 28000: `pg_hba.conf` has no line for this user, host and encryption.
fn is_refused_by_pg_hba(error: &Error) -> bool {
    sqlstate(error) == Some("28000")
}

/// True if the server did not answer within the time limit.
fn was_silent(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<NoAnswer>())
}

impl ConnectInfo {
    /// Shuffles the items if `load_balance_hosts=random`.
    fn shuffled<T>(&self, mut items: Vec<T>) -> Vec<T> {
        if self.load_balance == LoadBalanceHosts::Random {
            // Each `RandomState` of the standard library has another seed.
            items.sort_by_cached_key(|_| RandomState::new().build_hasher().finish());
        }
        items
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:.1?}")]
struct NoAnswer(Duration);

/// The errors of several attempts.
#[derive(Debug)]
struct Failures(Vec<Error>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl StdError for Failures {}

fn all_failed(info: &ConnectInfo, mut failures: Vec<Error>) -> Error {
    if failures.len() == 1
        && let Some(error) = failures.pop()
    {
        return error;
    }
    let message = format!("no PostgreSQL server at {} can be used", info.describe_hosts());
    Error::new(ErrorKind::Unavailable, message).caused_by(Failures(failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_gets_an_even_share_of_the_time_that_is_left() {
        let deadline = Instant::now() + Duration::from_secs(12);
        assert_eq!(share(deadline, 3) - Instant::now(), Duration::from_secs(4));
        assert_eq!(share(deadline, 1), deadline);
        assert_eq!(share(Instant::now() - Duration::from_secs(1), 2), Instant::now());
    }
}
