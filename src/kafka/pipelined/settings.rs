//! `[kafka]` as the settings of `factlib-kafka`.
//!
//! Files of certificates and secrets are read again for each connection.

use std::{path::PathBuf, sync::Arc};

use factlib_kafka::{
    Settings,
    sasl::{Credentials, Hash, Login, Plain, Scram},
    tls::{KeyPassword, Pem, Tls},
};

use crate::{
    Result,
    kafka::{
        Compression, KafkaSettings, LoginSettings, PasswordMechanism, Secret, TlsSettings,
        TokenEndpoint,
    },
};

/// Makes the client's settings.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for OAUTHBEARER in a build without it.
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
    settings.compression_level = kafka.compression_level;
    settings.batch_bytes = kafka.batch_bytes;
    settings.connect_timeout = kafka.connect_timeout;
    settings.request_timeout = kafka.request_timeout;
    settings.backoff = kafka.retry_backoff;
    settings.backoff_max = kafka.retry_backoff_max;
    settings.metadata_max_age = kafka.metadata_max_age;
    settings.added_partitions = kafka.added_partitions;
    settings.login = kafka.login.as_ref().map(login).transpose()?;
    if let Some(tls) = &kafka.tls {
        settings.connector = Arc::new(connector(tls));
    }
    if let Some(shared) = &kafka.connections {
        shared.share(kafka, &mut settings);
    }
    Ok(settings)
}

fn login(login: &LoginSettings) -> Result<Arc<dyn Login>> {
    let (mechanism, username, password) = match login {
        LoginSettings::Token(endpoint) => return with_token(endpoint),
        LoginSettings::Password { mechanism, username, password } => {
            (*mechanism, username.clone(), password.clone())
        }
    };
    let source = move || {
        let password = password.read()?;
        Ok(Credentials { user: username.clone(), password })
    };
    Ok(match mechanism {
        PasswordMechanism::Plain => Arc::new(Plain::from_source(source)),
        PasswordMechanism::ScramSha256 => Arc::new(Scram::from_source(Hash::Sha256, source)),
        PasswordMechanism::ScramSha512 => Arc::new(Scram::from_source(Hash::Sha512, source)),
    })
}

#[cfg(feature = "oauth")]
fn with_token(endpoint: &TokenEndpoint) -> Result<Arc<dyn Login>> {
    let source = crate::kafka::oauth::ClientCredentials::new(endpoint.clone());
    Ok(Arc::new(factlib_kafka::sasl::OauthBearer::new(source)))
}

#[cfg(not(feature = "oauth"))]
fn with_token(_: &TokenEndpoint) -> Result<Arc<dyn Login>> {
    // A configuration with this mechanism was refused before.
    Err(crate::Error::new(crate::ErrorKind::Config, LoginSettings::NO_OAUTH))
}

fn connector(settings: &TlsSettings) -> Tls {
    let file = |path: &Option<PathBuf>| path.as_deref().map(Pem::from);
    let password = |secret: &Secret| {
        let secret = secret.clone();
        KeyPassword::from_source(move || secret.read())
    };
    let mut tls = Tls::default();
    tls.authorities = file(&settings.authorities);
    tls.certificate = file(&settings.certificate);
    tls.key = file(&settings.key);
    tls.key_password = settings.key_password.as_ref().map(password);
    tls.server_name.clone_from(&settings.server_name);
    tls.verification = settings.verification;
    tls
}
