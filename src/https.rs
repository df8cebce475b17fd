//! TLS for HTTP clients: the system's certificates, and those of a file.

use std::{error::Error, fs, path::Path};

use factlib_tls::{ClientConfig, Options, authorities};

/// Makes the configuration for a client that trusts the system and, if there is one, the
/// certificates in a file.
///
/// # Errors
/// The file can't be read or has no certificate.
pub(crate) fn tls(
    authorities: Option<&Path>,
) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    // Without them, every certificate is refused, and this matters only for https.
    let mut trusted = authorities::system().unwrap_or_default();
    if let Some(path) = authorities {
        trusted.extend(authorities::from_pem(&fs::read(path)?)?);
    }
    Ok(Options { trusted, ..Options::default() }.into_config()?)
}
