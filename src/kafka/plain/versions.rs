//! Asks a broker which request versions it accepts. The crate `kafka` has no such request, and a
//! broker that does not accept its requests closes the connection without an answer.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use super::blocking;
use crate::{Error, ErrorKind, Result};

/// `ApiVersions`, version 0.
const API_VERSIONS: i16 = 18;

/// The requests that are sent: a broker that takes their first version takes those of the crate.
/// `Produce` is not among them: Kafka 4 says that it takes its first version, for an old
/// librdkafka, and does not; `Fetch` and `ListOffsets` went with it.
const ASKED: [(i16, &str); 2] = [(1, "Fetch"), (2, "ListOffsets")];

/// More than any answer is.
const ANSWER_MAX: usize = 1 << 16;

/// Checks that a broker answers and accepts the crate's requests.
///
/// # Errors
/// [`ErrorKind::KafkaUnavailable`] when none answers; [`ErrorKind::KafkaRefused`] for brokers
/// that are too new.
pub(crate) async fn check(brokers: Vec<String>, timeout: Duration) -> Result<()> {
    blocking(move || check_now(&brokers, timeout)).await
}

/// Limit for one look whether brokers that are away have come back, and the pause before the next.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Waits until brokers that are away answer again; false where one answers at once.
pub(crate) async fn are_back(brokers: Vec<String>) -> bool {
    let mut away = false;
    while check(brokers.clone(), LOOK_TIMEOUT).await.is_err_and(|error| error.is_transient()) {
        away = true;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    away
}

/// The same, of the first of these brokers that answers.
pub(super) fn check_now(brokers: &[String], timeout: Duration) -> Result<()> {
    let mut failed = None;
    for broker in brokers {
        match ask(broker, timeout) {
            Ok(answer) => return judge(broker, &answer),
            Err(error) => failed = Some(error),
        }
    }
    let what = format!("cannot reach Kafka at {}", brokers.join(","));
    let error = Error::new(ErrorKind::KafkaUnavailable, what);
    Err(match failed {
        Some(cause) => error.caused_by(cause),
        None => error,
    })
}

/// The answer without its size and correlation id.
fn ask(broker: &str, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = connect(broker, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // Size, key, version, correlation id, and no client id.
    let mut request = 10_i32.to_be_bytes().to_vec();
    request.extend(API_VERSIONS.to_be_bytes());
    request.extend([0; 6]);
    request.extend((-1_i16).to_be_bytes());
    stream.write_all(&request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if !(4..ANSWER_MAX).contains(&size) {
        return Err(not_kafka());
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}

fn connect(broker: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in broker.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn judge(broker: &str, answer: &[u8]) -> Result<()> {
    let unread = || {
        let what = format!("cannot read what {broker} answers");
        Error::new(ErrorKind::KafkaUnavailable, what).caused_by(not_kafka())
    };
    // An error code, a count, then key, first and last version of each.
    let (0, versions) = (number(answer).ok_or_else(unread)?, answer.get(6..)) else {
        return Err(unread());
    };
    let (versions, _) = versions.ok_or_else(unread)?.as_chunks::<6>();
    for (key, name) in ASKED {
        let range = versions.iter().find(|range| number(&range[..]) == Some(key));
        let first = number(&range.ok_or_else(unread)?[2..]);
        if first != Some(0) {
            let what = format!(
                "{broker} is a Kafka of 4.0 or later, which kafka.client = \"kafka\" can't speak \
                 to: {name} begins at version {}",
                first.unwrap_or_default()
            );
            return Err(Error::new(ErrorKind::KafkaRefused, what).remedy("leave kafka.client out"));
        }
    }
    Ok(())
}

fn number(bytes: &[u8]) -> Option<i16> {
    bytes.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
}

fn not_kafka() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "that is no answer of a Kafka broker")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these keys and first versions.
    fn answer(versions: &[(i16, i16)]) -> Vec<u8> {
        let mut answer = vec![0, 0];
        answer.extend((versions.len() as i32).to_be_bytes());
        for (key, first) in versions {
            answer.extend([*key, *first, 9].iter().flat_map(|number| number.to_be_bytes()));
        }
        answer
    }

    #[test]
    fn brokers_that_take_the_first_versions_are_taken() {
        judge("a:1", &answer(&[(0, 0), (1, 0), (2, 0), (18, 0)])).expect("Kafka 3.9");
    }

    #[test]
    fn brokers_that_are_too_new_are_refused_with_the_remedy() {
        let error = judge("a:1", &answer(&[(0, 0), (1, 4), (2, 1)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KafkaRefused);
        let text = "a:1 is a Kafka of 4.0 or later, which kafka.client = \"kafka\" can't speak to: \
                    Fetch begins at version 4 (leave kafka.client out)";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn what_is_no_answer_is_no_panic() {
        let whole = answer(&[(1, 0), (2, 0)]);
        for cut in 0..whole.len() {
            let error = judge("a:1", &whole[..cut]).unwrap_err();
            assert!(error.is_transient(), "{error}");
            let text = "cannot read what a:1 answers: that is no answer of a Kafka broker";
            assert_eq!(error.to_string(), text);
        }
    }
}
