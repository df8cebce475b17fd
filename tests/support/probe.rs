//! A probe: asks a relay over HTTP.

use std::{net::TcpListener, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

pub const SOON: Duration = Duration::from_secs(30);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status code and body; none while nobody listens.
pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.into()))
}

/// Asks until the answer fits. Nothing signals it: asking is what probes do.
pub async fn until(port: u16, path: &str, fits: impl Fn(u16, &str) -> bool) -> String {
    until_within(SOON, port, path, fits).await
}

/// Asks until the answer fits, for so long.
pub async fn until_within(
    limit: Duration,
    port: u16,
    path: &str,
    fits: impl Fn(u16, &str) -> bool,
) -> String {
    let mut last = None;
    let asking = async {
        loop {
            match get(port, path).await {
                Some((code, body)) if fits(code, &body) => return body,
                other => last = other,
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = timeout(limit, asking).await;
    answer.unwrap_or_else(|_| panic!("{path} answered {last:?} to the end"))
}
