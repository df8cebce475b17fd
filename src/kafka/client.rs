//! Builds librdkafka's configuration: the user's settings, and those that factlib's promises depend
//! on.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::{Compression, KafkaSettings, LoginSettings};

/// The longest wait for an answer, where the user names none.
pub(super) const SOCKET_TIMEOUT_MS: u128 = 20_000;

/// Every client's settings, over those that are there.
fn tell(client: &mut ClientConfig, settings: &KafkaSettings) {
    client
        // An outage is over when the broker is back, not ten seconds later.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // A record may wait for its answer for ever (see `message.timeout.ms`), so a
        // connection that is dead without a word is found by another question that
        // is not answered: after thirty seconds, not after six minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
        .set("client.id", &settings.client_id);
    match &settings.login {
        Some(LoginSettings::Password { mechanism, username, password }) => {
            client
                .set("sasl.mechanism", mechanism.name())
                .set("sasl.username", username)
                .set("sasl.password", password.initial());
        }
        // Without a token, the client waits, and nothing uses it.
        Some(LoginSettings::Token(_)) => _ = client.set("sasl.mechanism", "OAUTHBEARER"),
        None => {}
    }
    let protocol = match (settings.login.is_some(), settings.tls.is_some()) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        let files = [
            ("ssl.ca.location", &tls.authorities),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (name, path) in files {
            if let Some(path) = path {
                client.set(name, path.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            client.set("ssl.key.password", password.initial());
        }
    }
    for (key, value) in &settings.properties {
        client.set(key, value);
    }
    trust_the_system(client);
    client
        .set("bootstrap.servers", settings.brokers.join(","))
        // A broker would otherwise make each topic that it is asked for, with its own defaults.
        // A configuration that names it is refused before.
        .set("allow.auto.create.topics", "false");
    // That a broker hangs up is no more to librdkafka (see `disconnects`).
    client.set_log_level(RDKafkaLogLevel::Info);
}

/// Names the system's authorities, where there is TLS and nobody else is to be trusted: an
/// OpenSSL that we bring along does not know where this system has them.
fn trust_the_system(client: &mut ClientConfig) {
    let encrypted = client.get("security.protocol").is_some_and(|protocol| {
        // librdkafka takes its values in any case.
        protocol.to_ascii_lowercase().ends_with("ssl")
    });
    let said = client.config_map().keys().any(|key| key.starts_with("ssl.ca"));
    if encrypted
        && !said
        && let Some(path) = openssl_probe::probe().cert_file
    {
        client.set("ssl.ca.location", path.to_string_lossy());
    }
}

/// The configuration of a producer; `window_bytes` is the most that it ever has to queue.
pub(crate) fn producer_config(settings: &KafkaSettings, window_bytes: usize) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // Java's: one key, one partition, whoever writes.
        .set("partitioner", "murmur2_random")
        .set("compression.codec", codec(settings.compression))
        // Long enough for a batch to form behind a busy broker, too short to be seen.
        .set("linger.ms", "1")
        // The broker knows how large a record may be; a limit here would only be another one.
        .set("message.max.bytes", "1000000000")
        // The window is what bounds the queue; records cost more there than their bytes.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", kbytes(window_bytes).to_string())
        .set("statistics.interval.ms", settings.statistics_interval.as_millis().to_string());
    tell(&mut client, settings);
    // The promises: see src/lib.rs. A configuration that names them is refused before.
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // With more, librdkafka loses records: where a batch fails and the next one,
        // sent behind it, is taken, it counts the first as written. A broker takes the
        // next one where it knows no record of this producer: on a partition's first.
        .set("max.in.flight.requests.per.connection", "1")
        // A record never times out while later ones go through: order would break.
        .set("message.timeout.ms", "0");
    client
}

/// Twice the window, and room for the largest record that may pass alone.
fn kbytes(window_bytes: usize) -> usize {
    (2 * window_bytes / 1024).clamp(1 << 20, (1 << 31) - 1)
}

fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaConfig;

    #[test]
    fn the_producer_gets_the_login() {
        let mut config = KafkaConfig {
            username: Some("relay".into()),
            password: Some("secret".to_owned().into()),
            ..Default::default()
        };
        config.properties.insert("ssl.key.password".into(), "hidden".into());
        let settings = config.settings();
        let producer = producer_config(&settings, 1 << 20);
        for (key, value) in [
            ("sasl.username", "relay"),
            ("sasl.password", "secret"),
            ("ssl.key.password", "hidden"),
        ] {
            assert_eq!(producer.get(key), Some(value), "{key}");
        }
    }

    #[test]
    fn no_client_has_brokers_create_topics_by_asking_for_them() {
        let settings = KafkaConfig::default().settings();
        let client = producer_config(&settings, 1 << 20);
        assert_eq!(client.get("allow.auto.create.topics"), Some("false"));
    }

    #[test]
    fn the_systems_authorities_are_named_where_tls_has_no_others() {
        let ca_location = |properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            let config = KafkaConfig { properties: properties.collect(), ..Default::default() };
            producer_config(&config.settings(), 1 << 20).get("ssl.ca.location").map(str::to_owned)
        };
        let system = openssl_probe::probe().cert_file.map(|path| path.display().to_string());
        assert_eq!(ca_location(&[("security.protocol", "SASL_SSL")]), system);
        assert_eq!(ca_location(&[("security.protocol", "ssl"), ("ssl.ca.pem", "x")]), None);
        assert_eq!(ca_location(&[]), None);
    }
}
