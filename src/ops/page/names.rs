//! Rejects requests on a loopback address whose `Host` is not a name of this machine.
//!
//! A website that resolves its own name to 127.0.0.1 (DNS rebinding) could otherwise read the answers
//! through its visitors' browsers. Its requests carry its own name.

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Uri, header},
    middleware::Next,
};

/// Rejects requests for other names.
pub(in crate::ops) async fn local_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // Browsers always send it.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.to_str().is_ok_and(is_local)) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let text = "this address answers to names of this machine only, such as localhost: \
                let a proxy send that as Host, or set http.address\n";
    Ok(request.into_response(HttpResponse::Forbidden().body(text)))
}

/// True for an IP address and for `localhost`, with or without a port.
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
    fn addresses_and_localhost_are_local() {
        for host in ["localhost", "LOCALHOST:9100", "relay.localhost", "127.0.0.1:80", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:9100", "127.0.0.1.evil.example"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
