//! Reads the values of librdkafka's properties into settings.

use std::{str::FromStr, time::Duration};

use bytesize::ByteSize;

use super::Property;
use crate::{
    config::{KafkaConfig, TlsVerification, validate::SASL_MECHANISMS},
    kafka::Compression,
};

/// Result of setting a property; the problem describes what is allowed.
pub(super) type Set = Result<(), &'static str>;

pub(super) const RANDOM_PARTITIONER: &str =
    "the events of one aggregate would go to several partitions, out of order";

/// True for a value of `security.protocol` with a login.
pub(super) fn has_sasl(protocol: &str) -> bool {
    protocol.to_ascii_uppercase().starts_with("SASL")
}

pub(super) fn security_protocol(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    kafka.tls = match &*property.value.to_ascii_uppercase() {
        "PLAINTEXT" | "SASL_PLAINTEXT" => false,
        "SSL" | "SASL_SSL" => true,
        _ => return Err("expected one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
    };
    Ok(())
}

pub(super) fn mechanism(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    let mut known = SASL_MECHANISMS.iter();
    let known = known.find(|known| **known == property.value);
    kafka.sasl_mechanism = (*known.ok_or(
        "expected one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; there is no Kerberos",
    )?)
    .to_owned();
    Ok(())
}

pub(super) fn oauth_method(_: &mut KafkaConfig, property: Property<'_>) -> Set {
    match property.value {
        "oidc" => Ok(()),
        _ => Err("expected oidc: tokens come from kafka.oauth_token_url"),
    }
}

pub(super) fn grant_type(_: &mut KafkaConfig, property: Property<'_>) -> Set {
    match property.value {
        "client_credentials" => Ok(()),
        _ => Err("expected client_credentials, the only grant that factlib has"),
    }
}

pub(super) fn oauth_extensions(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    kafka.oauth_extensions = property.value.split(',').map(|text| text.trim().to_owned()).collect();
    Ok(())
}

/// Turns verification off; `true` leaves it as it is.
pub(super) fn verification(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    if !switch(property.value)? {
        kafka.tls_verification = TlsVerification::None;
    }
    Ok(())
}

/// Turns the verification of the name on or off, unless nothing is verified.
pub(super) fn name_verification(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    let wanted = match property.value {
        "https" => TlsVerification::Full,
        "none" => TlsVerification::Authority,
        _ => return Err("expected https or none"),
    };
    if kafka.tls_verification != TlsVerification::None {
        kafka.tls_verification = wanted;
    }
    Ok(())
}

pub(super) fn compression(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    kafka.compression = match property.value {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => return Err("expected one of none, gzip, snappy, lz4, zstd"),
    };
    Ok(())
}

/// Sets the level; -1 is librdkafka's word for the codec's default.
pub(super) fn compression_level(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    let level = number::<i32>(property.value)?;
    kafka.compression_level = Some(level).filter(|level| *level != -1);
    Ok(())
}

/// Lowers the size of batches. It does not raise it: librdkafka's users do so for large records,
/// which need no larger batches here.
pub(super) fn message_bytes(kafka: &mut KafkaConfig, property: Property<'_>) -> Set {
    let most = ByteSize(number(property.value)?);
    kafka.batch_bytes = kafka.batch_bytes.min(most);
    Ok(())
}

/// Accepts Java's partitioner, which factlib always uses.
pub(super) fn partitioner(_: &mut KafkaConfig, property: Property<'_>) -> Set {
    match property.value {
        "murmur2" | "murmur2_random" => Ok(()),
        "random" => Err(RANDOM_PARTITIONER),
        _ => Err("expected murmur2_random: factlib chooses partitions as Java's clients do"),
    }
}

pub(super) fn ms(property: Property<'_>) -> Result<Duration, &'static str> {
    let ms = property.value.trim().parse().map_err(|_| "expected a number of milliseconds")?;
    Ok(Duration::from_millis(ms))
}

pub(super) fn number<T: FromStr>(value: &str) -> Result<T, &'static str> {
    value.trim().parse().map_err(|_| "expected a whole number")
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" | "t" | "1" => Ok(true),
        "false" | "f" | "0" => Ok(false),
        _ => Err("expected true or false"),
    }
}
