//! Lists librdkafka's properties: the setting that each stands for, or the reason why it is
//! refused.
//!
//! docs/kafka-clients.md has the same table; a test compares the two.

use bytesize::ByteSize;

use super::{
    Property,
    values::{self, Set, ms, number},
};
use crate::config::KafkaConfig;

/// Effect of a property.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// Sets a setting; the text describes it in the documentation.
    Sets(
        #[cfg_attr(not(test), expect(dead_code, reason = "for the documentation"))] &'static str,
        fn(&mut KafkaConfig, Property<'_>) -> Set,
    ),
    /// Refused: the text names the setting to use, or says why there is none.
    Refused(&'static str),
}

use Effect::{Refused, Sets};

const UNKNOWN: &str = "is no property that factlib knows: docs/kafka-clients.md lists them";

/// The effect of the property of this name.
pub(super) fn effect(name: &str) -> Effect {
    let mut rows = ROWS.iter().filter(|(names, _)| names.contains(&name));
    rows.next().map_or(Refused(UNKNOWN), |(_, effect)| *effect)
}

/// True for the name of a property in the table.
pub(super) fn is_known(name: &str) -> bool {
    ROWS.iter().any(|(names, _)| names.contains(&name))
}

type Row = (&'static [&'static str], Effect);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (&["client.id"], Sets("`kafka.client_id`", |kafka, property| {
        kafka.client_id = property.value.into();
        Ok(())
    })),

    // Encryption.
    (&["security.protocol"], Sets("`kafka.tls`; with `SASL_…` there has to be a login", values::security_protocol)),
    (&["ssl.ca.location"], Sets("`kafka.tls_ca`", |kafka, property| {
        kafka.tls_ca = Some(property.value.into());
        Ok(())
    })),
    (&["ssl.certificate.location"], Sets("`kafka.tls_certificate`", |kafka, property| {
        kafka.tls_certificate = Some(property.value.into());
        Ok(())
    })),
    (&["ssl.key.location"], Sets("`kafka.tls_key`", |kafka, property| {
        kafka.tls_key = Some(property.value.into());
        Ok(())
    })),
    (&["ssl.key.password"], Sets("`kafka.tls_key_password`", |kafka, property| {
        kafka.tls_key_password = Some(property.value.into());
        kafka.tls_key_password_file = property.file.map(Into::into);
        Ok(())
    })),
    (&["enable.ssl.certificate.verification"], Sets("`kafka.tls_verification = \"none\"`, if `false`", values::verification)),
    (&["ssl.endpoint.identification.algorithm"], Sets("`kafka.tls_verification`: `\"authority\"` if `none`", values::name_verification)),

    // Logins.
    (&["sasl.mechanism", "sasl.mechanisms"], Sets("`kafka.sasl_mechanism`", values::mechanism)),
    (&["sasl.username"], Sets("`kafka.username`", |kafka, property| {
        kafka.username = Some(property.value.into());
        Ok(())
    })),
    (&["sasl.password"], Sets("`kafka.password`", |kafka, property| {
        kafka.password = Some(property.value.into());
        kafka.password_file = property.file.map(Into::into);
        Ok(())
    })),
    (&["sasl.oauthbearer.method"], Sets("has to be `oidc`", values::oauth_method)),
    (&["sasl.oauthbearer.grant.type"], Sets("has to be `client_credentials`", values::grant_type)),
    (&["sasl.oauthbearer.token.endpoint.url"], Sets("`kafka.oauth_token_url`", |kafka, property| {
        kafka.oauth_token_url = Some(property.value.into());
        Ok(())
    })),
    (&["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"], Sets("`kafka.oauth_client_id`", |kafka, property| {
        kafka.oauth_client_id = Some(property.value.into());
        Ok(())
    })),
    (&["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"], Sets("`kafka.oauth_client_secret`", |kafka, property| {
        kafka.oauth_client_secret = Some(property.value.into());
        kafka.oauth_client_secret_file = property.file.map(Into::into);
        Ok(())
    })),
    (&["sasl.oauthbearer.scope"], Sets("`kafka.oauth_scope`", |kafka, property| {
        kafka.oauth_scope = Some(property.value.into());
        Ok(())
    })),
    (&["sasl.oauthbearer.extensions"], Sets("`kafka.oauth_extensions`", values::oauth_extensions)),
    (&["https.ca.location"], Sets("`kafka.oauth_tls_ca`", |kafka, property| {
        kafka.oauth_tls_ca = Some(property.value.into());
        Ok(())
    })),

    // Batches and time limits.
    (&["compression.codec", "compression.type"], Sets("`kafka.compression`", values::compression)),
    (&["compression.level"], Sets("`kafka.compression_level`", values::compression_level)),
    (&["batch.size"], Sets("`kafka.batch_bytes`", |kafka, property| {
        kafka.batch_bytes = ByteSize(number(property.value)?);
        Ok(())
    })),
    (&["message.max.bytes"], Sets("`kafka.batch_bytes`, if it is lower; records may be as large as their topic allows", values::message_bytes)),
    (&["request.timeout.ms", "socket.timeout.ms"], Sets("`kafka.request_timeout`", |kafka, property| {
        kafka.request_timeout = ms(property)?;
        Ok(())
    })),
    (&["socket.connection.setup.timeout.ms"], Sets("`kafka.connect_timeout`", |kafka, property| {
        kafka.connect_timeout = ms(property)?;
        Ok(())
    })),
    (&["reconnect.backoff.ms"], Sets("`kafka.retry_backoff`", |kafka, property| {
        kafka.retry_backoff = ms(property)?;
        Ok(())
    })),
    (&["reconnect.backoff.max.ms"], Sets("`kafka.retry_backoff_max`", |kafka, property| {
        kafka.retry_backoff_max = ms(property)?;
        Ok(())
    })),
    (&["metadata.max.age.ms", "topic.metadata.refresh.interval.ms"], Sets("`kafka.metadata_max_age`", |kafka, property| {
        kafka.metadata_max_age = ms(property)?;
        Ok(())
    })),
    (&["statistics.interval.ms"], Sets("`kafka.statistics_interval`", |kafka, property| {
        kafka.statistics_interval = ms(property)?;
        Ok(())
    })),
    (&["partitioner"], Sets("has to be `murmur2_random` or `murmur2`, which factlib always uses", values::partitioner)),

    // Promises.
    (&["bootstrap.servers", "metadata.broker.list"], Refused("kafka.brokers sets it")),
    (&["acks", "request.required.acks"], Refused("factlib needs acks=all: PostgreSQL forgets what Kafka acknowledged")),
    (&["enable.idempotence", "max.in.flight", "max.in.flight.requests.per.connection", "enable.gapless.guarantee", "queuing.strategy"],
        Refused("factlib sets it: the order of an aggregate's events rests on it")),
    (&["message.timeout.ms", "delivery.timeout.ms", "retries", "message.send.max.retries"],
        Refused("factlib sets it: an outage is waited for, and a record that gives up would break the order")),
    (&["delivery.report.only.error", "dr_cb", "dr_msg_cb"], Refused("factlib sets it: it needs the result of every record")),
    (&["transactional.id"], Refused("factlib makes it of cluster and slot, so that an instance that was replaced is fenced")),
    (&["transaction.timeout.ms"], Refused("delivery.transaction_timeout sets it")),
    (&["allow.auto.create.topics"], Refused("factlib creates topics itself, as kafka.topics has it: brokers would make them by their own defaults")),

    // Another setting.
    (&["linger.ms", "queue.buffering.max.ms"], Refused("is not needed: a batch leaves at once while its broker is idle, and grows by itself under load")),
    (&["batch.num.messages", "sticky.partitioning.linger.ms"], Refused("is not needed: kafka.batch_bytes limits a batch")),
    (&["queue.buffering.max.messages", "queue.buffering.max.kbytes", "queue.buffering.backpressure.threshold", "buffer.memory", "max.block.ms"],
        Refused("is not needed: pipeline.window limits memory")),
    (&["retry.backoff.ms", "retry.backoff.max.ms", "reconnect.backoff.jitter.ms", "socket.max.fails"],
        Refused("use kafka.retry_backoff and kafka.retry_backoff_max, which apply to connections and requests")),
    (&["topic.metadata.refresh.fast.interval.ms", "topic.metadata.refresh.fast.cnt", "topic.metadata.refresh.sparse", "topic.metadata.propagation.max.ms"],
        Refused("is not needed: a missing leader is asked for after kafka.retry_backoff")),
    (&["metadata.recovery.strategy", "metadata.recovery.rebootstrap.trigger.ms"],
        Refused("is not needed: if no known broker answers, those of kafka.brokers are tried again")),
    (&["max.request.size", "message.copy.max.bytes", "receive.message.max.bytes"], Refused("is not needed: records may be as large as their topic allows")),
    (&["socket.keepalive.enable", "socket.blocking.max.ms"], Refused("is not needed: kafka.request_timeout finds a connection that is dead")),
    (&["socket.nagle.disable", "socket.send.buffer.bytes", "socket.receive.buffer.bytes"], Refused("is not needed: factlib sends at once, and the system chooses its buffers")),
    (&["connections.max.idle.ms", "log.connection.close"], Refused("is not needed: a connection that a broker closes when it is idle is opened again when it is needed")),
    (&["broker.address.ttl", "broker.address.family", "client.dns.lookup"],
        Refused("is not needed: all addresses of a broker's name are tried")),
    (&["api.version.request", "api.version.request.timeout.ms", "api.version.fallback.ms", "broker.version.fallback"],
        Refused("is not needed: client and broker agree on versions")),
    (&["debug", "log_level"], Refused("use log.level")),
    (&["log.queue", "log.thread.name", "enable.metrics.push", "enabled_events"], Refused("is not needed: see log.level, http.metrics_port and docs/monitoring.md")),

    // TLS in another form.
    (&["ssl.ca.pem", "ssl_ca"], Refused("write it to a PEM file, and name that with kafka.tls_ca")),
    (&["ssl.certificate.pem", "ssl_certificate"], Refused("write it to a PEM file, and name that with kafka.tls_certificate")),
    (&["ssl.key.pem", "ssl_key"], Refused("write it to a PEM file, and name that with kafka.tls_key")),
    (&["https.ca.pem"], Refused("write it to a PEM file, and name that with kafka.oauth_tls_ca")),
    (&["ssl.keystore.location", "ssl.keystore.password", "ssl.keystore.type", "ssl.truststore.location", "ssl.truststore.password", "ssl.truststore.type"],
        Refused("write its contents to PEM files, and name these with kafka.tls_ca, kafka.tls_certificate and kafka.tls_key")),
    (&["ssl.ca.certificate.stores"], Refused("use kafka.tls_ca; without it, factlib trusts the system's authorities")),
    (&["ssl.crl.location"], Refused("factlib reads no revocation lists of brokers")),
    (&["ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list", "ssl.providers", "ssl.engine.location", "ssl.engine.id", "ssl_engine_callback_data", "ssl.protocol", "ssl.enabled.protocols"],
        Refused("factlib uses TLS 1.2 or 1.3 with rustls's choice of algorithms")),

    // Logins in another form.
    (&["sasl.kerberos.service.name", "sasl.kerberos.principal", "sasl.kerberos.kinit.cmd", "sasl.kerberos.keytab", "sasl.kerberos.min.time.before.relogin"],
        Refused("factlib has no Kerberos: use kafka.sasl_mechanism = SCRAM-SHA-512, OAUTHBEARER or PLAIN, or a certificate")),
    (&["sasl.jaas.config"], Refused("use kafka.username and kafka.password, or kafka.oauth_token_url")),
    (&["enable.sasl.oauthbearer.unsecure.jwt", "sasl.oauthbearer.config"],
        Refused("a token without a signature proves nothing: use kafka.oauth_token_url")),
    (&["sasl.oauthbearer.assertion.algorithm", "sasl.oauthbearer.assertion.private.key.file", "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem", "sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.claim.aud", "sasl.oauthbearer.assertion.claim.exp.seconds", "sasl.oauthbearer.assertion.claim.iss", "sasl.oauthbearer.assertion.claim.jti.include", "sasl.oauthbearer.assertion.claim.nbf.seconds", "sasl.oauthbearer.assertion.claim.sub", "sasl.oauthbearer.assertion.jwt.template.file", "sasl.oauthbearer.metadata.authentication.type"],
        Refused("factlib gets tokens by client credentials only: use kafka.oauth_client_id and kafka.oauth_client_secret")),

    // Not a producer's.
    (&["group.id", "group.instance.id", "partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type", "group.protocol", "group.remote.assignor", "coordinator.query.interval.ms", "max.poll.interval.ms", "enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store", "queued.min.messages", "queued.max.messages.kbytes", "fetch.wait.max.ms", "fetch.queue.backoff.ms", "fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.max.bytes", "fetch.min.bytes", "fetch.error.backoff.ms", "offset.store.method", "offset.store.path", "offset.store.sync.interval.ms", "isolation.level", "enable.partition.eof", "check.crcs", "auto.offset.reset", "consume.callback.max.messages", "client.rack"],
        Refused("is a consumer's property")),
    (&["error_cb", "throttle_cb", "stats_cb", "log_cb", "background_event_cb", "socket_cb", "connect_cb", "closesocket_cb", "open_cb", "resolve_cb", "consume_cb", "rebalance_cb", "offset_commit_cb", "oauthbearer_token_refresh_cb", "ssl.certificate.verify_cb", "partitioner_cb", "msg_order_cmp", "opaque", "default_topic_conf", "interceptors", "plugin.library.paths", "produce.offset.report", "builtin.features", "internal.termination.signal", "enable.random.seed", "topic.blacklist"],
        Refused("belongs to programs that call librdkafka")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kafka::is_secret;

    /// A value for each property that sets something; it is not the default.
    const SAMPLES: &[(&str, &str)] = &[
        ("client.id", "shop"),
        ("security.protocol", "ssl"),
        ("ssl.ca.location", "ca.crt"),
        ("ssl.certificate.location", "relay.crt"),
        ("ssl.key.location", "relay.key"),
        ("ssl.key.password", "hunter2"),
        ("enable.ssl.certificate.verification", "false"),
        ("ssl.endpoint.identification.algorithm", "none"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.mechanisms", "OAUTHBEARER"),
        ("sasl.username", "relay"),
        ("sasl.password", "hunter2"),
        ("sasl.oauthbearer.token.endpoint.url", "https://id.example/token"),
        ("sasl.oauthbearer.client.id", "relay"),
        ("sasl.oauthbearer.client.credentials.client.id", "relay"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
        ("sasl.oauthbearer.client.credentials.client.secret", "hunter2"),
        ("sasl.oauthbearer.scope", "kafka"),
        ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1,identityPoolId=pool-1"),
        ("https.ca.location", "ca.crt"),
        ("compression.codec", "zstd"),
        ("compression.type", "gzip"),
        ("compression.level", "9"),
        ("batch.size", "2000"),
        ("message.max.bytes", "2000"),
        ("request.timeout.ms", "1500"),
        ("socket.timeout.ms", "1500"),
        ("socket.connection.setup.timeout.ms", "1500"),
        ("reconnect.backoff.ms", "7"),
        ("reconnect.backoff.max.ms", "7000"),
        ("metadata.max.age.ms", "1500"),
        ("topic.metadata.refresh.interval.ms", "1500"),
        ("statistics.interval.ms", "1500"),
    ];

    /// Properties that may have one value only, which changes nothing.
    const FIXED: &[(&str, &str)] = &[
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.grant.type", "client_credentials"),
        ("partitioner", "murmur2_random"),
    ];

    fn names() -> impl Iterator<Item = (&'static str, Effect)> {
        ROWS.iter().flat_map(|(names, effect)| names.iter().map(|name| (*name, *effect)))
    }

    fn with(name: &str, value: &str) -> KafkaConfig {
        let mut kafka = KafkaConfig::default();
        kafka.properties.insert(name.into(), value.into());
        kafka
    }

    fn refusal(name: &str, value: &str) -> Option<String> {
        let mistake = super::super::check(&with(name, value)).err()?;
        Some(mistake.error(None).to_string())
    }

    #[test]
    fn no_property_is_there_twice() {
        let mut seen = BTreeSet::new();
        for (name, _) in names() {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn every_property_sets_something_or_is_refused_with_a_reason() {
        for (name, effect) in names() {
            match effect {
                Sets(..) => {
                    let samples = SAMPLES.iter().chain(FIXED);
                    let (_, value) =
                        samples.clone().find(|(sample, _)| *sample == name).expect(name);
                    let kafka = with(name, value);
                    let set = format!("{:?}", super::super::with_properties(&kafka));
                    let is_fixed = FIXED.iter().any(|(fixed, _)| *fixed == name);
                    assert_eq!(set == format!("{kafka:?}"), is_fixed, "{name}");
                    assert!(!set.contains("hunter2"), "{name}");
                }
                Refused(why) => {
                    let shown = if is_secret(name) { "[redacted]" } else { "\"1\"" };
                    let expected = format!("kafka.properties.{name} = {shown}: {why}");
                    assert_eq!(refusal(name, "1").as_deref(), Some(&*expected));
                    assert!(!why.ends_with('.') && !why.contains('|'), "{name}: {why}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_has_no_equivalent_is_refused() {
        for (name, value, problem) in [
            (
                "security.protocol",
                "TLS",
                "expected one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
            ),
            ("security.protocol", "SASL_SSL", "needs kafka.username, or another login"),
            ("sasl.mechanisms", "GSSAPI", "there is no Kerberos"),
            ("sasl.oauthbearer.method", "default", "expected oidc"),
            ("sasl.oauthbearer.grant.type", "jwt", "expected client_credentials"),
            ("enable.ssl.certificate.verification", "no", "expected true or false"),
            ("ssl.endpoint.identification.algorithm", "HTTPS", "expected https or none"),
            ("compression.type", "inherit", "expected one of none, gzip"),
            ("compression.level", "high", "expected a whole number"),
            ("batch.size", "many", "expected a whole number"),
            ("request.timeout.ms", "1s", "expected a number of milliseconds"),
            ("topic.metadata.refresh.interval.ms", "-1", "expected a number of milliseconds"),
            ("partitioner", "random", "out of order"),
            ("partitioner", "consistent_random", "expected murmur2_random"),
            ("no.such.property", "1", "is no property that factlib knows"),
        ] {
            let refusal = refusal(name, value).expect(name);
            assert!(refusal.starts_with(&format!("kafka.properties.{name} = ")), "{refusal}");
            assert!(refusal.contains(problem), "{refusal}");
        }
        let mut kafka = with("security.protocol", "ssl");
        kafka.username = Some("relay".into());
        let mistake = super::super::check(&kafka).expect_err("with and without a login");
        assert!(mistake.problem.contains("leave one of the two out"), "{}", mistake.problem);
        kafka.properties.insert("security.protocol".into(), "sasl_ssl".into());
        super::super::check(&kafka).expect("a login");
    }

    #[test]
    fn verification_that_is_off_stays_off_and_a_larger_message_needs_no_larger_batch() {
        use crate::config::TlsVerification;
        let mut kafka = with("enable.ssl.certificate.verification", "false");
        kafka.properties.insert("ssl.endpoint.identification.algorithm".into(), "https".into());
        kafka.properties.insert("message.max.bytes".into(), "10000000".into());
        let set = super::super::with_properties(&kafka);
        assert_eq!(set.tls_verification, TlsVerification::None);
        assert_eq!(set.batch_bytes, KafkaConfig::default().batch_bytes);
    }

    /// The table as docs/kafka-clients.md has it.
    fn markdown() -> String {
        let mut table = "| Property | Setting |\n| --- | --- |\n".to_owned();
        let quoted = |names: &[&str]| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let mut refused = "\n| Property | Refused, since |\n| --- | --- |\n".to_owned();
        for (names, effect) in ROWS {
            match effect {
                Sets(setting, _) => table += &format!("| {} | {setting} |\n", quoted(names)),
                Refused(why) => {
                    refused += &format!("| {} | {why} |\n", quoted(names));
                }
            }
        }
        table + &refused
    }

    #[test]
    fn the_page_has_every_property() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kafka-clients.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let table = page.split_once("<!-- properties:begin -->").expect("a begin marker").1;
        let (table, _) = table.split_once("<!-- properties:end -->").expect("an end marker");
        let expected = markdown();
        assert_eq!(table.trim(), expected.trim(), "put this between the markers:\n{expected}");
    }

    #[cfg(feature = "cli")]
    #[test]
    fn every_setting_that_a_text_names_is_one() {
        use crate::config::reference::find;
        for (name, effect) in names() {
            let (Sets(text, _) | Refused(text)) = effect;
            let words = text.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'));
            let sections = ["kafka.", "pipeline.", "log.", "http.", "delivery."];
            for word in words.map(|word| word.trim_end_matches('.')) {
                let is_setting = sections.iter().any(|section| word.starts_with(section));
                let known = word == "kafka.topics" || find(word).is_some();
                assert!(!is_setting || known, "{name} names {word}");
            }
        }
    }
}
