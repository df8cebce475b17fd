//! The status page, in a real browser.

mod access;
mod axe;
mod browser;
mod controls;
mod fleet;
mod live;
mod manners;
mod search;

use std::{net::TcpListener, time::Duration};

use factlib::{
    config::Config,
    emit::{Emitter, Fact},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::Client;

/// How long anything may take that should take a second; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "a token of the tests";

/// Turns the page on; gives its address.
pub fn serve(config: &mut Config) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config.http.metrics_port = Some(port);
    config.http.token = Some(TOKEN.replace(' ', "-").into());
    format!("http://127.0.0.1:{port}/")
}

/// Emits facts in a transaction.
pub async fn emit(client: &mut Client, config: &Config, facts: impl IntoIterator<Item = Fact>) {
    let facts: Vec<_> = facts.into_iter().collect();
    let transaction = client.transaction().await.unwrap();
    let emitter = Emitter::new(config.postgres.message_prefix.as_str());
    emitter.emit_all(&transaction, &facts).await.unwrap();
    transaction.commit().await.unwrap();
}

/// So many facts of an aggregate type.
pub fn facts(kind: &'static str, count: u64) -> impl Iterator<Item = Fact> {
    let event_type = format!("{kind}.placed");
    (0..count).map(move |id| Fact::new(kind, format!("{}", 1000 + id), event_type.as_str()))
}

/// Status code, head and body of a request.
pub async fn ask(url: &str, request: &str, headers: &[&str], body: &str) -> (u16, String, String) {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await.unwrap();
    let named = headers.iter().any(|header| header.starts_with("Host:"));
    let mut text = format!("{request} HTTP/1.1\r\n");
    if !named {
        text += &format!("Host: {host}\r\n");
    }
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, head.to_lowercase(), body.to_owned())
}

/// What `/status.json` says.
pub async fn status(url: &str) -> Value {
    let (code, _, body) = ask(url, "GET /status.json", &[], "").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}
