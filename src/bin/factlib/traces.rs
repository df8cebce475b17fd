//! Exports OpenTelemetry traces by OTLP, as the standard variables of the environment say.

use std::{env, error::Error as StdError, io, thread, time::Duration};

use factlib::{Error, ErrorKind, Result};
use factlib_tls::{Options, authorities};
use opentelemetry::global;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use slog::{Logger, info, warn};

/// Each turns the export on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
/// OpenTelemetry's default for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that the end waits for the last spans to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Exports until it is dropped; then the last spans leave.
pub struct TraceExport {
    provider: SdkTracerProvider,
    log: Logger,
}

impl TraceExport {
    /// Starts the export; none if the environment has no endpoint, or turns it off.
    ///
    /// # Errors
    /// The environment asks for a protocol or an endpoint that can't be used.
    pub fn from_environment(log: &Logger) -> Result<Option<Self>> {
        let Some(endpoint) = ENDPOINTS.into_iter().find_map(value) else { return Ok(None) };
        let is_off = value("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || value("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        if is_off {
            return Ok(None);
        }
        if let Some(protocol) = PROTOCOLS.into_iter().find_map(value)
            && protocol != "http/protobuf"
        {
            let what = format!("traces can't be exported by the protocol {protocol}");
            let remedy = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's \
                          endpoint for it, whose port is 4318 by default";
            return Err(Error::new(ErrorKind::Config, what).remedy(remedy));
        }
        let unusable = |error: Box<dyn StdError + Send + Sync>| {
            let what = format!("traces can't be exported to {endpoint}");
            let remedy = "correct OTEL_EXPORTER_OTLP_ENDPOINT, such as http://localhost:4318";
            Error::new(ErrorKind::Config, what).caused_by(error).remedy(remedy)
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(http().map_err(unusable)?)
            .build()
            .map_err(|error| unusable(error.into()))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        global::set_tracer_provider(provider.clone());
        info!(log, "exporting traces"; "endpoint" => endpoint);
        Ok(Some(TraceExport { provider, log: log.clone() }))
    }
}

impl Drop for TraceExport {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_LIMIT) {
            warn!(self.log, "the last traces may not have been exported"; "error" => %error);
        }
    }
}

/// Makes the client that sends spans, on the exporter's own thread.
fn http() -> Result<reqwest::blocking::Client, Box<dyn StdError + Send + Sync>> {
    // Without them, every certificate is refused, and this matters only for https.
    let trusted = authorities::system().unwrap_or_default();
    let tls = Options { trusted, ..Options::default() }.into_config()?;
    let timeout = TIMEOUTS.into_iter().find_map(value).and_then(|ms| ms.parse().ok());
    let timeout = timeout.map_or(TIMEOUT, Duration::from_millis);
    let client =
        reqwest::blocking::Client::builder().timeout(timeout).tls_backend_preconfigured(tls);
    // Not on this thread: a blocking client can't be made inside an async runtime.
    let made = thread::spawn(|| client.build()).join();
    Ok(made.map_err(|_| io::Error::other("the thread that makes the HTTP client panicked"))??)
}

/// The process as traces name it: `factlib`, unless the environment names it.
fn resource() -> Resource {
    let builder = Resource::builder()
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let attributes = value("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    match value("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=") {
        true => builder.build(),
        false => builder.with_service_name("factlib").build(),
    }
}

/// A variable's value; none for an empty one, which counts as unset.
fn value(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
