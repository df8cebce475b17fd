//! Who may ask: on a loopback address, only who calls it by a name of this machine.
//!
//! A site that resolves its own name to 127.0.0.1 (DNS rebinding) could read what is
//! answered there through the browser of whoever visits it. Its requests carry its name.

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Uri, header},
    middleware::Next,
};

/// Refuses requests for other names.
pub(in crate::ops) async fn local_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // Whoever sends none is no browser.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.to_str().is_ok_and(is_local)) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let text = "this address answers to names of this machine only, such as localhost: \
                let a proxy send that as Host, or set http.address\n";
    Ok(request.into_response(HttpResponse::Forbidden().body(text)))
}

/// An address, or `localhost`; with a port or without.
fn is_local(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(name) = uri.host() else { return false };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_of_this_machine() {
        for host in ["localhost", "LOCALHOST:9100", "relay.localhost", "127.0.0.1:80", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:9100", "127.0.0.1.evil.example"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
