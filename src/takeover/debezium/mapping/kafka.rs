//! Maps the brokers, the security and the producer.

use super::{Equivalence, Mapper, draft::setting};
use crate::takeover::debezium::connector::is_reference;

/// Prefixes of the producer's settings, the more special first.
const PREFIXES: [&str; 3] = ["producer.override.", "producer.", ""];

impl Mapper<'_> {
    pub(super) fn kafka(&mut self) {
        let servers = self.connector.bootstrap_servers();
        match servers.is_empty() {
            true => {
                let note = "the worker's file has them: name it with --worker";
                self.say_default(
                    "bootstrap.servers",
                    "those of the worker",
                    Equivalence::Missing,
                    note,
                );
            }
            false => {
                self.draft.kafka.push(setting("brokers", servers));
                self.say_producer("bootstrap.servers", Equivalence::Maps, "kafka.brokers");
            }
        }
        self.security();
        self.producer();
    }

    /// The value of a producer's setting.
    fn producer_setting(&self, name: &str) -> Option<String> {
        let keys = PREFIXES.iter().map(|prefix| format!("{prefix}{name}"));
        keys.into_iter().find_map(|key| self.connector.get_or_worker(&key).map(str::to_owned))
    }

    fn say_producer(&mut self, name: &str, equivalence: Equivalence, note: &str) {
        for prefix in PREFIXES {
            self.say(&format!("{prefix}{name}"), equivalence, note);
        }
    }

    fn security(&mut self) {
        let protocol = self.producer_setting("security.protocol").unwrap_or_default();
        if protocol.ends_with("SSL") {
            self.draft.kafka.push(setting("tls", true));
        }
        self.say_producer(
            "security.protocol",
            Equivalence::Maps,
            "kafka.tls, and a login if it has one",
        );
        if let Some(mechanism) = self.producer_setting("sasl.mechanism") {
            match mechanism.as_str() {
                "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
                    self.draft.kafka.push(setting("sasl_mechanism", mechanism));
                    self.say_producer("sasl.mechanism", Equivalence::Maps, "kafka.sasl_mechanism");
                }
                "OAUTHBEARER" => {
                    self.draft.kafka.push(setting("sasl_mechanism", mechanism));
                    self.say_producer("sasl.mechanism", Equivalence::Differs, "kafka.sasl_mechanism: set kafka.oauth_token_url, oauth_client_id and oauth_client_secret too");
                }
                _ => self.say_producer(
                    "sasl.mechanism",
                    Equivalence::Missing,
                    "factlib has PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER",
                ),
            }
        }
        if let Some(jaas) = self.producer_setting("sasl.jaas.config") {
            let hint = "kafka.username; the password is not copied: set FACTLIB_KAFKA__PASSWORD, or kafka.password_file";
            match quoted_option(&jaas, "username") {
                Some(username) => {
                    self.draft.kafka.push(setting("username", username));
                    self.draft.kafka.push("# The password comes from FACTLIB_KAFKA__PASSWORD, or kafka.password_file.".into());
                    self.say_producer("sasl.jaas.config", Equivalence::Maps, hint);
                }
                None => self.say_producer(
                    "sasl.jaas.config",
                    Equivalence::Differs,
                    "not read here: set kafka.username and FACTLIB_KAFKA__PASSWORD",
                ),
            }
            let password =
                quoted_option(&jaas, "password").filter(|password| !is_reference(password));
            if let Some(password) = password {
                self.secrets.push(("kafka.password", password.into()));
            }
        }
        let store = self.producer_setting("ssl.truststore.location");
        let is_pem = self.producer_setting("ssl.truststore.type").as_deref() == Some("PEM");
        match store {
            Some(path) if is_pem => {
                self.draft.kafka.push(setting("tls_ca", path));
                self.say_producer("ssl.truststore.location", Equivalence::Maps, "kafka.tls_ca");
            }
            _ => self.say_producer(
                "ssl.truststore.location",
                Equivalence::Missing,
                "export it as PEM (keytool -exportcert -rfc) and set kafka.tls_ca",
            ),
        }
        self.say_producer(
            "ssl.truststore.type",
            Equivalence::Harmless,
            "kafka.tls_ca is a PEM file",
        );
        self.say_producer(
            "ssl.truststore.password",
            Equivalence::Harmless,
            "a PEM file of certificates has no password",
        );
        for name in [
            "ssl.keystore.location",
            "ssl.keystore.type",
            "ssl.keystore.password",
            "ssl.key.password",
            "ssl.keystore.key",
            "ssl.keystore.certificate.chain",
        ] {
            self.say_producer(
                name,
                Equivalence::Missing,
                "export it as PEM and set kafka.tls_certificate and kafka.tls_key",
            );
        }
        if self.producer_setting("ssl.endpoint.identification.algorithm").as_deref() == Some("") {
            self.draft.kafka.push(setting("tls_verification", "authority"));
        }
        self.say_producer(
            "ssl.endpoint.identification.algorithm",
            Equivalence::Maps,
            "kafka.tls_verification",
        );
    }

    fn producer(&mut self) {
        if let Some(compression) = self.producer_setting("compression.type") {
            self.draft.kafka.push(setting("compression", compression));
            self.say_producer("compression.type", Equivalence::Maps, "kafka.compression");
        }
        if let Some(client_id) = self.producer_setting("client.id") {
            self.draft.kafka.push(setting("client_id", client_id));
            self.say_producer("client.id", Equivalence::Maps, "kafka.client_id");
        }
        let own = "factlib's producer decides it: all replicas acknowledge, idempotent, in order";
        for name in [
            "acks",
            "enable.idempotence",
            "linger.ms",
            "batch.size",
            "buffer.memory",
            "max.in.flight.requests.per.connection",
            "retries",
            "retry.backoff.ms",
            "delivery.timeout.ms",
            "request.timeout.ms",
            "max.block.ms",
            "key.serializer",
            "value.serializer",
            "max.request.size",
            "metadata.max.age.ms",
            "connections.max.idle.ms",
            "send.buffer.bytes",
            "receive.buffer.bytes",
            "interceptor.classes",
            "metric.reporters",
        ] {
            self.say_producer(name, Equivalence::Harmless, own);
        }
        self.say_producer(
            "partitioner.class",
            Equivalence::Missing,
            "keys are partitioned as by Kafka's default partitioner",
        );
        self.say_producer(
            "transactional.id",
            Equivalence::Differs,
            "delivery.mode = \"exactly-once\" uses transactions",
        );
        for (key, name) in [
            ("topic.creation.default.replication.factor", "replication_factor"),
            ("topic.creation.default.partitions", "partitions"),
        ] {
            let Some(number) = self.connector.get(key).and_then(|text| text.parse::<i64>().ok())
            else {
                continue;
            };
            if number > 0 {
                self.draft.kafka.push(setting(&format!("topics.{name}"), number));
            }
            self.say(key, Equivalence::Maps, format!("kafka.topics.{name}"));
        }
        let prefix = "topic.creation.default.";
        let keys: Vec<_> = self.connector.entries().map(|(key, _)| key.to_owned()).collect();
        for key in keys {
            let Some(name) = key.strip_prefix(prefix) else { continue };
            if matches!(name, "replication.factor" | "partitions" | "include" | "exclude") {
                continue;
            }
            let value = self.connector.get(&key).unwrap_or_default().to_owned();
            self.draft.kafka.push(setting(&format!("topics.config.\"{name}\""), value));
            self.say(&key, Equivalence::Maps, "kafka.topics.config");
        }
    }
}

/// Reads `name="value"` from the options of a login module.
fn quoted_option(jaas: &str, name: &str) -> Option<String> {
    let (_, behind) = jaas.split_once(&format!("{name}=\""))?;
    Some(behind.split_once('"')?.0.to_owned())
}
