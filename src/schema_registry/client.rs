//! Asks the schema registry over HTTP (through `schema_registry_converter`) and turns its answers
//! into prefixes or errors.

use std::{error::Error as _, path::Path};

use bytes::Bytes;
use factlib_tls::refusal::untrusted;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::ClientBuilder;
use schema_registry_converter::{
    async_impl::{
        proto_raw::ProtoRawEncoder,
        schema_registry::{
            SrSettings, get_all_subjects, get_schema_by_subject_and_version, post_schema,
        },
    },
    error::SRCError,
    schema_registry_common::{
        RawError, SchemaType, SubjectNameStrategy, SuppliedSchema, get_payload,
    },
};
use secrecy::ExposeSecret;

use crate::format::{Schema, SchemaRef};
use crate::{Error, ErrorKind, Result, config::SchemaRegistryConfig, error::error_chain, https};

/// The protobuf schema of `OutboxEvent`.
const PROTOBUF: &str = include_str!("../../proto/factlib/v1/outbox.proto");

/// The JSON schema of `OutboxEvent`, as the format `json` writes it.
const JSON: &str = include_str!("../../proto/factlib/v1/outbox.schema.json");

/// Characters to escape in a path segment: all but RFC 3986's unreserved ones.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) struct Client {
    settings: SrSettings,
    auto_register: bool,
    /// The registry's URLs, for error texts.
    urls: Vec<String>,
}

impl Client {
    /// Creates a client; none if no registry is configured.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a certificate that can't be read.
    pub fn new(config: &SchemaRegistryConfig) -> Result<Option<Self>> {
        let Some((first, others)) = config.url.split_first() else { return Ok(None) };
        let trimmed = |url: &String| url.trim_end_matches('/').to_owned();
        let mut settings = SrSettings::new_builder(trimmed(first));
        for url in others {
            settings.add_url(trimmed(url));
        }
        if let Some(username) = &config.username {
            let password = config.password.as_ref().map(ExposeSecret::expose_secret);
            settings.set_basic_authorization(username, password);
        }
        let settings = settings.set_timeout(config.timeout).build_with(http(config)?);
        let settings = settings.map_err(|error| {
            let what = "cannot make a client of the schema registry";
            Error::new(ErrorKind::Config, what).caused_by(error)
        })?;
        let urls = config.url.clone();
        Ok(Some(Client { settings, auto_register: config.auto_register, urls }))
    }

    /// Counts the registry's subjects.
    ///
    /// # Errors
    /// [`ErrorKind::RegistryUnavailable`] or [`ErrorKind::RegistryRefused`].
    pub async fn subjects(&self) -> Result<usize> {
        let subjects = get_all_subjects(&self.settings).await;
        Ok(subjects.map_err(|error| self.error(None, error))?.len())
    }

    /// The prefix for values of a schema: the magic byte, the schema's id and, for protobuf, the
    /// index of the message in the schema.
    ///
    /// # Errors
    /// [`ErrorKind::RegistryUnavailable`], [`ErrorKind::RegistryRefused`], or
    /// [`ErrorKind::RecordRefused`] if the registry has no such schema or does not accept it.
    pub async fn prefix(&self, schema_ref: &SchemaRef) -> Result<Bytes> {
        let subject = utf8_percent_encode(&schema_ref.subject, IN_PATH).to_string();
        if let Some(schema) = own_schema(&schema_ref.schema).filter(|_| self.auto_register) {
            let registered = post_schema(&self.settings, subject, schema).await;
            let id = registered.map_err(|error| self.error(Some(schema_ref), error))?.id;
            // A single zero is short for the first message.
            let message = if schema_ref.schema == Schema::Protobuf { vec![0] } else { Vec::new() };
            return Ok(get_payload(id, message).into());
        }
        let latest = get_schema_by_subject_and_version(&self.settings, &subject, None).await;
        let registered = latest.map_err(|error| self.error(Some(schema_ref), error))?;
        if let Some(wrong) = wrong_type(&schema_ref.schema, &registered.schema_type) {
            let what = format!("subject {} of the schema registry has {wrong}", schema_ref.subject);
            return Err(Error::new(ErrorKind::RecordRefused, what));
        }
        if registered.schema_type == SchemaType::Protobuf {
            return self.protobuf_prefix(schema_ref, subject).await;
        }
        Ok(get_payload(registered.id, Vec::new()).into())
    }

    /// The prefix for a protobuf schema, which includes the index of the message.
    async fn protobuf_prefix(&self, schema_ref: &SchemaRef, subject: String) -> Result<Bytes> {
        // Create a new encoder each time, because it caches errors.
        let encoder = ProtoRawEncoder::new(self.settings.clone());
        // This strategy is used only because it takes a subject as it is.
        let latest = SubjectNameStrategy::RecordNameStrategy(subject);
        let name = schema_ref.schema.name();
        let found = match encoder.encode(&[], name, latest.clone()).await {
            // If the schema has one message only, it is found without a name.
            Err(error) if !error.retriable => encoder.encode_single_message(&[], latest).await,
            found => found,
        };
        found.map(Bytes::from).map_err(|error| match status(&error) {
            Some(_) => self.error(Some(schema_ref), error),
            None if error.retriable => self.error(Some(schema_ref), error),
            None => {
                let subject = &schema_ref.subject;
                let what = format!("the schema of subject {subject} has no message {name:?}");
                Error::new(ErrorKind::RecordRefused, what)
                    .remedy("name it with `schema` in the [[route]]")
            }
        })
    }

    fn error(&self, schema_ref: Option<&SchemaRef>, error: SRCError) -> Error {
        let about = match schema_ref {
            Some(SchemaRef { subject, .. }) => format!("subject {subject}"),
            None => "the list of subjects".into(),
        };
        let answer = error.source().and_then(|cause| cause.downcast_ref::<RawError>()).cloned();
        let code = answer.as_ref().map_or(0, |answer| answer.error_code);
        let untrusted = error.source().and_then(untrusted);
        let (kind, what, remedy) = match (status(&error), &untrusted) {
            (Some(status), _) => self.refused(status, code, &about),
            (None, Some(_)) => self.untrusted(),
            (None, None) => unanswered(&about),
        };
        let why = match (answer, untrusted, error.source()) {
            (Some(answer), _, _) if answer.error_code > 0 => answer.message,
            (_, Some(untrusted), _) => untrusted.reason,
            (_, _, Some(cause)) => error_chain(cause),
            (_, _, None) => error.error,
        };
        Error::new(kind, what).caused_by(why).remedy(remedy)
    }

    /// Judges an HTTP status and the registry's own error code.
    fn refused(&self, status: u16, code: u32, about: &str) -> ErrorParts {
        match status {
            401 | 403 => (
                ErrorKind::RegistryRefused,
                format!("the schema registry refuses {about}"),
                "check schema_registry.username and schema_registry.password",
            ),
            // The subject or version is missing, and not the page.
            404 if matches!(code, 40401 | 40402) => (
                ErrorKind::RecordRefused,
                format!("the schema registry has no schema of {about}"),
                "register it, and redrive the dead letters",
            ),
            404 | 405 => (
                ErrorKind::RegistryRefused,
                format!("the server at {} is not a schema registry", self.urls.join(", ")),
                "check schema_registry.url, with its path",
            ),
            408 | 429 => unanswered(about),
            400..=499 => (
                ErrorKind::RecordRefused,
                format!("the schema registry does not take the schema for {about}"),
                "another schema is there, or its compatibility forbids this one",
            ),
            _ => unanswered(about),
        }
    }

    /// With several URLs only the last one's answer is known, and the others may come back.
    fn untrusted(&self) -> ErrorParts {
        let kind = match self.urls.len() {
            1 => ErrorKind::RegistryRefused,
            _ => ErrorKind::RegistryUnavailable,
        };
        let urls = self.urls.join(", ");
        (
            kind,
            format!("the certificate of the schema registry at {urls} is not trusted"),
            "set schema_registry.tls_ca to its authority's certificate; its host name and \
             validity count too",
        )
    }
}

/// Kind, text and remedy of an error.
type ErrorParts = (ErrorKind, String, &'static str);

fn unanswered(about: &str) -> ErrorParts {
    (
        ErrorKind::RegistryUnavailable,
        format!("the schema registry does not answer for {about}"),
        "is it running at schema_registry.url?",
    )
}

/// The schema to register, if it is one of factlib's own.
fn own_schema(schema: &Schema) -> Option<SuppliedSchema> {
    let supplied = |kind, text: &str| {
        SuppliedSchema::new(Some(schema.name().to_owned()), kind, text.to_owned())
    };
    match schema {
        Schema::Protobuf => Some(supplied(SchemaType::Protobuf, PROTOBUF)),
        Schema::Json => Some(supplied(SchemaType::Json, JSON)),
        Schema::Payload(_) => None,
    }
}

/// Describes the type of a registered schema that does not fit the values.
fn wrong_type(schema: &Schema, registered: &SchemaType) -> Option<&'static str> {
    let (fits, other) = match schema {
        Schema::Protobuf => (*registered == SchemaType::Protobuf, "a schema that is not protobuf"),
        Schema::Json => (*registered == SchemaType::Json, "a schema that is not JSON"),
        Schema::Payload(_) => (true, ""),
    };
    (!fits).then_some(other)
}

fn http(config: &SchemaRegistryConfig) -> Result<ClientBuilder> {
    let authorities = config.tls_ca.as_deref();
    let tls = https::tls(authorities).map_err(|error| {
        let path = authorities.unwrap_or(Path::new("")).display();
        let what = format!("cannot read schema_registry.tls_ca = {path}");
        Error::new(ErrorKind::Config, what).caused_by(error)
    })?;
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls))
}

/// The HTTP status of an error, which appears only in its text.
fn status(error: &SRCError) -> Option<u16> {
    let (_, status) = error.error.split_once("failed with status ")?;
    status.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
        task::JoinHandle,
    };

    use super::*;

    /// A registry that gives the same answer to every request, or never answers if it is empty.
    async fn registry(answer: &str) -> (String, mpsc::UnboundedReceiver<String>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (seen, requests) = mpsc::unbounded_channel();
        let (head, body) = answer.split_once(' ').unwrap_or((answer, ""));
        let response = format!(
            "HTTP/1.1 {head} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let silent = answer.is_empty();
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 16_384];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let _ = seen.send(String::from_utf8_lossy(&request[..length]).into_owned());
                if !silent {
                    let _ = stream.write_all(response.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
                open.push(stream);
            }
        });
        (url, requests, serving)
    }

    fn config(urls: &[&str]) -> SchemaRegistryConfig {
        SchemaRegistryConfig {
            url: urls.iter().map(|url| url.to_string()).collect(),
            username: Some("relay".into()),
            password: Some("hunter2".to_owned().into()),
            timeout: Duration::from_secs(5),
            ..Default::default()
        }
    }

    async fn ask(config: &SchemaRegistryConfig, schema: Schema) -> Result<Bytes> {
        let client = Client::new(config).expect("settings").expect("a registry");
        client.prefix(&SchemaRef { subject: "a/b?c".into(), schema }).await
    }

    #[tokio::test]
    async fn what_the_registry_says_is_waited_for_refuses_a_record_or_ends_the_relay() {
        use ErrorKind::{RecordRefused, RegistryRefused, RegistryUnavailable};

        let silent = "is it running at schema_registry.url?";
        let login = "check schema_registry.username and schema_registry.password";
        let page = "check schema_registry.url, with its path";
        let taken = "another schema is there, or its compatibility forbids this one";
        for (answer, kind, remedy) in [
            ("500 {\"error_code\":50001,\"message\":\"no store\"}", RegistryUnavailable, silent),
            ("503 <html>", RegistryUnavailable, silent),
            ("429 {\"error_code\":42901,\"message\":\"slowly\"}", RegistryUnavailable, silent),
            ("200 <html>", RegistryUnavailable, silent),
            ("401 {\"error_code\":40101,\"message\":\"who?\"}", RegistryRefused, login),
            ("403 <html>", RegistryRefused, login),
            ("404 <html>", RegistryRefused, page),
            (
                "404 {\"error_code\":40401,\"message\":\"no subject\"}",
                RecordRefused,
                "register it, and redrive the dead letters",
            ),
            ("409 {\"error_code\":40901,\"message\":\"incompatible\"}", RecordRefused, taken),
            ("422 {\"error_code\":42201,\"message\":\"invalid\"}", RecordRefused, taken),
        ] {
            let (url, _requests, serving) = registry(answer).await;
            let error = ask(&config(&[&url]), Schema::Json).await.expect_err(answer);
            assert_eq!((error.kind(), error.advice()), (kind, Some(remedy)), "{answer}: {error}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
            serving.abort();
        }
    }

    #[tokio::test]
    async fn one_that_is_silent_or_away_is_waited_for_within_the_limit() {
        let (silent, _requests, _serving) = registry("").await;
        let mut config = config(&[&silent]);
        config.timeout = Duration::from_millis(200);
        let begin = Instant::now();
        let error = ask(&config, Schema::Json).await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::RegistryUnavailable, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(20));
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        config.url = vec![format!("http://{}", gone.local_addr().expect("bound"))];
        drop(gone);
        let error = ask(&config, Schema::Json).await.expect_err("nobody there");
        assert_eq!(error.kind(), ErrorKind::RegistryUnavailable, "{error}");
    }

    #[tokio::test]
    async fn the_next_one_is_asked_with_the_user_and_the_subject_as_one_segment() {
        let (away, _requests, _serving) = registry("503 <html>").await;
        let (url, mut requests, _serving) = registry("200 {\"id\":258}").await;
        let config = config(&[&away, &format!("{url}/api/")]);
        let prefix = ask(&config, Schema::Protobuf).await.expect("an id");
        assert_eq!(&prefix[..], [0, 0, 0, 1, 2, 0], "magic byte, id, first message");
        let request = requests.recv().await.expect("a request").to_lowercase();
        assert!(request.starts_with("post /api/subjects/a%2fb%3fc/versions "), "{request}");
        // relay:hunter2
        assert!(request.contains("authorization: basic cmvsyxk6ahvudgvymg=="), "{request}");
    }

    #[tokio::test]
    async fn a_subject_of_another_kind_refuses_the_record() {
        let answer = r#"200 {"id":1,"schemaType":"AVRO","schema":"\"long\""}"#;
        let (url, mut requests, _serving) = registry(answer).await;
        let config = SchemaRegistryConfig { auto_register: false, ..config(&[&url]) };
        let error = ask(&config, Schema::Json).await.expect_err("another kind");
        assert_eq!(error.kind(), ErrorKind::RecordRefused, "{error}");
        let wrong = "subject a/b?c of the schema registry has a schema that is not JSON";
        assert_eq!(error.to_string(), wrong);
        let error = ask(&config, Schema::Protobuf).await.expect_err("another kind");
        assert_eq!(error.to_string(), wrong.replace("JSON", "protobuf"));
        let request = requests.recv().await.expect("a request");
        assert!(request.starts_with("GET /subjects/a%2Fb%3Fc/versions/latest "), "{request}");
        let prefix = ask(&config, Schema::Payload("x".into())).await.expect("an id");
        assert_eq!(&prefix[..], [0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_json_schema_has_each_field_that_the_format_writes() {
        let schema: serde_json::Value = serde_json::from_str(JSON).expect("JSON");
        let fields = schema["properties"].as_object().expect("properties");
        let mut event = crate::proto::OutboxEvent {
            aggregate_type: "a".into(),
            created_at: 1,
            payload: "{}".into(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            trace_info: Some(crate::proto::TraceInfo {
                metadata: [("k".to_owned(), "v".to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut written = std::collections::BTreeSet::new();
        for payload in ["{}", "no JSON"] {
            event.payload = payload.into();
            let json = crate::format::envelope_as_json(&event);
            written.extend(json.as_object().expect("an object").keys().cloned());
        }
        assert_eq!(written, fields.keys().cloned().collect());
    }
}
