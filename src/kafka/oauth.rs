//! Fetches OAUTHBEARER tokens from an OpenID provider, with the grant for client credentials
//! (RFC 6749, section 4.4).
//!
//! A token is used until four fifths of its lifetime are over, and then replaced. If the provider
//! can't be reached then, it is used to its end.

use std::{fmt::Display, io, path::Path, time::Duration};

use factlib_kafka::sasl::{FetchingToken, Token, TokenSource};
use factlib_tls::refusal::untrusted;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Response,
    header::{ACCEPT, CONTENT_TYPE},
    redirect::Policy,
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::TokenEndpoint;
use crate::{error::error_chain, https};

/// Share of a token's lifetime after which the next one is fetched. A connection logs in again
/// after the same share of its session, and so never with a token that is about to end.
const RENEWAL_SHARE: f64 = 0.8;

/// Largest answer of a provider; tokens have a few KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Longest part of a provider's error that is shown.
const MAX_ERROR_CHARS: usize = 300;

/// Characters to escape in a form: all but RFC 3986's unreserved ones.
const IN_FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Tokens of one client, cached while they are valid.
pub(super) struct ClientCredentials {
    endpoint: TokenEndpoint,
    cached: Mutex<Option<Cached>>,
}

struct Cached {
    token: Token,
    renew_at: Instant,
    ends_at: Instant,
}

/// A provider's answer with a token.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: Option<f64>,
}

/// A provider's answer with an error.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl ClientCredentials {
    pub fn new(endpoint: TokenEndpoint) -> Self {
        ClientCredentials { endpoint, cached: Mutex::default() }
    }

    /// The cached token, or a new one. Logins that ask at the same time share one request.
    async fn current(&self) -> io::Result<Token> {
        let mut cached = self.cached.lock().await;
        if let Some(cached) = cached.as_ref().filter(|cached| Instant::now() < cached.renew_at) {
            return Ok(cached.token.clone());
        }
        let asked = Instant::now();
        let granted = match self.fetch().await {
            Ok(granted) => granted,
            Err(error) => {
                let valid = cached.as_ref().filter(|cached| Instant::now() < cached.ends_at);
                return valid.map(|cached| cached.token.clone()).ok_or(error);
            }
        };
        let extensions = self.endpoint.extensions.clone();
        let token = Token { value: granted.access_token, extensions };
        let lifetime = granted.expires_in.and_then(|s| Duration::try_from_secs_f64(s).ok());
        *cached = lifetime.and_then(|lifetime| {
            Some(Cached {
                token: token.clone(),
                renew_at: asked.checked_add(lifetime.mul_f64(RENEWAL_SHARE))?,
                ends_at: asked.checked_add(lifetime)?,
            })
        });
        Ok(token)
    }

    async fn fetch(&self) -> io::Result<Granted> {
        let TokenEndpoint { url, client_id, client_secret, scope, .. } = &self.endpoint;
        let encoded = |text: &str| utf8_percent_encode(text, IN_FORM).to_string();
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = scope {
            form += &format!("&scope={}", encoded(scope));
        }
        let request = self
            .http()?
            .post(url)
            .basic_auth(encoded(client_id), Some(encoded(&client_secret.read()?)))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form);
        let unreachable = |error: reqwest::Error| match untrusted(&error) {
            Some(untrusted) => {
                let reason = untrusted.reason;
                self.failed(format_args!("can't be trusted: its certificate: {reason}"))
            }
            None => {
                let error = error_chain(&error.without_url());
                self.failed(format_args!("can't be reached: {error}"))
            }
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = body(answer).await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(self.failed(format_args!("answered {status}{}", reason(&body))));
        }
        let granted = serde_json::from_slice::<Granted>(&body);
        // The error of the parser may quote the token.
        granted.map_err(|_| self.failed("answered without an access_token"))
    }

    /// A client for one request: it reads the certificates again, and its connection belongs to no
    /// other thread.
    fn http(&self) -> io::Result<reqwest::Client> {
        let authorities = self.endpoint.authorities.as_deref();
        let tls = https::tls(authorities).map_err(|error| {
            let path = authorities.unwrap_or(Path::new("")).display();
            self.failed(format_args!("can't be asked: {path}: {error}"))
        })?;
        let builder = reqwest::Client::builder()
            .timeout(self.endpoint.timeout)
            .tls_backend_preconfigured(tls)
            // A redirect would carry the secret to another host.
            .redirect(Policy::none());
        builder.build().map_err(io::Error::other)
    }

    fn failed(&self, what: impl Display) -> io::Error {
        io::Error::other(format!("the token endpoint {} {what}", self.endpoint.url))
    }
}

impl TokenSource for ClientCredentials {
    fn token(&self) -> FetchingToken<'_> {
        Box::pin(self.current())
    }
}

/// The start of the answer's body, up to the limit.
async fn body(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(body)
}

/// The provider's own words for an error, to follow the status; empty if it has none.
fn reason(body: &[u8]) -> String {
    let Ok(Refused { error, error_description }) = serde_json::from_slice(body) else {
        return String::new();
    };
    let description = error_description.map(|text| format!(" ({text})")).unwrap_or_default();
    let text = format!(": {error}{description}");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;
    use crate::kafka::Secret;

    const GRANTED: &str = r#"{"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 600}"#;

    /// A provider that gives these answers, one after the other, and reports each request.
    async fn provider(
        answers: Vec<(u16, &'static str)>,
    ) -> (ClientCredentials, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("bound"));
        let (requests, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for (status, answer) in answers {
                let (mut socket, _) = listener.accept().await.expect("a client");
                let mut request = Vec::new();
                while !request.ends_with(b"scope=shop%20all") {
                    request.push(socket.read_u8().await.expect("the request"));
                }
                requests.send(String::from_utf8(request).expect("text")).expect("a test");
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                );
                socket.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        (ClientCredentials::new(endpoint(url)), received)
    }

    fn endpoint(url: String) -> TokenEndpoint {
        TokenEndpoint {
            url,
            client_id: "relay".into(),
            client_secret: Secret::new("p:w d".to_owned().into(), None),
            scope: Some("shop all".into()),
            authorities: None,
            extensions: vec![("logicalCluster".into(), "lkc-1".into())],
            timeout: Duration::from_secs(10),
        }
    }

    #[tokio::test]
    async fn a_token_is_asked_for_as_the_rfc_has_it_and_used_while_it_is_valid() {
        let (source, mut requests) = provider(vec![(200, GRANTED), (200, GRANTED)]).await;
        for _ in 0..2 {
            let token = source.token().await.expect("a token");
            assert_eq!(token.value, "a.b.c");
            assert_eq!(token.extensions, [("logicalCluster".into(), "lkc-1".into())]);
        }
        let request = requests.recv().await.expect("one request");
        assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=shop%20all"));
        let login = BASE64_STANDARD.encode("relay:p%3Aw%20d");
        assert!(request.contains(&format!("authorization: Basic {login}\r\n")), "{request}");
        assert!(requests.try_recv().is_err(), "the second one is the first");
        // Four fifths of its life are over.
        source.cached.lock().await.as_mut().expect("cached").renew_at = Instant::now();
        source.token().await.expect("a token");
        requests.recv().await.expect("another request");
    }

    #[tokio::test]
    async fn a_token_is_used_to_its_end_while_the_provider_is_away() {
        let (source, _requests) = provider(vec![(200, GRANTED), (503, "")]).await;
        source.token().await.expect("a token");
        source.cached.lock().await.as_mut().expect("cached").renew_at = Instant::now();
        assert_eq!(source.token().await.expect("the same").value, "a.b.c");
        source.cached.lock().await.as_mut().expect("cached").ends_at = Instant::now();
        let error = source.token().await.expect_err("nobody listens").to_string();
        assert!(error.contains("/token can't be reached: "), "{error}");
        assert!(error.contains("onnection refused"), "{error}");
    }

    #[tokio::test]
    async fn a_token_without_a_lifetime_is_used_once() {
        let answer = r#"{"access_token": "once"}"#;
        let (source, mut requests) = provider(vec![(200, answer), (200, answer)]).await;
        for _ in 0..2 {
            assert_eq!(source.token().await.expect("a token").value, "once");
            requests.recv().await.expect("a request");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_providers_words_and_without_secrets() {
        let (source, _requests) = provider(vec![
            (401, r#"{"error": "invalid_client", "error_description": "unknown\nclient"}"#),
            (302, "moved"),
            (200, r#"{"access_token": 12345}"#),
        ])
        .await;
        let url = source.endpoint.url.clone();
        for expected in [
            "answered 401 Unauthorized: invalid_client (unknown client)",
            "answered 302 Found",
            "answered without an access_token",
        ] {
            let error = source.token().await.expect_err(expected).to_string();
            assert_eq!(error, format!("the token endpoint {url} {expected}"));
        }
    }

    #[tokio::test]
    async fn the_secret_and_the_authorities_are_read_for_each_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut endpoint = endpoint("https://127.0.0.1:1/token".into());
        endpoint.authorities = Some(folder.path().join("ca.crt"));
        let source = ClientCredentials::new(endpoint.clone());
        let error = source.token().await.expect_err("no file").to_string();
        assert!(error.contains("can't be asked: ") && error.contains("ca.crt: No such"));
        endpoint.authorities = None;
        let path = Some(folder.path().join("secret"));
        endpoint.client_secret = Secret::new("old".to_owned().into(), path);
        let error = ClientCredentials::new(endpoint).token().await.expect_err("no file");
        assert!(error.to_string().starts_with("cannot read"), "{error}");
    }
}
