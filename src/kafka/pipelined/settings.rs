//! `[kafka]` as the settings of `factlib-kafka`.

use std::{path::Path, sync::Arc, time::Duration};

use factlib_kafka::{
    Settings,
    sasl::{Hash, Login, Plain, Scram},
    tls::{KeyPassword, Pem, Tls},
};
use secrecy::ExposeSecret;

use crate::{
    Error, ErrorKind, Result,
    kafka::{Compression, KafkaSettings},
};

/// The librdkafka properties that have an equivalent here.
pub(crate) const PROPERTIES: &[&str] = &[
    "batch.size",
    "compression.level",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
];

/// Makes the client's settings.
///
/// # Errors
/// [`ErrorKind::Config`] for a property whose value is no number.
pub(crate) fn client_settings(kafka: &KafkaSettings) -> Result<Settings> {
    let mut settings = Settings::new(kafka.brokers.clone());
    settings.client_id.clone_from(&kafka.client_id);
    settings.compression = match kafka.compression {
        Compression::None => factlib_kafka::Compression::None,
        Compression::Gzip => factlib_kafka::Compression::Gzip,
        Compression::Snappy => factlib_kafka::Compression::Snappy,
        Compression::Lz4 => factlib_kafka::Compression::Lz4,
        Compression::Zstd => factlib_kafka::Compression::Zstd,
    };
    settings.login = login(kafka);
    if kafka.tls {
        settings.connector = Arc::new(tls(kafka));
    }
    let ms = |name| -> Result<_> { Ok(number(kafka, name)?.map(Duration::from_millis)) };
    settings.compression_level = number(kafka, "compression.level")?;
    settings.batch_bytes = number(kafka, "batch.size")?.unwrap_or(settings.batch_bytes);
    settings.backoff = ms("reconnect.backoff.ms")?.unwrap_or(settings.backoff);
    settings.backoff_max = ms("reconnect.backoff.max.ms")?.unwrap_or(settings.backoff_max);
    settings.request_timeout = ms("request.timeout.ms")?.unwrap_or(settings.request_timeout);
    Ok(settings)
}

fn login(kafka: &KafkaSettings) -> Option<Arc<dyn Login>> {
    let (user, password) = (kafka.username.clone()?, kafka.password.as_ref()?);
    let password = password.expose_secret();
    // The configuration was checked: there is no fourth.
    Some(match kafka.sasl_mechanism.as_str() {
        "PLAIN" => Arc::new(Plain::new(user, password)),
        "SCRAM-SHA-256" => Arc::new(Scram::new(Hash::Sha256, user, password)),
        _ => Arc::new(Scram::new(Hash::Sha512, user, password)),
    })
}

fn tls(kafka: &KafkaSettings) -> Tls {
    let file = |name| kafka.properties.get(name).map(|path| Pem::from(Path::new(path)));
    let mut tls = Tls::default();
    tls.authorities = kafka.tls_ca.as_deref().map(Pem::from).or_else(|| file("ssl.ca.location"));
    tls.certificate = file("ssl.certificate.location");
    tls.key = file("ssl.key.location");
    tls.key_password = kafka.properties.get("ssl.key.password").map(KeyPassword::new);
    tls
}

fn number<T: std::str::FromStr>(kafka: &KafkaSettings, name: &str) -> Result<Option<T>> {
    let Some(value) = kafka.properties.get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| {
        Error::new(ErrorKind::Config, format!("kafka.properties.{name} = {value:?} is no number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaConfig;

    fn made(properties: &[(&str, &str)]) -> Result<Settings> {
        let mut config = KafkaConfig::default();
        let pairs = properties.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        config.properties = pairs.collect();
        client_settings(&config.settings())
    }

    #[test]
    fn properties_with_an_equivalent_are_understood() {
        let settings = made(&[
            ("batch.size", "2000"),
            ("compression.level", "9"),
            ("request.timeout.ms", "1500"),
            ("reconnect.backoff.ms", "7"),
            ("reconnect.backoff.max.ms", "70"),
        ]);
        let settings = settings.expect("numbers");
        assert_eq!((settings.batch_bytes, settings.compression_level), (2_000, Some(9)));
        assert_eq!(settings.request_timeout, Duration::from_millis(1_500));
        assert_eq!(settings.backoff, Duration::from_millis(7));
        assert_eq!(settings.backoff_max, Duration::from_millis(70));
    }

    #[test]
    fn a_property_that_is_no_number_is_refused() {
        let error = made(&[("batch.size", "many")]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "kafka.properties.batch.size = \"many\" is no number");
    }
}
