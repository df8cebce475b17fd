//! Rights of Kafka's users, given by an administrator.
//!
//! No client in reach has the request, so it is written by hand: `CreateAcls` version 1,
//! as <https://kafka.apache.org/protocol> has it.

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

/// What a user may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRight {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}

/// Gives a user rights on all topics whose names start so; `bootstrap` is a listener
/// where that is allowed, such as [`admin_bootstrap`](super::KafkaServer::admin_bootstrap).
///
/// # Errors
/// A broker that is not there, or that refuses.
pub async fn grant(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    give(bootstrap, request(user, TOPIC, topic_prefix, (rights, ALLOW))).await
}

/// Forbids a user these rights on all topics whose names start so, whatever else is granted.
///
/// # Errors
/// As [`grant`].
pub async fn deny(
    bootstrap: &str,
    user: &str,
    topic_prefix: &str,
    rights: &[TopicRight],
) -> Result<()> {
    give(bootstrap, request(user, TOPIC, topic_prefix, (rights, DENY))).await
}

/// Gives a user the right to write in transactions whose ids start so.
///
/// # Errors
/// As [`grant`].
pub async fn grant_transactions(bootstrap: &str, user: &str, id_prefix: &str) -> Result<()> {
    let rights = [TopicRight::Describe, TopicRight::Write];
    give(bootstrap, request(user, TRANSACTIONAL_ID, id_prefix, (&rights, ALLOW))).await
}

async fn give(bootstrap: &str, request: Vec<u8>) -> Result<()> {
    let asking = ask(bootstrap, request);
    let answer = timeout(LIMIT, asking).await.map_err(|error| failed().caused_by(error))?;
    match refusal(&answer?) {
        Some(0) => Ok(()),
        Some(code) => Err(failed().caused_by(format!("the broker answers with error {code}"))),
        None => Err(failed().caused_by("the broker's answer is cut short")),
    }
}

async fn ask(bootstrap: &str, request: Vec<u8>) -> Result<Vec<u8>> {
    let broker = bootstrap.split(',').next().unwrap_or_default();
    let talking = async {
        let mut stream = TcpStream::connect(broker).await?;
        stream.write_all(&request).await?;
        let length = stream.read_u32().await?;
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    talking.await.map_err(|error| failed().caused_by(error))
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
    string(&mut body, "factlib-testing");
    body.extend((rights.len() as u32).to_be_bytes());
    for right in rights {
        body.push(resource);
        string(&mut body, prefix);
        body.push(PREFIXED);
        string(&mut body, &format!("User:{user}"));
        string(&mut body, "*");
        body.extend([*right as u8, permission]);
    }
    let mut request = (body.len() as u32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}

/// The first error code that is not 0, else 0; none for an answer that is cut short.
fn refusal(answer: &[u8]) -> Option<i16> {
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
    Error::new(ErrorKind::KafkaUnavailable, "cannot give rights in Kafka")
}
