//! Why a certificate is not trusted, theirs or ours, in words that say what to do.

use openssl::x509::X509VerifyResult;

/// OpenSSL's reason, and the remedy: `authority` is the one where nobody we trust has signed it.
pub fn distrust(result: X509VerifyResult, authority: String) -> (&'static str, String) {
    let remedy = match result.as_raw() {
        HOSTNAME_MISMATCH | IP_ADDRESS_MISMATCH => {
            "connect by a name that the certificate holds, or have one issued for this name"
        }
        EXPIRED => "have it renewed on the server",
        NOT_YET_VALID => "is the clock of this machine right?",
        _ => return (result.error_string(), authority),
    };
    (result.error_string(), remedy.to_owned())
}

/// An error's text has the peer's word that our own certificate won't do.
pub fn is_refused(text: &str) -> bool {
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

// The `X509_V_ERR_` of OpenSSL's `x509_vfy.h` by these names.
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;
