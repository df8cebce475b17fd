//! Tries hosts, addresses and kinds of encryption in turn until one lets us in.
//!
//! Order and fall-backs are libpq's: host by host, each with all its addresses;
//! a login that is refused ends the search. Each try gets an even share of the
//! time that is left, so that a host which does not answer costs its own share only,
//! and is tried last for a while after that (`silent_hosts`).

use std::{
    error::Error as StdError,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{
    connect_info::{ConnectInfo, Host},
    settings::{LoadBalanceHosts, SslMode, TargetSessionAttrs},
    silent_hosts::Place as Silent,
    stream::Stream,
    tls::{self, Answer},
};
use crate::{
    Error, ErrorKind, Notice, Result,
    error::{NO_PASSWORD, sqlstate},
};

/// What begins on a fresh stream: log in, and look whether the server will do.
pub(super) trait Startup: Sync {
    type Session: Send;

    fn start(
        &self,
        stream: Stream,
        host: &Host,
        target: TargetSessionAttrs,
    ) -> impl Future<Output = Result<Self::Session>> + Send;
}

/// Connects within `limit`.
pub(super) async fn connect<S: Startup>(
    info: &ConnectInfo,
    limit: Duration,
    startup: &S,
) -> Result<S::Session> {
    let deadline = Instant::now() + limit;
    let rounds = info.target.rounds();
    let mut left = rounds.len() * info.hosts.len();
    let mut failures = Vec::new();
    for target in rounds {
        let hosts = info.hosts.iter().enumerate().collect();
        let hosts = info.silent.order(info.shuffled(hosts), |(at, _)| Silent::Host(*at));
        for (at, host) in hosts {
            let until = share(deadline, left);
            left -= 1;
            let attempt = Attempt { info, at, host, target: *target, startup };
            match attempt.host(until, &mut failures).await {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(all_failed(info, failures))
}

/// The end of one of `left` even shares of the time until `deadline`.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let shares = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + deadline.saturating_duration_since(now) / shares
}

struct Attempt<'a, S> {
    info: &'a ConnectInfo,
    /// The host's place in the list.
    at: usize,
    host: &'a Host,
    target: TargetSessionAttrs,
    startup: &'a S,
}

/// Where a host can be reached.
#[derive(Clone, Copy)]
enum Place {
    Unix,
    Tcp(SocketAddr),
}

impl<S: Startup> Attempt<'_, S> {
    /// A session; none, with the reasons noted, where the next host may do better.
    async fn host(&self, until: Instant, failures: &mut Vec<Error>) -> Result<Option<S::Session>> {
        let (host, silent) = (Silent::Host(self.at), &self.info.silent);
        let places = match self.within(until, self.places()).await {
            Ok(places) => places,
            Err(error) => {
                if was_silent(&error) {
                    silent.note(host);
                }
                failures.push(error);
                return Ok(None);
            }
        };
        let places = silent.order(self.info.shuffled(places), |place| match place {
            Place::Tcp(address) => Silent::Address(*address),
            Place::Unix => host,
        });
        let (mut left, mut silence) = (places.len(), 0);
        for place in places {
            let mut until = share(until, left);
            left -= 1;
            if let Some(limit) = self.info.connect_timeout {
                until = until.min(Instant::now() + limit);
            }
            let outcome = self.within(until, self.place(place)).await;
            if let Place::Tcp(address) = place {
                match &outcome {
                    Err(error) if was_silent(error) => silent.note(Silent::Address(address)),
                    _ => silent.forget(Silent::Address(address)),
                }
            }
            match outcome {
                Ok(session) => {
                    silent.forget(host);
                    return Ok(Some(session));
                }
                // It would be refused elsewhere too, or must not be tried there.
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    silence += usize::from(was_silent(&error));
                    failures.push(error);
                }
            }
        }
        match silence {
            0 => silent.forget(host),
            _ => silent.note(host),
        }
        Ok(None)
    }

    async fn within<T>(&self, until: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = until.saturating_duration_since(Instant::now());
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(self.cannot_connect().caused_by(NoAnswer(limit))))
    }

    async fn places(&self) -> Result<Vec<Place>> {
        if self.host.is_unix() {
            return Ok(vec![Place::Unix]);
        }
        if let Some(address) = self.host.hostaddr {
            return Ok(vec![Place::Tcp((address, self.host.port).into())]);
        }
        let name = (self.host.name.as_str(), self.host.port);
        let found = tokio::net::lookup_host(name).await;
        Ok(found.map_err(|error| self.cannot_connect().caused_by(error))?.map(Place::Tcp).collect())
    }

    /// One address, with the kinds of encryption that `sslmode` allows.
    async fn place(&self, place: Place) -> Result<S::Session> {
        let stream = self.open(place).await?;
        match self.info.tls.mode(stream.is_local()) {
            _ if self.host.is_unix() => self.start(stream).await,
            SslMode::Disable => self.start(stream).await,
            SslMode::Allow => match self.start(stream).await {
                Err(error) if is_refused_by_pg_hba(&error) => {
                    match self.negotiate(self.open(place).await?).await? {
                        Answer::Encrypted(stream) => self.start(stream).await,
                        Answer::Declined(_) => Err(error),
                    }
                }
                result => result,
            },
            SslMode::Prefer => match self.negotiate(stream).await {
                Ok(Answer::Declined(stream)) => self.start(stream).await,
                Ok(Answer::Encrypted(stream)) => match self.start(stream).await {
                    // A password that is wrong under TLS is not sent again without.
                    Err(error) if is_refused_by_pg_hba(&error) => {
                        self.start(self.open(place).await?).await.map_err(|_| error)
                    }
                    result => result,
                },
                Err(_) => self.start(self.open(place).await?).await,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                match self.negotiate(stream).await? {
                    Answer::Encrypted(stream) => self.start(stream).await,
                    Answer::Declined(_) => {
                        let what = format!("PostgreSQL at {} does not offer TLS", self.host);
                        let remedy = match self.info.tls.mode {
                            Some(_) => "set ssl = on in the server, or a weaker sslmode",
                            None => {
                                "set ssl = on in the server; only where nobody else is on the network, \
                                 sslmode=disable in the connection string"
                            }
                        };
                        Err(Error::new(ErrorKind::Tls, what).with_remedy(remedy))
                    }
                }
            }
        }
    }

    async fn open(&self, place: Place) -> Result<Stream> {
        let opened = match place {
            Place::Unix => Stream::unix(self.host).await,
            Place::Tcp(address) => Stream::tcp(address, &self.info.keepalives).await,
        };
        opened.map_err(|error| self.cannot_connect().caused_by(error))
    }

    async fn negotiate(&self, stream: Stream) -> Result<Answer> {
        tls::negotiate(stream, self.host, &self.info.tls).await
    }

    async fn start(&self, stream: Stream) -> Result<S::Session> {
        let exposure = Exposure::of(&stream);
        let session = self.startup.start(stream, self.host, self.target).await;
        let session = session
            .map_err(|error| tls::unless_client_is_refused(self.host, &self.info.tls, error))
            .map_err(|error| unless_file_is_late(self.info, error))?;
        exposure.report(self.info, self.host);
        Ok(session)
    }

    fn cannot_connect(&self) -> Error {
        let what = format!("cannot connect to PostgreSQL at {}", self.host);
        Error::new(ErrorKind::Unavailable, what)
    }
}

/// Makes the error transient if the password that was refused or is missing comes from a file: the
/// file may be older than the server's change, and is read again at each try.
fn unless_file_is_late(info: &ConnectInfo, error: Error) -> Error {
    let refused = sqlstate(&error) == Some("28P01") || error.remedy() == Some(NO_PASSWORD);
    match info.secret_file().filter(|_| refused) {
        Some(path) => {
            let what = format!("the password in {} does not let us in", path.display());
            Error::new(ErrorKind::Unavailable, what)
                .with_remedy("correct the file or the role's password: it is read at each try")
                .caused_by(error)
        }
        None => error,
    }
}

/// SQLSTATE 28000: `pg_hba.conf` has no line for this user, host and encryption.
fn is_refused_by_pg_hba(error: &Error) -> bool {
    sqlstate(error) == Some("28000")
}

/// What others on the way can do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exposure {
    Nothing,
    Unverified,
    Unencrypted,
}

impl Exposure {
    fn of(stream: &Stream) -> Self {
        match stream.tls() {
            _ if stream.is_local() => Exposure::Nothing,
            None => Exposure::Unencrypted,
            Some(facts) if !facts.verified => Exposure::Unverified,
            Some(_) => Exposure::Nothing,
        }
    }

    /// Once for a connection string and not at every reconnection.
    fn report(self, info: &ConnectInfo, host: &Host) {
        if info.warned.fetch_max(self as u8, Ordering::Relaxed) >= self as u8 {
            return;
        }
        let host = &*host.to_string();
        match self {
            Exposure::Nothing => {}
            Exposure::Unverified => info.observer().notice(&Notice::Unverified { host }),
            Exposure::Unencrypted => info.observer().notice(&Notice::Unencrypted { host }),
        }
    }
}

/// A time limit passed without an answer.
fn was_silent(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<NoAnswer>())
}

impl ConnectInfo {
    /// The items in random order if `load_balance_hosts=random`, else as they are.
    fn shuffled<T>(&self, mut items: Vec<T>) -> Vec<T> {
        if self.load_balance == LoadBalanceHosts::Random {
            // The standard library's own source of chance: each has another seed.
            items.sort_by_cached_key(|_| RandomState::new().build_hasher().finish());
        }
        items
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:.1?}")]
struct NoAnswer(Duration);

/// Why each of several tries failed.
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
    let what = format!("no PostgreSQL server at {} will do", info.describe_hosts());
    Error::new(ErrorKind::Unavailable, what).caused_by(Failures(failures))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc::Sender};

    use super::*;
    use crate::Observer;

    struct Lines(Mutex<Sender<String>>);

    impl Observer for Lines {
        fn notice(&self, notice: &Notice<'_>) {
            self.0.lock().unwrap().send(notice.to_string()).ok();
        }
    }

    #[test]
    fn each_exposure_is_reported_once_for_a_connection_string() {
        let (sender, lines) = std::sync::mpsc::channel();
        let observer = Arc::new(Lines(Mutex::new(sender)));
        let info = ConnectInfo::parse("host=db user=u").unwrap().with_observer(observer);
        let warned = |exposure: Exposure, info: &ConnectInfo| {
            exposure.report(info, &info.hosts[0]);
            lines.try_iter().collect::<Vec<_>>()
        };
        assert!(warned(Exposure::Nothing, &info).is_empty());
        assert!(warned(Exposure::Unverified, &info)[0].contains("not verified"));
        assert!(warned(Exposure::Unverified, &info.clone()).is_empty());
        // What is worse is news.
        assert!(warned(Exposure::Unencrypted, &info)[0].contains("not encrypted"));
        assert!(warned(Exposure::Unencrypted, &info).is_empty());
        assert!(warned(Exposure::Unverified, &info).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_gets_an_even_share_of_the_time_that_is_left() {
        let deadline = Instant::now() + Duration::from_secs(12);
        assert_eq!(share(deadline, 3) - Instant::now(), Duration::from_secs(4));
        assert_eq!(share(deadline, 1), deadline);
        assert_eq!(share(Instant::now() - Duration::from_secs(1), 2), Instant::now());
    }
}
