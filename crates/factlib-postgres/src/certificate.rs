//! Explains failed certificate checks, of the peer's certificate and of our own, with remedies.

use openssl::x509::X509VerifyResult;

/// Returns OpenSSL's reason and a remedy; `authority_remedy` is the one for a certificate that no
/// trusted authority has signed.
pub fn reason_and_remedy(
    result: X509VerifyResult,
    authority_remedy: String,
) -> (&'static str, String) {
    let remedy = remedy(result.as_raw());
    (result.error_string(), remedy.map_or(authority_remedy, str::to_owned))
}

/// Returns the remedy for a certificate that fails verification with this number of OpenSSL's
/// (`X509_V_ERR_…`); none if no trusted authority has signed it.
pub fn remedy(code: i32) -> Option<&'static str> {
    match code {
        HOSTNAME_MISMATCH | IP_ADDRESS_MISMATCH => {
            Some("connect by a name that the certificate holds, or have one issued for this name")
        }
        EXPIRED => Some("have it renewed on the server"),
        NOT_YET_VALID => Some("is the clock of this machine right?"),
        _ => None,
    }
}

/// True if the text of an error says that the peer refused our own certificate.
pub fn is_certificate_refused(text: &str) -> bool {
    // OpenSSL's names of the alerts, which are not translated.
    const ALERTS: [&str; 5] = [
        "alert bad certificate",
        "alert unsupported certificate",
        "alert unknown ca",
        "alert certificate ",
        "alert decrypt error",
    ];
    ALERTS.iter().any(|alert| text.contains(alert))
}

// Values of `X509_V_ERR_…` in OpenSSL's `x509_vfy.h`.
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;
