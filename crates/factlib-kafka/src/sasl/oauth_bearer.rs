//! OAUTHBEARER (RFC 7628, KIP-255): logs in with a token instead of a password.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};

use super::{Beginning, Exchange, Login};

/// Future that fetches a token.
pub type FetchingToken<'a> = Pin<Box<dyn Future<Output = io::Result<Token>> + Send + 'a>>;

/// Provides a token for each login, for example from an OpenID provider or a cloud's signer.
pub trait TokenSource: Send + Sync + 'static {
    /// Returns a token that is valid now. It is called for each connection, so a source should
    /// cache its token while it is valid.
    fn token(&self) -> FetchingToken<'_>;
}

/// A bearer token.
#[derive(Clone)]
pub struct Token {
    /// The token as sent to the broker, such as a JWT.
    pub value: String,
    /// SASL extensions, which some brokers require (KIP-342).
    pub extensions: Vec<(String, String)>,
}

impl Token {
    /// Creates a token without extensions.
    pub fn new(value: impl Into<String>) -> Self {
        Token { value: value.into(), extensions: Vec::new() }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// Logs in with a token.
#[derive(Clone)]
pub struct OauthBearer(Arc<dyn TokenSource>);

impl OauthBearer {
    /// Logs in with the tokens of this source.
    pub fn new(source: impl TokenSource) -> Self {
        OauthBearer(Arc::new(source))
    }
}

impl Login for OauthBearer {
    fn mechanism(&self) -> &'static str {
        "OAUTHBEARER"
    }

    fn begin(&self) -> Beginning<'_> {
        Box::pin(async {
            let token = self.0.token().await?;
            let valid = |text: &str| !text.contains('\x01');
            let are_valid =
                token.extensions.iter().all(|(name, value)| valid(name) && valid(value));
            if !valid(&token.value) || !are_valid {
                return Err(io::Error::other(
                    "the token or an extension contains the control character U+0001",
                ));
            }
            Ok(Box::new(Exchanging::First(token)) as Box<dyn Exchange>)
        })
    }
}

enum Exchanging {
    First(Token),
    Sent,
    Refused(String),
}

impl Exchange for Exchanging {
    fn next(&mut self, said: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match std::mem::replace(self, Exchanging::Sent) {
            Exchanging::First(Token { value, extensions }) => {
                let mut message = format!("n,,\x01auth=Bearer {value}\x01");
                for (name, value) in extensions {
                    message += &format!("{name}={value}\x01");
                }
                message.push('\x01');
                Ok(Some(message.into_bytes()))
            }
            Exchanging::Sent if said.is_empty() => Ok(None),
            // A refusal comes as text, and the broker expects a reply before it fails the login.
            Exchanging::Sent => {
                *self = Exchanging::Refused(String::from_utf8_lossy(said).into_owned());
                Ok(Some(b"\x01".to_vec()))
            }
            Exchanging::Refused(why) => Err(io::Error::other(format!("token refused: {why}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static str);

    impl TokenSource for Fixed {
        fn token(&self) -> FetchingToken<'_> {
            let token = Token {
                value: self.0.into(),
                extensions: vec![("logicalCluster".into(), "lkc-1".into())],
            };
            Box::pin(async { Ok(token) })
        }
    }

    async fn begun(token: &'static str) -> io::Result<Box<dyn Exchange>> {
        let login = OauthBearer::new(Fixed(token));
        login.begin().await
    }

    #[tokio::test]
    async fn a_token_is_sent_once_with_its_extensions() {
        let mut exchange = begun("abc").await.expect("a token");
        let first = exchange.next(b"").expect("a message").expect("one");
        assert_eq!(first, b"n,,\x01auth=Bearer abc\x01logicalCluster=lkc-1\x01\x01");
        assert_eq!(exchange.next(b"").expect("the end"), None);
    }

    #[tokio::test]
    async fn a_refusal_is_answered_and_then_told() {
        let mut exchange = begun("abc").await.expect("a token");
        exchange.next(b"").expect("a message");
        let answer = exchange.next(br#"{"status":"invalid_token"}"#).expect("a message");
        assert_eq!(answer.as_deref(), Some(&b"\x01"[..]));
        let error = exchange.next(b"").expect_err("it was refused");
        assert_eq!(error.to_string(), r#"token refused: {"status":"invalid_token"}"#);
    }

    #[tokio::test]
    async fn a_token_can_t_add_fields_to_the_message() {
        assert!(begun("abc\x01host=evil").await.is_err());
    }
}
