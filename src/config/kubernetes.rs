//! Recognizes variables that Kubernetes injects into every container, one set per Service.
//!
//! A Service named `factlib` makes `FACTLIB_SERVICE_HOST`, `FACTLIB_SERVICE_PORT[_<PORT'S NAME>]`,
//! `FACTLIB_PORT=tcp://10.0.0.1:8080` and `FACTLIB_PORT_8080_TCP[_PROTO|_PORT|_ADDR]`; one named
//! `metrics` makes `METRICS_PORT=tcp://…`. They are not meant as settings and are ignored.

/// Protocols of a Service's port.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// True if Kubernetes injects a variable with such a name and value.
///
/// The value decides if the name alone could be a user's mistake: `FACTLIB_METRICS_PORT=9090` is
/// meant as a setting.
pub(super) fn is_injected(name: &str, value: &str) -> bool {
    // Only settings have two underscores: no Service has two dashes in a row in its name.
    if name.contains("__") {
        return false;
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if name.ends_with("_SERVICE_HOST") {
        return true;
    }
    if let Some((_, rest)) = name.rsplit_once("_SERVICE_PORT") {
        return (rest.is_empty() || rest.starts_with('_')) && number(value);
    }
    if name.ends_with("_PORT") && is_address(value) {
        return true;
    }
    // …_PORT_8080_TCP, or with another word …_PORT_8080_TCP_ADDR.
    let Some((_, rest)) = name.rsplit_once("_PORT_") else { return false };
    let mut words = rest.split('_');
    let (port, protocol) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let detail = matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"));
    let protocol = protocol.to_ascii_lowercase();
    number(port) && PROTOCOLS.contains(&&*protocol) && detail && words.next().is_none()
}

/// True for `tcp://10.0.0.1:8080`.
fn is_address(value: &str) -> bool {
    value.split_once("://").is_some_and(|(protocol, _)| PROTOCOLS.contains(&protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_distinguished_from_settings() {
        for (name, value) in [
            ("FACTLIB_SERVICE_HOST", "10.96.0.7"),
            ("FACTLIB_METRICS_SERVICE_HOST", "fd00::7"),
            ("FACTLIB_SERVICE_PORT", "8080"),
            ("FACTLIB_SERVICE_PORT_HTTP", "8080"),
            ("FACTLIB_SERVICE_PORT_HTTP_ALT", "8080"),
            ("FACTLIB_PORT", "tcp://10.96.0.7:8080"),
            ("METRICS_PORT", "sctp://10.96.0.7:8080"),
            ("FACTLIB_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("FACTLIB_PORT_8080_TCP_PROTO", "tcp"),
            ("FACTLIB_PORT_8080_UDP_PORT", "8080"),
            ("FACTLIB_PORT_8080_SCTP_ADDR", "10.96.0.7"),
        ] {
            assert!(is_injected(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("FACTLIB_LOG__SERVICE", "shop"),
            ("FACTLIB_HTTP__METRICS_PORT", "udp://10.96.0.7:8080"),
            ("FACTLIB_METRICS_PORT", "9090"),
            ("FACTLIB_PORT", "9090"),
            ("FACTLIB_SERVICE_PORT", "http"),
            ("FACTLIB_SERVICE_PORTS", "9090"),
            ("FACTLIB_PORT_TCP", "9090"),
            ("FACTLIB_PORT_8080_HTTP", "9090"),
            ("FACTLIB_PORT_8080_TCP_NAME", "9090"),
            ("FACTLIB_PORT_8080_TCP_ADDR_X", "9090"),
            ("FACTLIB_KAFKA_BROKERS", "tcp://10.96.0.7:8080"),
        ] {
            assert!(!is_injected(name, value), "{name}={value}");
        }
    }
}
