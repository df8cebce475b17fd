//! ACLs of Kafka's users.
//!
//! librdkafka's Rust binding has no request for ACLs, so it is encoded here: `CreateAcls` version 1,
//! see <https://kafka.apache.org/protocol>.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Error, ErrorKind, Result};

/// Types of resources.
const TOPIC: u8 = 2;
const TRANSACTIONAL_ID: u8 = 5;

/// Permissions.
const DENY: u8 = 2;
const ALLOW: u8 = 3;

const LIMIT: Duration = Duration::from_secs(30);

/// An operation on a topic that a user is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRight {
    /// Consume records.
    Read = 3,
    /// Produce records.
    Write = 4,
    /// Create the topic.
    Create = 5,
    /// See the topic and its partitions.
    Describe = 8,
    /// Read the topic's settings.
    DescribeConfigs = 10,
}

/// Grants a user rights on all topics with this prefix; `bootstrap` is a listener where ACLs may be
/// changed, such as [`admin_bootstrap`](crate::KafkaServer::admin_bootstrap).
///
/// # Errors
/// The broker can't be reached, or refuses.
pub async fn grant(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    send(bootstrap, request(user, TOPIC, topic_prefix, (rights, ALLOW))).await
}

/// Denies a user these rights on all topics with this prefix; that overrides what is granted.
///
/// # Errors
/// As [`grant`].
pub async fn deny(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    send(bootstrap, request(user, TOPIC, topic_prefix, (rights, DENY))).await
}

/// Grants a user the right to write in transactions whose ids have this prefix.
///
/// # Errors
/// As [`grant`].
pub async fn grant_transactions(bootstrap: &str, user: &str, id_prefix: &str) -> Result<()> {
    let rights = [TopicRight::Describe, TopicRight::Write];
    send(bootstrap, request(user, TRANSACTIONAL_ID, id_prefix, (&rights, ALLOW))).await
}

async fn send(bootstrap: &str, request: Vec<u8>) -> Result<()> {
    let exchange = exchange(bootstrap, request);
    let answer = timeout(LIMIT, exchange).await.map_err(|error| failed().caused_by(error))?;
    match error_code(&answer?) {
        Some(0) => Ok(()),
        Some(code) => Err(failed().caused_by(format!("the broker answers with error {code}"))),
        None => Err(failed().caused_by("the broker's answer is cut short")),
    }
}

async fn exchange(bootstrap: &str, request: Vec<u8>) -> Result<Vec<u8>> {
    let broker = bootstrap.split(',').next().unwrap_or_default();
    let exchange = async {
        let mut stream = TcpStream::connect(broker).await?;
        stream.write_all(&request).await?;
        let length = stream.read_u32().await?;
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    exchange.await.map_err(|error| failed().caused_by(error))
}

fn request(
    user: &str,
    resource: u8,
    prefix: &str,
    (rights, permission): (&[TopicRight], u8),
) -> Vec<u8> {
    const CREATE_ACLS: u16 = 30;
    const PREFIXED: u8 = 4;
    let mut body = Vec::new();
    body.extend(CREATE_ACLS.to_be_bytes());
    body.extend(1_u16.to_be_bytes());
    body.extend(7_u32.to_be_bytes());
    push_string(&mut body, "factlib-testing");
    body.extend((rights.len() as u32).to_be_bytes());
    for right in rights {
        body.push(resource);
        push_string(&mut body, prefix);
        body.push(PREFIXED);
        push_string(&mut body, &format!("User:{user}"));
        push_string(&mut body, "*");
        body.extend([*right as u8, permission]);
    }
    let mut request = (body.len() as u32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

fn push_string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}

/// Returns the first error code that is not 0, else 0; `None` for an answer that is cut short.
fn error_code(answer: &[u8]) -> Option<i16> {
    // Correlation id and throttle time.
    let mut rest = answer.get(8..)?;
    let (count, after) = rest.split_first_chunk()?;
    rest = after;
    for _ in 0..u32::from_be_bytes(*count) {
        let (code, after) = rest.split_first_chunk()?;
        let (length, after) = after.split_first_chunk()?;
        // -1 for no text.
        rest = after.get(usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0)..)?;
        match i16::from_be_bytes(*code) {
            0 => {}
            code => return Some(code),
        }
    }
    Some(0)
}

fn failed() -> Error {
    Error::new(ErrorKind::KafkaUnavailable, "cannot change ACLs in Kafka")
}
